"""Exchanges, pulses and health on an agent's server, and streams that are joined from several managers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sabot_native import (
    CorruptSegment,
    InvalidTicket,
    NativeError,
    Output,
    Scheme,
    SegmentLost,
    ShuffleManager,
    StreamError,
)
from sabot_native.control import AgentServer, ControlClient, Exchange
from sabot_native.flight import FlightPeer, JoinedStream

TOKEN = "t0ken-of-this-cluster"
KEY = b"k" * 32
TABLE = pa.table({"i": range(100_000), "text": [f"row {i}" for i in range(100_000)]})


@pytest.fixture
def server() -> Iterator[AgentServer]:
    with AgentServer("127.0.0.1", 0, token=TOKEN) as server:
        yield server


@pytest.fixture
def client(server: AgentServer) -> ControlClient:
    return ControlClient("127.0.0.1", server.port, token=TOKEN)


def both_ends(server: AgentServer, client: ControlClient, command: bytes = b"session") -> tuple[Exchange, Exchange]:
    ours = client.open(command)
    ours.send(b"first")
    theirs = server.accept(10_000)
    assert theirs is not None
    assert theirs.command == command
    assert theirs.receive() == b"first"
    return ours, theirs


def manager_of(path: Path, name: str) -> ShuffleManager:
    manager = ShuffleManager(name, budget_bytes=32 << 20, spill_directory=path / name)
    manager.register_shuffle("q")
    return manager


# ----------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 << 20])
def test_messages_of_any_size_arrive_whole_in_both_directions(
    server: AgentServer, client: ControlClient, size: int
) -> None:
    ours, theirs = both_ends(server, client)
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        sending = threading.Thread(target=sender.send, args=(message,))
        sending.start()
        assert receiver.receive() == message
        sending.join(10)
    theirs.close()
    assert ours.receive() is None


def test_a_closed_exchange_wakes_who_waits_in_it(server: AgentServer, client: ControlClient) -> None:
    ours, theirs = both_ends(server, client)
    ended: queue.SimpleQueue[object] = queue.SimpleQueue()

    def wait(end: Exchange) -> None:
        try:
            ended.put(end.receive())
        except SegmentLost as error:
            ended.put(error)

    for end in (ours, theirs):
        threading.Thread(target=wait, args=(end,)).start()
    ours.close()
    outcomes = [ended.get(timeout=10) for _ in range(2)]
    assert all(outcome is None or isinstance(outcome, SegmentLost) for outcome in outcomes)
    with pytest.raises(SegmentLost):
        ours.send(b"more")


def test_an_exchange_without_the_token_is_refused(server: AgentServer) -> None:
    stranger = ControlClient("127.0.0.1", server.port, token="another-token-altogether")
    with pytest.raises(InvalidTicket):
        stranger.health(5_000)
    with pytest.raises((InvalidTicket, SegmentLost)):
        stranger.open(b"session").receive()
    assert server.accept(0) is None


def test_health_is_what_was_set_last(server: AgentServer, client: ControlClient) -> None:
    for text in (b"", b"fine", b"draining"):
        server.set_health(text)
        assert client.health(5_000) == text


def test_nobody_there_is_an_error_within_the_deadline(server: AgentServer) -> None:
    port = server.port
    server.close()
    began = time.monotonic()
    with pytest.raises(NativeError):
        ControlClient("127.0.0.1", port, token=TOKEN).health(2_000)
    assert time.monotonic() - began < 10


def test_a_pulse_is_answered_without_anybody_taking_it(server: AgentServer, client: ControlClient) -> None:
    pulse = client.pulse(10)
    lock = threading.Event()
    threading.Timer(0.3, lock.set).start()
    longest = 0
    while not lock.wait(0.01):
        longest = max(longest, pulse.silent_ms)
    pulse.stop()
    assert longest < 200
    assert server.accept(0) is None


def test_a_pulse_of_a_server_that_ended_is_silent(server: AgentServer, client: ControlClient) -> None:
    pulse = client.pulse(10)
    server.close()
    give_up = time.monotonic() + 20
    while pulse.silent_ms < 300 and time.monotonic() < give_up:
        time.sleep(0.01)
    assert pulse.silent_ms >= 300
    pulse.stop()


# ------------------------------------------------------------------------------------------------------------ uploads


def test_an_upload_is_the_table_that_was_sent(server: AgentServer, client: ControlClient) -> None:
    for table in (TABLE, TABLE.slice(0, 0)):
        ours, theirs = both_ends(server, client, b"upload")
        sending = threading.Thread(target=ours.send_stream, args=(table,))
        sending.start()
        assert pa.table(theirs).equals(table)
        sending.join(10)
        theirs.send(b"thanks")
        assert ours.receive() == b"thanks"
        theirs.close()


def test_a_large_row_is_a_message_of_its_own(server: AgentServer, client: ControlClient) -> None:
    table = pa.table({"text": ["x" * (30 << 20), "y", "z" * (20 << 20), *["w"] * 1000]})
    ours, theirs = both_ends(server, client, b"upload")
    sending = threading.Thread(target=ours.send_stream, args=(table,))
    sending.start()
    reader = pa.RecordBatchReader.from_stream(theirs)
    sizes = [batch.num_rows for batch in reader]
    sending.join(10)
    theirs.close()
    assert sum(sizes) == table.num_rows
    assert len(sizes) > 2


def test_an_upload_that_breaks_off_is_no_upload(server: AgentServer, client: ControlClient) -> None:
    went_on, broken = threading.Event(), threading.Event()

    def rows() -> Iterator[pa.RecordBatch]:
        yield TABLE.slice(0, 1000).combine_chunks().to_batches()[0]
        went_on.set()
        broken.wait(20)
        raise ValueError("the source failed")

    ours, theirs = both_ends(server, client, b"upload")
    failures: list[BaseException] = []

    def send() -> None:
        try:
            ours.send_stream(pa.RecordBatchReader.from_batches(TABLE.schema, rows()))
        except NativeError as error:
            failures.append(error)
        ours.close()

    sending = threading.Thread(target=send)
    sending.start()
    reader = pa.RecordBatchReader.from_stream(theirs)
    assert reader.read_next_batch().num_rows == 1000
    assert went_on.wait(20)
    broken.set()
    with pytest.raises(OSError, match="before all of its rows|broke|ancel"):
        reader.read_all()
    sending.join(10)
    assert isinstance(failures[0], StreamError)
    with pytest.raises(SegmentLost):
        theirs.raise_error()
    del reader
    theirs.close()


# ------------------------------------------------------------------------------------------------------------- joined


def test_local_and_fetched_parts_are_read_in_their_order(server: AgentServer, tmp_path: Path) -> None:
    here, there = manager_of(tmp_path, "here"), manager_of(tmp_path, "there")
    server.add("one", there, KEY)
    manifests = {
        at: (here if at % 3 == 0 else there).write_partition(
            TABLE.slice(at * 9_000, 9_000), [Output("q", "e", at, 0, Scheme.single())]
        )
        for at in range(11)
    }
    peer = FlightPeer("127.0.0.1", server.port, token=TOKEN, silence_ms=5_000)
    for ahead in (1, 4, 100):
        parts = [
            here.read(manifest, 0, 1)
            if at % 3 == 0
            else peer.read(there.ticket(manifest, 0, 1, KEY), deadline_ms=20_000)
            for at, manifest in manifests.items()
        ]
        joined = JoinedStream(here.read(manifests[0], 0, 0), parts, ahead=ahead)
        assert pa.table(joined).equals(TABLE.slice(0, 99_000))
        assert pa.table(joined).equals(TABLE.slice(0, 99_000))  # read anew
        joined.raise_error()
    assert pa.table(JoinedStream(here.read(manifests[0], 0, 0), [], ahead=4)).equals(TABLE.slice(0, 0))
    for manager in (here, there):
        manager.close()


def test_a_part_that_is_gone_says_so_itself(server: AgentServer, tmp_path: Path) -> None:
    here, there = manager_of(tmp_path, "here"), manager_of(tmp_path, "there")
    server.add("one", there, KEY)
    kept = here.write_partition(TABLE, [Output("q", "e", 0, 0, Scheme.single())])
    gone = there.write_partition(TABLE, [Output("q", "e", 1, 0, Scheme.single())])
    peer = FlightPeer("127.0.0.1", server.port, token=TOKEN)
    parts = [here.read(kept, 0, 1), peer.read(there.ticket(gone, 0, 1, KEY), deadline_ms=20_000)]
    there.release("q")
    joined = JoinedStream(here.read(kept, 0, 0), parts, ahead=1)
    with pytest.raises(OSError, match="released"):
        pa.table(joined)
    parts[0].raise_error()
    with pytest.raises(SegmentLost):
        parts[1].raise_error()
    for manager in (here, there):
        manager.close()


def test_a_part_of_other_columns_is_damage(server: AgentServer, tmp_path: Path) -> None:
    here, there = manager_of(tmp_path, "here"), manager_of(tmp_path, "there")
    server.add("one", there, KEY)
    ours = here.write_partition(TABLE, [Output("q", "e", 0, 0, Scheme.single())])
    other = there.write_partition(TABLE.select(["i"]), [Output("q", "e", 1, 0, Scheme.single())])
    peer = FlightPeer("127.0.0.1", server.port, token=TOKEN)
    part = peer.read(there.ticket(other, 0, 1, KEY), deadline_ms=20_000)
    with pytest.raises(OSError, match="other columns"):
        pa.table(JoinedStream(here.read(ours, 0, 0), [part], ahead=1))
    with pytest.raises(CorruptSegment):
        part.raise_error()
    for manager in (here, there):
        manager.close()


def test_a_ticket_opens_the_manager_whose_key_sealed_it_and_no_other(server: AgentServer, tmp_path: Path) -> None:
    managers = {name: manager_of(tmp_path, name) for name in ("one", "two")}
    keys = {"one": b"1" * 32, "two": b"2" * 32}
    tickets = {}
    for number, (name, manager) in enumerate(managers.items()):
        server.add(name, manager, keys[name])
        rows = TABLE.slice(number * 10, 10)
        tickets[name] = manager.ticket(
            manager.write_partition(rows, [Output("q", "e", 0, 0, Scheme.single())]), 0, 1, keys[name]
        )
    peer = FlightPeer("127.0.0.1", server.port, token=TOKEN)
    for number, name in enumerate(managers):
        assert pa.table(peer.read(tickets[name], deadline_ms=20_000)).equals(TABLE.slice(number * 10, 10))
    server.remove("one")
    with pytest.raises(InvalidTicket):
        pa.table(peer.read(tickets["one"], deadline_ms=20_000))
    assert pa.table(peer.read(tickets["two"], deadline_ms=20_000)).num_rows == 10
    for manager in managers.values():
        manager.close()
