"""When batches are compressed on the wire: as asked, or where a sample says that it saves time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot_native import NativeError, Output, Scheme, ShuffleManager
from sabot_native.flight import FlightPeer, FlightServer
from tests.native.arrow_strategies import tables

KEY = b"k" * 32
SLOW_WIRE, FAST_WIRE = 10_000_000, 10**15
ROWS = 1_500_000


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShuffleManager]:
    folder = tmp_path_factory.mktemp("spill")
    with ShuffleManager("writer", budget_bytes=64 << 20, spill_directory=folder) as manager:
        manager.register_shuffle("q")
        yield manager


def ticket_for(manager: ShuffleManager, query_id: str, table: pa.Table) -> bytes:
    manager.register_shuffle(query_id)
    return manager.ticket(manager.write_partition(table, [Output(query_id, "e", 0, 0, Scheme.single())]), 0, 1, KEY)


@pytest.fixture(scope="module")
def orderly(manager: ShuffleManager) -> bytes:
    """Twelve megabytes that compress well."""
    return ticket_for(manager, "orderly", pa.table({"i": pa.array(range(ROWS), pa.int64())}))


@pytest.fixture(scope="module")
def noise(manager: ShuffleManager) -> bytes:
    """Twelve megabytes that do not compress."""
    values = pa.Array.from_buffers(pa.int64(), ROWS, [None, pa.py_buffer(random.Random(1).randbytes(ROWS * 8))])
    return ticket_for(manager, "noise", pa.table({"i": values}))


def serve(
    manager: ShuffleManager, ticket: bytes, mode: str, wire_bytes_per_second: int = SLOW_WIRE
) -> tuple[pa.Table, dict[str, int]]:
    with FlightServer(manager, KEY, compression=mode, wire_bytes_per_second=wire_bytes_per_second) as server:
        table = pa.table(FlightPeer("127.0.0.1", server.port).read(ticket, deadline_ms=60_000))
        return table, server.metrics()


@pytest.mark.parametrize("mode", ["lz4", "zstd"])
def test_a_codec_that_is_asked_for_is_used(manager: ShuffleManager, orderly: bytes, mode: str) -> None:
    table, metrics = serve(manager, orderly, mode)
    assert table["i"].to_pylist() == list(range(ROWS))
    assert metrics[f"{mode}_streams"] == metrics["lz4_streams"] + metrics["zstd_streams"] == 1
    assert metrics["sent_bytes"] < 0.6 * metrics["bytes"]


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_nothing_is_compressed_within_a_host(manager: ShuffleManager, orderly: bytes, mode: str) -> None:
    table, metrics = serve(manager, orderly, mode)
    assert table.num_rows == ROWS
    assert metrics["lz4_streams"] == metrics["zstd_streams"] == 0
    assert metrics["sent_bytes"] >= ROWS * 8


def test_a_sample_decides_by_the_wire(manager: ShuffleManager, orderly: bytes) -> None:
    table, slow = serve(manager, orderly, "sample", SLOW_WIRE)
    assert table["i"].to_pylist() == list(range(ROWS))
    assert slow["lz4_streams"] + slow["zstd_streams"] == 1
    assert slow["sent_bytes"] < 0.6 * ROWS * 8
    table, fast = serve(manager, orderly, "sample", FAST_WIRE)
    assert table.num_rows == ROWS
    assert fast["lz4_streams"] + fast["zstd_streams"] == 0


def test_a_sample_decides_by_the_rows(manager: ShuffleManager, noise: bytes) -> None:
    _, metrics = serve(manager, noise, "sample", SLOW_WIRE)
    assert metrics["lz4_streams"] + metrics["zstd_streams"] == 0


def test_a_short_stream_is_not_sampled(manager: ShuffleManager) -> None:
    ticket = ticket_for(manager, "short", pa.table({"i": pa.array(range(100_000), pa.int64())}))
    _, metrics = serve(manager, ticket, "sample", SLOW_WIRE)
    assert metrics["lz4_streams"] + metrics["zstd_streams"] == 0


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_type_survives_compression(data: st.DataObject, manager: ShuffleManager) -> None:
    table = data.draw(tables())
    manager.register_shuffle("types")
    (manifest,) = manager.write_partition(table, [Output("types", "e", 0, 0, Scheme.round_robin(3))])
    try:
        expected = pa.table(manager.read([manifest], 0, 3))
        found, _ = serve(manager, manager.ticket([manifest], 0, 3, KEY), data.draw(st.sampled_from(["lz4", "zstd"])))
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert repr(found.to_pylist()) == repr(expected.to_pylist())
    finally:
        manager.release("types")


def test_a_compression_that_there_is_none_of_is_an_error(manager: ShuffleManager) -> None:
    with pytest.raises(NativeError, match="give none, lz4, zstd, sample or auto"):
        FlightServer(manager, KEY, compression="gzip")  # type: ignore[arg-type]
    with pytest.raises(NativeError, match="wire_bytes_per_second must be positive"):
        FlightServer(manager, KEY, wire_bytes_per_second=0)
