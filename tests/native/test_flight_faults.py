"""Flight's dangers: tickets and batches that were tampered with, servers that lie or die, paths that lead elsewhere."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot_native import (
    CorruptSegment,
    InvalidTicket,
    Manifest,
    NativeError,
    Output,
    Scheme,
    SegmentLost,
    ShuffleManager,
)
from sabot_native.flight import FlightPeer, FlightServer
from tests.native.arrow_strategies import tables
from tests.native.lying_server import LyingServer, messages_of

KEY = b"k" * 32
DEADLINE_MS = 20_000

TABLE = pa.table(
    {
        "number": pa.array([None if i % 5 == 0 else i for i in range(40)], pa.int64()),
        "text": pa.array([None if i % 7 == 0 else f"zeile {i} äöü €"[: 3 + i % 12] for i in range(40)]),
        "list": pa.array([[i] * (i % 4) for i in range(40)], pa.list_(pa.int32())),
        "struct": pa.array([{"flag": i % 2 == 0, "bytes": bytes([i])} for i in range(40)]),
        "time": pa.array([dt.time(i % 24, 5) for i in range(40)], pa.time64("us")),
        "decimal": pa.array(range(40), pa.int32()).cast(pa.decimal128(12, 2)),
        "union": pa.UnionArray.from_dense(
            pa.array([i % 2 for i in range(40)], pa.int8()),
            pa.array([i // 2 for i in range(40)], pa.int32()),
            [pa.array(range(20), pa.int16()), pa.array(map(str, range(20)))],
        ),
    }
)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShuffleManager]:
    folder = tmp_path_factory.mktemp("spill")
    with ShuffleManager("writer", budget_bytes=4 << 20, spill_directory=folder) as manager:
        manager.register_shuffle("q")
        yield manager


@pytest.fixture(scope="module")
def true_server(manager: ShuffleManager) -> Iterator[FlightServer]:
    with FlightServer(manager, KEY) as server:
        yield server


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    with LyingServer() as server:
        yield server


def write(manager: ShuffleManager, query_id: str, table: pa.Table = TABLE, tasks: int = 1) -> list[Manifest]:
    manager.register_shuffle(query_id)
    outputs = [Output(query_id, "e", task, 0, Scheme.single()) for task in range(tasks)]
    return [manager.write_partition(table, [output])[0] for output in outputs]


def fetch(port: int, ticket: bytes) -> pa.Table:
    """Read everything; the error that ended the stream, if one did, is the transport's own."""
    stream = FlightPeer("127.0.0.1", port).read(ticket, deadline_ms=DEADLINE_MS)
    try:
        return pa.table(stream)
    except (OSError, pa.ArrowException):
        stream.raise_error()
        raise


# --- batches ----------------------------------------------------------------------------------------------------------


class Messages(list[bytes]):
    """Half a megabyte, which hypothesis would print."""

    def __repr__(self) -> str:
        return f"{len(self)} messages"


@pytest.fixture(scope="module")
def messages(manager: ShuffleManager, true_server: FlightServer) -> Messages:
    """A schema and three batches: each too large to share a message with the next."""
    filler = pa.table({"filler": pa.array([b"x" * 4096] * 40, pa.binary())})
    manifests = write(manager, "lies", TABLE.append_column("filler", filler["filler"]), 3)
    found = messages_of(true_server.port, manager.ticket(manifests, 0, 1, KEY))
    assert len(found) == 4
    return Messages(found)


def test_what_a_true_server_sends_is_read(liar: LyingServer, messages: list[bytes]) -> None:
    liar.messages, liar.dies = messages, False
    assert fetch(liar.port, b"x").select(TABLE.column_names).equals(pa.concat_tables([TABLE] * 3).combine_chunks())


def fetch_damaged(liar: LyingServer, messages: list[bytes], *, dies: bool = False) -> None:
    """Whatever comes is a typed error, or passes Arrow's own validation."""
    liar.messages, liar.dies = messages, dies
    try:
        table = fetch(liar.port, b"x")
    except NativeError:
        return
    table.validate(full=True)


EDITS = st.tuples(
    st.integers(0, 1 << 16),
    st.one_of(
        st.binary(min_size=1, max_size=4),
        st.sampled_from([b"\xff" * 8, b"\xff" * 7 + b"\x7f", bytes(8), (1 << 40).to_bytes(8, "little")]),
    ),
)


@settings(max_examples=400, deadline=5000)
@given(which=st.integers(0, 3), edits=st.lists(EDITS, min_size=1, max_size=4))
def test_damaged_batches_are_errors(
    which: int, edits: list[tuple[int, bytes]], liar: LyingServer, messages: list[bytes]
) -> None:
    message = bytearray(messages[which])
    # Metadata and offsets are in front; the filler behind them is of no interest.
    limit = min(len(message), 4000)
    for place, patch in edits:
        at = place % limit
        message[at : at + len(patch)] = patch
    fetch_damaged(liar, [*messages[:which], bytes(message), *messages[which + 1 :]])


@settings(max_examples=100, deadline=5000)
@given(which=st.integers(0, 3), length=st.integers(0, 1 << 20), invented=st.none() | st.binary(max_size=200))
def test_cut_and_invented_messages_are_errors(
    which: int, length: int, invented: bytes | None, liar: LyingServer, messages: list[bytes]
) -> None:
    wrong = messages[which][: length % len(messages[which])] if invented is None else invented
    liar.messages, liar.dies = [*messages[:which], wrong, *messages[which + 1 :]], False
    with pytest.raises(NativeError):
        fetch(liar.port, b"x")


def test_every_byte_of_offsets_and_metadata(liar: LyingServer, messages: list[bytes]) -> None:
    source = random.Random(7)
    schema, first = messages[:2]
    for at in range(0, 3000, 3):
        if at < len(first):
            damaged = first[:at] + bytes([source.randrange(256)]) + first[at + 1 :]
            fetch_damaged(liar, [schema, damaged, *messages[2:]])


@pytest.mark.parametrize("order", ["-", "0", "01", "012", "023", "013", "03", "01123", "0213", "01233", "123", "3"])
def test_no_row_is_lost_or_doubled_without_an_error(liar: LyingServer, messages: list[bytes], order: str) -> None:
    liar.messages, liar.dies = [messages[int(digit)] for digit in order if digit.isdigit()], False
    with pytest.raises(CorruptSegment):
        fetch(liar.port, b"x")


@pytest.mark.parametrize("sent", range(4))
def test_a_server_that_dies_in_the_middle_is_a_lost_segment(
    liar: LyingServer, messages: list[bytes], sent: int
) -> None:
    liar.messages, liar.dies = messages[:sent], True
    with pytest.raises(SegmentLost):
        fetch(liar.port, b"x")


def test_text_that_is_no_utf8_is_an_error(liar: LyingServer, messages: list[bytes]) -> None:
    text = "zeile 8 äöü".encode()
    assert text in messages[1]
    for wrong in (text.replace(b"\xc3\xa4", b"\xc3\x28"), text[:-1] + b"\xc3", b"\x80" + text[1:]):
        liar.messages, liar.dies = [messages[0], messages[1].replace(text, wrong), *messages[2:]], False
        with pytest.raises(CorruptSegment, match="UTF8"):
            fetch(liar.port, b"x")


def test_a_name_that_is_no_utf8_is_an_error(liar: LyingServer, messages: list[bytes]) -> None:
    assert messages[0].count(b"number") == 1
    liar.messages, liar.dies = [messages[0].replace(b"number", b"n\x80mber"), *messages[1:]], False
    with pytest.raises(CorruptSegment, match="a name is no UTF8"):
        fetch(liar.port, b"x")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_type_arrives_as_it_is_stored(
    data: st.DataObject, manager: ShuffleManager, true_server: FlightServer
) -> None:
    table = data.draw(tables())
    partitions = data.draw(st.sampled_from([1, 3, 40]))
    manager.register_shuffle("types")
    (manifest,) = manager.write_partition(table, [Output("types", "e", 0, 0, Scheme.round_robin(partitions))])
    try:
        expected = pa.table(manager.read([manifest], 0, partitions))
        found = fetch(true_server.port, manager.ticket([manifest], 0, partitions, KEY))
        found.validate(full=True)
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert repr(found.to_pylist()) == repr(expected.to_pylist())
    finally:
        manager.release("types")


# --- tickets ----------------------------------------------------------------------------------------------------------


def test_no_bit_of_a_ticket_can_be_changed(manager: ShuffleManager) -> None:
    ticket = manager.ticket(write(manager, "bits"), 0, 1, KEY)
    for at in range(len(ticket)):
        for bit in range(8):
            with pytest.raises(InvalidTicket):
                manager.read_ticket(ticket[:at] + bytes([ticket[at] ^ 1 << bit]) + ticket[at + 1 :], KEY)
    for length in range(len(ticket)):
        with pytest.raises(InvalidTicket):
            manager.read_ticket(ticket[:length], KEY)


def test_tickets_that_are_refused_over_flight(manager: ShuffleManager, true_server: FlightServer) -> None:
    ticket = manager.ticket(write(manager, "mine"), 0, 1, KEY)
    other_query = manager.ticket(write(manager, "other"), 0, 1, KEY)
    refused = {
        "of another session": manager.ticket(write(manager, "forged"), 0, 1, b"another key" * 3),
        "of a query under another's seal": other_query[:-32] + ticket[-32:],
        "longer than any ticket": ticket + b"x" * (2 << 20),
        "empty": b"",
        "a path": b"../../etc/passwd",
        "NUL": b"\0" * 64,
        "escaped": b"%2e%2e/",
        "ten kilobytes": b"x" * 10_240,
    }
    before = true_server.metrics()
    for candidate in refused.values():
        with pytest.raises(InvalidTicket, match="the ticket is refused"):
            fetch(true_server.port, candidate)
    after = true_server.metrics()
    assert after["refused"] - before["refused"] == len(refused)
    assert after["streams"] == before["streams"]
    assert fetch(true_server.port, ticket).equals(TABLE)


def test_a_ticket_used_again_after_the_release_reads_nothing(
    manager: ShuffleManager, true_server: FlightServer
) -> None:
    ticket = manager.ticket(write(manager, "again"), 0, 1, KEY)
    assert fetch(true_server.port, ticket).equals(TABLE)
    assert fetch(true_server.port, ticket).equals(TABLE), "a retry is no replay"
    manager.release("again")
    with pytest.raises(SegmentLost, match="released"):
        fetch(true_server.port, ticket)
    write(manager, "again", TABLE.slice(0, 1))
    assert fetch(true_server.port, ticket).num_rows == 1, "a ticket names an output, not its rows"


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_spilled_segment_is_not_read_through_a_symbolic_link(tmp_path: Path) -> None:
    spill = tmp_path / "spill"
    with ShuffleManager("writer", budget_bytes=1 << 16, spill_directory=spill) as manager:
        manager.register_shuffle("q")
        manifests = write(manager, "q", pa.table({"i": range(20_000)}), 4)
        ticket = manager.ticket(manifests, 0, 1, KEY)
        files = [path for path in spill.rglob("*") if path.is_file()]
        assert files
        for path in files:
            moved = path.rename(tmp_path / path.name)
            path.symlink_to(moved)
        with FlightServer(manager, KEY) as server, pytest.raises(SegmentLost, match="symbolic links"):
            fetch(server.port, ticket)
