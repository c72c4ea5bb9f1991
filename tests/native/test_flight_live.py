"""Outputs that are followed over Flight while they are written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from sabot_native import Cancelled, InvalidTicket, Output, Scheme, ShuffleManager, StreamError
from sabot_native.flight import FlightPeer, FlightServer, RemoteStream

KEY = b"k" * 32
SCHEMA = pa.schema([("i", pa.int64())])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ShuffleManager]:
    with ShuffleManager("writer", budget_bytes=4 << 20, spill_directory=tmp_path / "spill") as manager:
        manager.register_shuffle("q")
        yield manager


@pytest.fixture
def server(manager: ShuffleManager) -> Iterator[FlightServer]:
    with FlightServer(manager, KEY) as server:
        yield server


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def numbers(first: int, last: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(first, last), pa.int64())], schema=SCHEMA)


def produce(manager: ShuffleManager, batches: Iterator[pa.RecordBatch], task: int = 0, partitions: int = 1) -> None:
    reader = pa.RecordBatchReader.from_batches(SCHEMA, batches)
    scheme = Scheme.hash_columns(["i"], partitions) if partitions > 1 else Scheme.single()
    manager.write_partition(reader, [Output("q", "e", task, 0, scheme)], live=True)


def follow(
    manager: ShuffleManager, server: FlightServer, tasks: int = 1, first: int = 0, last: int = 1
) -> RemoteStream:
    ticket = manager.live_ticket("q", "e", [(task, 0) for task in range(tasks)], first, last, KEY)
    return FlightPeer("127.0.0.1", server.port).read(ticket, deadline_ms=120_000)


def test_batches_come_before_the_producer_has_ended(
    manager: ShuffleManager, server: FlightServer, threads: ThreadPoolExecutor
) -> None:
    seen = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield numbers(0, 1000)
        deadline = time.monotonic() + 100
        while not seen.is_set() and time.monotonic() < deadline:
            yield numbers(0, 0)
            time.sleep(0.01)
        assert seen.is_set()
        yield numbers(1000, 3000)

    stream = follow(manager, server)
    written = threads.submit(produce, manager, batches())
    reader = pa.RecordBatchReader.from_stream(stream)
    found = reader.read_next_batch()["i"].to_pylist()
    assert not written.done()
    seen.set()
    for batch in reader:
        found += batch["i"].to_pylist()
    assert found == list(range(3000))
    written.result(60)


def test_every_row_reaches_one_reader_of_its_partition(
    manager: ShuffleManager, server: FlightServer, threads: ThreadPoolExecutor
) -> None:
    tasks, partitions, rows = 2, 3, 200_000
    readers = [
        threads.submit(lambda p: pa.table(follow(manager, server, tasks, p, p + 1))["i"].to_pylist(), p)
        for p in range(partitions)
    ]
    writers = [
        threads.submit(produce, manager, (numbers(at, at + 5000) for at in range(t * rows, (t + 1) * rows, 5000)), t, 3)
        for t in range(tasks)
    ]
    for writer in writers:
        writer.result(100)
    found = [reader.result(100) for reader in readers]
    assert all(found)
    assert sorted(i for part in found for i in part) == list(range(tasks * rows))


def test_an_output_without_rows_ends(
    manager: ShuffleManager, server: FlightServer, threads: ThreadPoolExecutor
) -> None:
    written = threads.submit(produce, manager, iter(()))
    assert pa.table(follow(manager, server)).schema == SCHEMA
    written.result(60)


def test_the_producer_s_failure_is_the_reader_s(
    manager: ShuffleManager, server: FlightServer, threads: ThreadPoolExecutor
) -> None:
    followed = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield numbers(0, 100)
        assert followed.wait(100)
        raise ValueError("the source broke")

    written = threads.submit(produce, manager, batches())
    stream = follow(manager, server)
    reader = pa.RecordBatchReader.from_stream(stream)
    followed.set()
    with pytest.raises(OSError, match="the source broke"):
        reader.read_all()
    with pytest.raises(StreamError, match="the source broke"):
        stream.raise_error()
    with pytest.raises(StreamError):
        written.result(60)


def test_a_release_ends_readers_that_wait(
    manager: ShuffleManager, server: FlightServer, threads: ThreadPoolExecutor
) -> None:
    waiting = threads.submit(pa.table, follow(manager, server))
    time.sleep(0.2)
    assert not waiting.done()
    manager.release("q")
    with pytest.raises(Cancelled, match="released"):
        waiting.result(60)


def test_a_reader_that_gives_up_frees_the_server(
    manager: ShuffleManager, server: FlightServer, threads: ThreadPoolExecutor
) -> None:
    go_on = threading.Event()

    def batches() -> Iterator[pa.RecordBatch]:
        yield numbers(0, 200_000)
        assert go_on.wait(100)

    written = threads.submit(produce, manager, batches())
    stream = follow(manager, server)
    reader = pa.RecordBatchReader.from_stream(stream)
    assert reader.read_next_batch().num_rows > 0
    threading.Timer(0.2, stream.cancel).start()
    with pytest.raises(OSError, match="cancelled"):
        reader.read_all()
    with pytest.raises(Cancelled):
        stream.raise_error()
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 0.9, "no call was waiting for the producer any more"
    go_on.set()
    written.result(60)


def test_tickets_for_reading_and_for_following_are_not_one_another(
    manager: ShuffleManager, server: FlightServer
) -> None:
    live = manager.live_ticket("q", "e", [(0, 0)], 0, 1, KEY)
    with pytest.raises(InvalidTicket, match="for following an output"):
        manager.read_ticket(live, KEY)
    with pytest.raises(InvalidTicket, match="not made by this session"):
        pa.table(FlightPeer("127.0.0.1", server.port).read(live[:-1] + b"x", deadline_ms=5000))
    with pytest.raises(InvalidTicket):
        manager.live_ticket("../q", "e", [(0, 0)], 0, 1, KEY)
