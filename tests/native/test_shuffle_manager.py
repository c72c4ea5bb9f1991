"""The shuffle manager against DuckDB: what goes in comes out, partition by partition."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from sabot_native import (
    Cancelled,
    CancelToken,
    DeadlineExceeded,
    Manifest,
    NativeError,
    Output,
    PartitionStream,
    Scheme,
    SegmentLost,
    ShuffleManager,
    SpillQuotaExceeded,
    StreamError,
)

MIB = 1 << 20

ROWS = """
select i, i::double d, 'abc' || i s, case when i % 3 = 0 then null else i end n, [i, i + 1] l,
       {'a': i::varchar, 'b': i} st, hash(i % 1007) h
from range(60000) t(i)
"""


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("set arrow_lossless_conversion = true")
        yield connection


def manager_with(tmp_path: Path, budget_bytes: int = 64 * MIB, **options: int) -> ShuffleManager:
    manager = ShuffleManager("agent", budget_bytes=budget_bytes, spill_directory=str(tmp_path / "spill"), **options)
    manager.register_shuffle("q")
    return manager


def rows_of(stream) -> Counter[str]:
    return Counter(map(repr, pa.RecordBatchReader.from_stream(stream).read_all().to_pylist()))


@contextmanager
def raises_in(stream: PartitionStream, error: type[NativeError]):
    """Consumers report a stream's failure as an error of their own; the stream knows which it was."""
    with pytest.raises(OSError, match="."):
        yield stream
    with pytest.raises(error):
        stream.raise_error()


@pytest.mark.parametrize("partitions", [1, 2, 7, 64, 1024])
@pytest.mark.parametrize("budget_bytes", [64 * MIB, 2 * MIB])
def test_every_row_arrives_once(tmp_path, connection, partitions, budget_bytes):
    with manager_with(tmp_path, budget_bytes) as manager:
        (manifest,) = manager.write_partition(
            connection.cursor().sql(ROWS), [Output("q", "e", 0, 0, Scheme.hash_column("h", partitions))]
        )
        stream = manager.read([manifest], 0, partitions)
        assert stream.rows == manifest.rows == sum(manifest.partition_rows) == 60000
        expected = connection.sql(f"select * exclude h from ({ROWS}) order by i").fetchall()
        assert connection.cursor().sql("from stream order by i").fetchall() == expected
        assert manager.metrics()["peak_pool_bytes"] <= budget_bytes
        assert manifest.spilled_bytes == manager.metrics()["spilled_bytes"]
        assert (manifest.spilled_bytes > 0) == (budget_bytes == 2 * MIB)
        assert manifest.batches == sum(manifest.partition_batches)
        assert [bool(batches) for batches in manifest.partition_batches] == [
            rows > 0 for rows in manifest.partition_rows
        ]
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_row_lies_in_the_partition_of_its_hash(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        rows = "select hash(i) h, hash(i) kept, i from range(10000) t(i)"
        (manifest,) = manager.write_partition(
            connection.cursor().sql(rows), [Output("q", "e", 0, 0, Scheme.hash_column("h", 5))]
        )
        for partition in range(5):
            part = pa.table(manager.read([manifest], partition, partition + 1))
            assert part.num_rows == manifest.partition_rows[partition]
            assert all(((h >> 32) * 5) >> 32 == partition for h in part["kept"].to_pylist())


def test_a_stream_can_be_read_again(tmp_path):
    with manager_with(tmp_path) as manager:
        table = pa.table({"i": range(10)})
        (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
        stream = manager.read([manifest], 0, 1)
        assert rows_of(stream) == rows_of(stream) == rows_of(table)


def test_outputs_choose_their_columns_and_schemes(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        rows = "select i, i % 3 k, hash(i) h from range(1000) t(i)"
        first, second = manager.write_partition(
            connection.cursor().sql(rows),
            [
                Output("q", "e1", 0, 0, Scheme.hash_column("h", 4), ("k", "i")),
                Output("q", "e2", 0, 0, Scheme.round_robin(3)),
            ],
        )
        assert pa.table(manager.read([first], 0, 4)).column_names == ["k", "i"]
        assert second.partition_rows == [334, 333, 333]
        assert pa.table(manager.read([second], 0, 3)).column_names == ["i", "k", "h"]


def test_an_empty_partition_has_the_schema(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        (manifest,) = manager.write_partition(
            connection.cursor().sql("select 1::hugeint a, 'x' b where false"),
            [Output("q", "e", 0, 0, Scheme.hash_columns(["b"], 8))],
        )
        stream = manager.read([manifest], 3, 4)
        assert pa.table(stream).num_rows == 0
        assert connection.sql("describe from stream").fetchall()[0][:2] == ("a", "HUGEINT")


def test_sampled_output_is_split_in_order(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        rows = (
            "select i, create_sort_key(i, 'ASC NULLS LAST') k from (select hash(i) % 100000 i from range(50000) t(i))"
        )
        (manifest,) = manager.write_partition(
            connection.cursor().sql(rows), [Output("q", "e", 0, 0, Scheme.sampled("k", 100))]
        )
        assert len(manifest.sample) == 100
        bounds = sorted(set(manifest.sample))[24::25]
        split = manager.split(manifest, bounds, 1)
        parts = [pa.table(manager.read([split], p, p + 1))["i"].to_pylist() for p in range(len(bounds) + 1)]
        assert sum(map(len, parts)) == 50000
        assert all(max(low) < min(high) for low, high in pairwise(parts))
        with raises_in(manager.read([manifest], 0, 1), SegmentLost) as stream:
            pa.table(stream)


def test_of_long_sort_keys_the_beginning_is_sampled(tmp_path, connection):
    """A manifest travels: a thousand keys of megabytes may not be in it."""
    with manager_with(tmp_path) as manager:
        rows = "select i, create_sort_key(i % 50 || repeat('x', 20000), 'ASC NULLS LAST') k from range(400) t(i)"
        (manifest,) = manager.write_partition(
            connection.cursor().sql(rows), [Output("q", "e", 0, 0, Scheme.sampled("k", 100))]
        )
        assert {len(value) for value in manifest.sample} == {1024}
        bounds = sorted(set(manifest.sample))[9::10]
        split = manager.split(manifest, bounds, 1)
        parts = [pa.table(manager.read([split], p, p + 1))["i"].to_pylist() for p in range(len(bounds) + 1)]
        assert sorted(i for part in parts for i in part) == list(range(400))
        assert len(parts) > 3
        keys = [{str(i % 50) + "x" for i in part} for part in parts]
        assert all(max(low) < min(high) for low, high in pairwise(keys))


def test_heavy_hitters_have_an_error_bound(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        rows = "select hash(if(i % 10 = 0, 0, i)) h, i from range(400000) t(i)"
        (manifest,) = manager.write_partition(
            connection.cursor().sql(rows), [Output("q", "e", 0, 0, Scheme.hash_column("h", 4))]
        )
        hash_, count, error = manifest.heavy[0]
        assert hash_ == connection.sql("select hash(0::bigint)").fetchall()[0][0]
        assert abs(40000 - count) <= error < 10000


def test_manifests_survive_the_trip(tmp_path):
    with manager_with(tmp_path) as manager:
        table = pa.table({"i": range(100), "s": [str(i) for i in range(100)]})
        (manifest,) = manager.write_partition(table, [Output("q", "e", 3, 1, Scheme.hash_columns(["s"], 4))])
        copy = Manifest.from_bytes(manifest.to_bytes())
        assert copy.to_bytes() == manifest.to_bytes()
        assert (copy.query_id, copy.edge_id, copy.task, copy.attempt, copy.agent_id) == ("q", "e", 3, 1, "agent")
        assert rows_of(manager.read([copy], 0, 4)) == rows_of(table)


def test_released_output_is_lost_but_held_arrays_live(tmp_path):
    with manager_with(tmp_path) as manager:
        table = pa.table({"s": [str(i) for i in range(1000)]})
        (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
        held = pa.table(manager.read([manifest], 0, 1))
        manager.release("q", "e")
        with raises_in(manager.read([manifest], 0, 1), SegmentLost) as stream:
            pa.table(stream)
        assert manager.metrics()["pool_bytes"] > 0
        assert held.equals(table)
        del held
        assert manager.metrics()["pool_bytes"] == 0


def test_a_failing_stream_commits_nothing(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        with pytest.raises(StreamError, match="Could not convert string 'x'"):
            manager.write_partition(
                connection.cursor().sql("select if(i = 150000, 'x', '1')::int from range(200000) t(i)"),
                [Output("q", "e", 0, 0, Scheme.single())],
            )
        assert manager.metrics()["segments"] == manager.metrics()["pool_bytes"] == 0


def test_an_attempt_commits_once(tmp_path):
    with manager_with(tmp_path) as manager:
        table = pa.table({"i": [1]})
        (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
        with pytest.raises(NativeError, match="before"):
            manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
        assert rows_of(manager.read([manifest], 0, 1)) == rows_of(table)
        assert manager.metrics()["segments"] == 1


def test_cancel_and_deadline_end_a_write(tmp_path, connection):
    with manager_with(tmp_path) as manager:
        token = CancelToken()
        token.cancel()
        output = Output("q", "e", 0, 0, Scheme.single())
        with pytest.raises(Cancelled):
            manager.write_partition(connection.cursor().sql(ROWS), [output], cancel=token)
        with pytest.raises(DeadlineExceeded):
            manager.write_partition(connection.cursor().sql(ROWS), [output], deadline_ms=0)
        assert manager.metrics()["pool_bytes"] == 0


def test_the_disk_quota_is_an_error_and_leaves_nothing(tmp_path, connection):
    with manager_with(tmp_path, 2 * MIB, spill_quota_bytes=MIB) as manager:
        with pytest.raises(SpillQuotaExceeded, match="1048576"):
            manager.write_partition(
                connection.cursor().sql(ROWS), [Output("q", "e", 0, 0, Scheme.hash_column("h", 16))]
            )
        assert manager.metrics()["pool_bytes"] == manager.metrics()["disk_bytes"] == 0
        assert list((tmp_path / "spill").iterdir()) == []
        (manifest,) = manager.write_partition(pa.table({"i": [1]}), [Output("q", "e", 0, 0, Scheme.single())])
        assert manifest.rows == 1


def test_a_live_output_is_followed_while_it_is_written(tmp_path, connection):
    with manager_with(tmp_path) as manager, ThreadPoolExecutor(1) as threads:
        output = Output("q", "e", 0, 0, Scheme.hash_column("h", 3))
        written = threads.submit(
            manager.write_partition, connection.cursor().sql(ROWS), [output], deadline_ms=30000, live=True
        )
        parts = [pa.table(manager.follow("q", "e", [(0, 0)], p, p + 1, deadline_ms=30000)) for p in range(3)]
        (manifest,) = written.result()
        assert [part.num_rows for part in parts] == manifest.partition_rows
        expected = pa.table(connection.sql(f"select * exclude h from ({ROWS})"))
        assert rows_of(pa.concat_tables(parts)) == rows_of(expected)
        del parts
        assert manager.metrics()["pool_bytes"] == 0


def test_a_follower_learns_why_its_writer_failed(tmp_path, connection):
    with manager_with(tmp_path) as manager, ThreadPoolExecutor(1) as threads:
        broken = connection.cursor().sql("select if(i = 150000, 'x', '1')::int from range(200000) t(i)")
        written = threads.submit(manager.write_partition, broken, [Output("q", "e", 0, 0, Scheme.single())], live=True)
        stream = manager.follow("q", "e", [(0, 0)], 0, 1, deadline_ms=30000)
        with raises_in(stream, StreamError):
            pa.table(stream)
        with pytest.raises(StreamError, match="Could not convert"):
            written.result()


def test_a_follower_ends_by_its_deadline(tmp_path):
    with manager_with(tmp_path) as manager:
        stream = manager.follow("q", "nobody", [(0, 0)], 0, 1, deadline_ms=50)
        with raises_in(stream, DeadlineExceeded):
            pa.table(stream)


def test_a_query_is_written_between_its_registration_and_its_release(tmp_path):
    table, output = pa.table({"i": [1]}), Output("late", "e", 0, 0, Scheme.single())
    with manager_with(tmp_path) as manager:
        with pytest.raises(NativeError, match="no shuffle of query 'late'"):
            manager.write_partition(table, [output])
        manager.register_shuffle("late")
        manager.write_partition(table, [output])
        manager.release("late", "e")
        manager.write_partition(table, [output])
        manager.release("late")
        with pytest.raises(NativeError, match="or is released"):
            manager.write_partition(table, [output])
        assert manager.metrics()["outputs"] == 0
