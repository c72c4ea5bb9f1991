"""Streams over Flight while they run: credit, many at a time on one connection, deadlines, cancel, a server's death."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from sabot_native import Cancelled, DeadlineExceeded, Output, Scheme, SegmentLost, ShuffleManager
from sabot_native.flight import FlightPeer, FlightServer, RemoteStream
from tests.native.lying_server import LyingServer, messages_of

KEY = b"k" * 32
MIB = 1 << 20

SERVER = """
import sys
import pyarrow as pa
from sabot_native import Output, Scheme, ShuffleManager
from sabot_native.flight import FlightServer

with ShuffleManager("writer", budget_bytes=128 << 20, spill_directory=sys.argv[1]) as manager:
    manager.register_shuffle("q")
    table = pa.table({"i": pa.array(range(4_000_000), pa.int64())})
    manifests = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
    with FlightServer(manager, b"k" * 32) as server:
        print(server.port, manager.ticket(manifests, 0, 1, b"k" * 32).hex(), flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ShuffleManager]:
    with ShuffleManager("writer", budget_bytes=96 * MIB, spill_directory=tmp_path / "spill") as manager:
        manager.register_shuffle("q")
        yield manager


def ticket_for(manager: ShuffleManager, rows: int, query_id: str = "q") -> bytes:
    table = pa.table({"i": pa.array(range(rows), pa.int64())})
    manager.register_shuffle(query_id)
    return manager.ticket(manager.write_partition(table, [Output(query_id, "e", 0, 0, Scheme.single())]), 0, 1, KEY)


def settled(server: FlightServer) -> dict[str, int]:
    """The server's figures once they have not moved for a while."""
    before, since = server.metrics(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.02)
        if (now := server.metrics()) != before:
            before, since = now, time.monotonic()
    return before


def connections(port: int) -> int:
    ends = psutil.Process().net_connections("tcp")
    return sum(1 for end in ends if end.laddr.port == port and end.status == psutil.CONN_ESTABLISHED)


@pytest.fixture
def stalling(manager: ShuffleManager) -> Iterator[LyingServer]:
    """A server that sends a schema and a batch and then nothing."""
    with FlightServer(manager, KEY) as server:
        messages = messages_of(server.port, ticket_for(manager, 300_000))
    with LyingServer() as liar:
        liar.messages, liar.stalls = messages[:2], True
        yield liar


# --- credit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit_mib", [1, 4])
def test_a_slow_reader_holds_the_server_back(manager: ShuffleManager, credit_mib: int) -> None:
    ticket = ticket_for(manager, 8_000_000)
    with FlightServer(manager, KEY) as server:
        peer = FlightPeer("127.0.0.1", server.port, credit_bytes=credit_mib * MIB)
        reader = pa.RecordBatchReader.from_stream(peer.read(ticket, deadline_ms=60_000))
        rows = reader.read_next_batch().num_rows
        for _ in range(3):
            ahead = settled(server)["sent_bytes"] - rows * 8
            # gRPC renews the credit before it is used up, and messages are on their way at both ends.
            assert ahead <= (2 * credit_mib + 4) * MIB
            for _ in range(8):
                rows += reader.read_next_batch().num_rows
        rows += sum(batch.num_rows for batch in reader)
        assert rows == 8_000_000
        assert server.metrics()["rows"] == rows


def test_what_a_server_sends_is_counted(manager: ShuffleManager) -> None:
    ticket = ticket_for(manager, 1_000_000)
    with FlightServer(manager, KEY) as server:
        peer = FlightPeer("127.0.0.1", server.port)
        for times in (1, 2):
            pa.table(peer.read(ticket, deadline_ms=60_000))
            metrics = server.metrics()
            assert (metrics["streams"], metrics["rows"], metrics["refused"]) == (times, times * 1_000_000, 0)
            assert metrics["sent_bytes"] >= times * 8_000_000


def test_rows_of_fifty_megabytes_travel(manager: ShuffleManager) -> None:
    texts = [chr(97 + i) * 50_000_000 for i in range(3)]
    batches = [pa.record_batch({"i": [i], "s": [text]}) for i, text in enumerate(texts)]
    (manifest,) = manager.write_partition(pa.Table.from_batches(batches), [Output("q", "e", 0, 0, Scheme.single())])
    with FlightServer(manager, KEY) as server:
        peer = FlightPeer("127.0.0.1", server.port)
        stream = peer.read(manager.ticket([manifest], 0, 1, KEY), deadline_ms=60_000)
        found = list(pa.RecordBatchReader.from_stream(stream))
    assert [batch.num_rows for batch in found] == [1, 1, 1]
    assert [batch["s"][0].as_py() for batch in found] == texts


def test_small_segments_share_messages(manager: ShuffleManager) -> None:
    table = pa.table({"i": pa.array(range(200_000), pa.int64())})
    (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.round_robin(256))])
    assert manifest.batches >= 256
    with FlightServer(manager, KEY) as server:
        ticket = manager.ticket([manifest], 0, 256, KEY)
        found = pa.table(FlightPeer("127.0.0.1", server.port).read(ticket, deadline_ms=60_000))
        assert found.equals(pa.table(manager.read([manifest], 0, 256)).combine_chunks())
        assert server.metrics()["messages"] <= 4


# --- many at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1, 3])
def test_all_channels_to_a_peer_share_its_connections(manager: ShuffleManager, wanted: int) -> None:
    producers, consumers, rows = 6, 5, 60_000
    outputs = [
        manager.write_partition(
            pa.table({"i": pa.array(range(task * rows, (task + 1) * rows), pa.int64())}),
            [Output("q", "e", task, 0, Scheme.hash_columns(["i"], consumers))],
        )[0]
        for task in range(producers)
    ]
    with FlightServer(manager, KEY) as server, ThreadPoolExecutor(producers * consumers) as threads:
        peer = FlightPeer("127.0.0.1", server.port, connections=wanted)
        together = threading.Barrier(producers * consumers)

        def channel(producer: int, consumer: int) -> list[int]:
            ticket = manager.ticket([outputs[producer]], consumer, consumer + 1, KEY)
            reader = pa.RecordBatchReader.from_stream(peer.read(ticket, deadline_ms=60_000))
            together.wait(30)  # all of them are open
            assert connections(server.port) == 2 * wanted, "of the whole credit, and of a quarter"
            return list(reader.read_all()["i"].to_pylist())

        channels = [threads.submit(channel, p, c) for p in range(producers) for c in range(consumers)]
        found = [i for future in channels for i in future.result()]
        assert server.metrics()["streams"] == producers * consumers
    assert sorted(found) == list(range(producers * rows))


# --- ends -------------------------------------------------------------------------------------------------------------


def read_all(stream: RemoteStream) -> None:
    try:
        pa.table(stream)
    except OSError:
        stream.raise_error()
        raise


def test_a_read_ends_at_its_deadline(stalling: LyingServer) -> None:
    stream = FlightPeer("127.0.0.1", stalling.port).read(b"x", deadline_ms=300)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        read_all(stream)
    assert 0.2 < time.monotonic() - began < 3
    assert stalling.call_ended.wait(5)


def test_a_server_that_does_not_even_begin_is_left_at_the_deadline(stalling: LyingServer) -> None:
    stalling.messages = []
    with pytest.raises(DeadlineExceeded):
        read_all(FlightPeer("127.0.0.1", stalling.port).read(b"x", deadline_ms=300))


def test_a_read_that_waits_is_cancelled_from_another_thread(stalling: LyingServer) -> None:
    stream = FlightPeer("127.0.0.1", stalling.port).read(b"x", deadline_ms=60_000)
    threading.Timer(0.3, stream.cancel).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        read_all(stream)
    assert time.monotonic() - began < 5
    assert stalling.call_ended.wait(5)


def test_a_cancelled_read_does_not_begin(manager: ShuffleManager) -> None:
    ticket = ticket_for(manager, 10)
    with FlightServer(manager, KEY) as server:
        stream = FlightPeer("127.0.0.1", server.port).read(ticket, deadline_ms=60_000)
        stream.cancel()
        with pytest.raises(Cancelled):
            read_all(stream)
        again = FlightPeer("127.0.0.1", server.port).read(ticket, deadline_ms=60_000)
        assert pa.table(again).num_rows == 10


def test_a_reader_that_stops_early_ends_the_call(stalling: LyingServer) -> None:
    reader = pa.RecordBatchReader.from_stream(FlightPeer("127.0.0.1", stalling.port).read(b"x", deadline_ms=60_000))
    batch = reader.read_next_batch()
    del reader
    assert stalling.call_ended.wait(5)
    assert batch.num_rows > 0


def test_batches_outlive_their_stream_and_their_peer(manager: ShuffleManager) -> None:
    ticket = ticket_for(manager, 500_000)
    with FlightServer(manager, KEY) as server:
        stream = FlightPeer("127.0.0.1", server.port).read(ticket, deadline_ms=60_000)
        batches = list(pa.RecordBatchReader.from_stream(stream))
        del stream
    manager.release("q")
    assert pa.Table.from_batches(batches)["i"].to_pylist() == list(range(500_000))


def test_a_server_that_is_killed_in_the_middle_is_a_lost_segment(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as server:
        assert server.stdout is not None
        port, ticket = server.stdout.readline().split()
        peer = FlightPeer("127.0.0.1", int(port), credit_bytes=MIB)
        stream = peer.read(bytes.fromhex(ticket), deadline_ms=60_000)
        reader = pa.RecordBatchReader.from_stream(stream)
        assert reader.read_next_batch().num_rows > 0
        server.send_signal(signal.SIGKILL)
        with pytest.raises(OSError, match=r".+"):
            reader.read_all()
        with pytest.raises(SegmentLost):
            stream.raise_error()
        with pytest.raises(SegmentLost):
            read_all(peer.read(bytes.fromhex(ticket), deadline_ms=5000))


def test_closing_a_server_ends_its_streams(manager: ShuffleManager) -> None:
    ticket = ticket_for(manager, 8_000_000)
    server = FlightServer(manager, KEY)
    stream = FlightPeer("127.0.0.1", server.port, credit_bytes=MIB).read(ticket, deadline_ms=60_000)
    reader = pa.RecordBatchReader.from_stream(stream)
    reader.read_next_batch()
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 5
    with pytest.raises(OSError, match=r".+"):
        reader.read_all()
    with pytest.raises((SegmentLost, Cancelled)):
        stream.raise_error()
    server.close()


READERS = """
import sys, time
import psutil
import pyarrow as pa
from sabot_native.flight import FlightPeer

peer = FlightPeer("127.0.0.1", int(sys.argv[1]))
ticket = bytes.fromhex(sys.argv[2])
before = psutil.Process().memory_info().rss
streams = [pa.RecordBatchReader.from_stream(peer.read(ticket, deadline_ms=60_000)) for _ in range(int(sys.argv[3]))]
for stream in streams:
    stream.read_next_batch()
last, since = 0, time.monotonic()
while time.monotonic() - since < 1:
    now = psutil.Process().memory_info().rss
    if now > last + (1 << 20):
        last, since = now, time.monotonic()
    time.sleep(0.05)
print(psutil.Process().memory_info().rss - before)
for stream in (streams[0], streams[50], streams[-1]):
    assert sum(batch.num_rows for batch in stream) > 7_000_000
print("read")
"""


def test_a_hundred_stalled_readers_cost_little_more_than_ten(tmp_path: Path) -> None:
    """Each had 4 MiB of credit and more on the way: together they cost 570 MB."""
    with ShuffleManager("writer", budget_bytes=128 * MIB, spill_directory=tmp_path / "spill") as manager:
        manager.register_shuffle("q")
        ticket = ticket_for(manager, 8_000_000)
        with FlightServer(manager, KEY) as server:
            used = psutil.Process().memory_info().rss
            command = [sys.executable, "-c", READERS, str(server.port), ticket.hex(), "100"]
            readers = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
            cost, word = readers.stdout.split()
            assert word == "read"
            assert int(cost) < 200 * MIB
            assert psutil.Process().memory_info().rss - used < 64 * MIB
