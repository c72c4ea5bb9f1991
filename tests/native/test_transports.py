"""One suite over the three ways to read committed output (pointer, shared memory, Flight), and Flight's own dangers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot_native import (
    DeadlineExceeded,
    InvalidTicket,
    Manifest,
    NativeError,
    Output,
    Scheme,
    SegmentLost,
    ShuffleManager,
)
from sabot_native.flight import FlightPeer, FlightServer

KEY = b"k" * 32

Read = Callable[[list[Manifest], int, int], pa.Table]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ShuffleManager]:
    with ShuffleManager("writer", budget_bytes=1 << 20, spill_directory=str(tmp_path / "spill")) as manager:
        manager.register_shuffle("q")
        yield manager


def by_pointer(manager: ShuffleManager, tmp_path: Path) -> Iterator[Read]:
    yield lambda manifests, first, last: pa.table(manager.read(manifests, first, last))


def by_shared_memory(manager: ShuffleManager, tmp_path: Path) -> Iterator[Read]:
    script = Path(__file__).with_name("peer_reader.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(manager.arena_fd()), str(tmp_path / "spill"), str(tmp_path / "own")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[manager.arena_fd()],
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read(manifests: list[Manifest], first: int, last: int) -> pa.Table:
            texts = [manifest.to_bytes().hex() for manifest in manifests]
            request = {"manifests": texts, "first": first, "last": last}
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.read(int.from_bytes(process.stdout.read(8), "little"))
            if answer.startswith(b"!"):
                raise OSError(answer[1:].decode())
            return pa.ipc.open_stream(answer).read_all()

        yield read
        process.stdin.close()


def by_flight(manager: ShuffleManager, tmp_path: Path) -> Iterator[Read]:
    with FlightServer(manager, KEY) as server:
        peer = FlightPeer("127.0.0.1", server.port)

        def read(manifests: list[Manifest], first: int, last: int) -> pa.Table:
            return pa.table(peer.read(manager.ticket(manifests, first, last, KEY), deadline_ms=20000))

        yield read


@pytest.fixture(params=[by_pointer, by_shared_memory, by_flight], ids=["pointer", "shared memory", "flight"])
def read(request: pytest.FixtureRequest, manager: ShuffleManager, tmp_path: Path) -> Iterator[Read]:
    yield from request.param(manager, tmp_path)


def rows(count: int, first: int = 0) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table(
        {
            "i": pa.array(numbers, pa.int64()),
            "text": pa.array([None if i % 7 == 0 else f"row {i}" for i in numbers]),
            "nested": pa.array([{"l": [i, None], "d": i / 2} for i in numbers]),
        }
    )


def write(manager: ShuffleManager, task: int, table: pa.Table, partitions: int = 4) -> Manifest:
    return manager.write_partition(table, [Output("q", "e", task, 0, Scheme.hash_columns(["i"], partitions))])[0]


def multiset(table: pa.Table) -> Counter[str]:
    return Counter(map(repr, table.to_pylist()))


def test_rows_arrive_once_with_their_types(manager: ShuffleManager, read: Read) -> None:
    table = rows(5000)
    manifest = write(manager, 0, table)
    got = read([manifest], 0, 4)
    got.validate(full=True)
    assert got.schema.types == table.schema.types
    assert multiset(got) == multiset(table)
    assert [read([manifest], p, p + 1).num_rows for p in range(4)] == manifest.partition_rows


def test_several_outputs_are_read_in_order(manager: ShuffleManager, read: Read) -> None:
    manifests = [write(manager, task, rows(100, 1000 * task), 1) for task in range(3)]
    assert read(manifests[::-1], 0, 1)["i"].to_pylist() == [*range(2000, 2100), *range(1000, 1100), *range(100)]


def test_spilled_output_is_read(manager: ShuffleManager, read: Read) -> None:
    manifests = [write(manager, task, rows(10000, 10000 * task)) for task in range(4)]
    assert manager.metrics()["spilled_bytes"] > 0
    assert multiset(read(manifests, 0, 4)) == multiset(rows(40000))


def test_an_empty_partition_has_its_schema(manager: ShuffleManager, read: Read) -> None:
    manifest = write(manager, 0, rows(0))
    assert read([manifest], 2, 3).schema.names == ["i", "text", "nested"]


def test_released_output_is_an_error(manager: ShuffleManager, read: Read) -> None:
    manifest = write(manager, 0, rows(10))
    sealed = manager.ticket([manifest], 0, 4, KEY)
    manager.release("q")
    with pytest.raises((OSError, SegmentLost), match="released"):
        read([manifest], 0, 4)
    with pytest.raises(SegmentLost, match="released"):
        manager.read_ticket(sealed, KEY)


@pytest.mark.parametrize("bad", ["../etc", "/abs", "a\0b", "%2e", "", "x" * 65, "x" * 10240, "a b", "ä"])
def test_an_id_that_is_no_id_gets_no_ticket(manager: ShuffleManager, bad: str) -> None:
    # No output can have such a name; one that is only followed is asked for by name.
    with pytest.raises(InvalidTicket):
        manager.live_ticket(bad, "e", [(0, 0)], 0, 1, KEY)
    with pytest.raises(InvalidTicket):
        manager.live_ticket("q", bad, [(0, 0)], 0, 1, KEY)


def test_a_ticket_of_another_session_is_refused(manager: ShuffleManager) -> None:
    manifest = write(manager, 0, rows(10))
    forged = manager.ticket([manifest], 0, 4, b"another key" * 3)
    with FlightServer(manager, KEY) as server, pytest.raises(InvalidTicket, match="not made by this session"):
        pa.table(FlightPeer("127.0.0.1", server.port).read(forged, deadline_ms=20000))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_ticket_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    with ShuffleManager("w", budget_bytes=1, spill_directory=str(tmp_path_factory.getbasetemp() / "s")) as manager:
        manager.register_shuffle("q")
        ticket = manager.ticket([write(manager, 0, rows(3))], 0, 4, KEY)
        at = data.draw(st.integers(0, len(ticket) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=6))
        damaged = (ticket[:at] + patch + ticket[at + len(patch) :], ticket[:at], ticket + patch, patch)
        for candidate in damaged:
            if candidate != ticket:
                with pytest.raises(InvalidTicket):
                    manager.read_ticket(candidate, KEY)


def test_serving_beyond_loopback_needs_tls_and_a_token(manager: ShuffleManager) -> None:
    with pytest.raises(NativeError, match="without TLS and a token"):
        FlightServer(manager, KEY, host="0.0.0.0")


@pytest.mark.parametrize("module", ["sabot_native._flight", "sabot_native.flight", "sabot_native._native"])
def test_each_module_can_be_the_first_to_be_imported(module: str) -> None:
    program = f"import {module}; import pyarrow.flight; print({module}.__name__)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (answer.stdout.strip(), answer.stderr) == (module, "")


def test_an_agent_that_is_gone_is_a_lost_segment(manager: ShuffleManager) -> None:
    ticket = manager.ticket([write(manager, 0, rows(3))], 0, 4, KEY)
    with FlightServer(manager, KEY) as server:
        peer = FlightPeer("127.0.0.1", server.port)
    with pytest.raises((SegmentLost, DeadlineExceeded)):
        pa.table(peer.read(ticket, deadline_ms=2000))


def test_other_verbs_are_refused(manager: ShuffleManager) -> None:
    import pyarrow.flight as arrow_flight

    with FlightServer(manager, KEY) as server, arrow_flight.connect(f"grpc://127.0.0.1:{server.port}") as client:
        with pytest.raises(NotImplementedError):
            list(client.list_flights())
        with pytest.raises(NotImplementedError):
            list(client.do_action("anything"))
        writer, _ = client.do_put(arrow_flight.FlightDescriptor.for_path("x"), pa.schema([("i", pa.int64())]))
        with pytest.raises(NotImplementedError):
            writer.close()
