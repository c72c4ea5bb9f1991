"""Properties of the shuffle: rows are conserved with their types, equal keys meet, nothing is left behind."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabot_native import CorruptSegment, Manifest, NativeError, Output, Scheme, ShuffleManager, UnsupportedType
from tests.native.arrow_strategies import stored_type, tables

KIB = 1 << 10

PROFILE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def multiset(table: pa.Table) -> Counter[str]:
    """The rows with their multiplicities, NaN and types included."""
    return Counter(map(repr, table.to_pylist()))


def schemes() -> st.SearchStrategy[Scheme]:
    partitions = st.one_of(st.integers(1, 20), st.sampled_from([64, 257, 1024]))
    return st.one_of(
        partitions.map(lambda n: Scheme.hash_column("h", n)),
        partitions.map(lambda n: Scheme.hash_columns(["n"], n)),
        partitions.map(Scheme.round_robin),
        st.just(Scheme.single()),
    )


@PROFILE
@given(table=tables(), scheme=schemes(), budget_bytes=st.sampled_from([64 * KIB, 256 * KIB, 64 << 20]))
def test_rows_are_conserved(table: pa.Table, scheme: Scheme, budget_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as spill:
        with ShuffleManager("agent", budget_bytes=budget_bytes, spill_directory=spill) as manager:
            manager.register_shuffle("q")
            columns = tuple(name for name in table.column_names if name != "h")
            (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, scheme, columns)])
            manifest = Manifest.from_bytes(manifest.to_bytes())
            got = pa.table(manager.read([manifest], 0, scheme.partitions))
            got.validate(full=True)
            expected = table.select(columns)
            assert got.schema.types == [stored_type(type_) for type_ in expected.schema.types]
            assert multiset(got) == multiset(expected)
            assert manifest.rows == sum(manifest.partition_rows) == table.num_rows
            assert manager.metrics()["peak_pool_bytes"] <= budget_bytes
            del got
            manager.release("q")
            metrics = manager.metrics()
            assert metrics["pool_bytes"] == metrics["disk_bytes"] == metrics["segments"] == 0
        assert list(Path(spill).iterdir()) == []


@PROFILE
@given(table=tables(max_rows=60), partitions=st.integers(2, 8))
def test_every_type_can_be_a_key(table: pa.Table, partitions: int) -> None:
    with (
        tempfile.TemporaryDirectory() as spill,
        ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=spill) as manager,
    ):
        manager.register_shuffle("q")
        keys = [name for name in table.column_names if name != "h"]
        doubled = pa.concat_tables([table, table])
        (manifest,) = manager.write_partition(doubled, [Output("q", "e", 0, 0, Scheme.hash_columns(keys, partitions))])
        for partition in range(partitions):
            part = pa.table(manager.read([manifest], partition, partition + 1))
            assert all(count % 2 == 0 for count in multiset(part).values())


EQUAL_KEYS = [
    "select unnest([0.0::double, -0.0::double, 'nan'::double, -'nan'::double, null, 1, 1.5]) k",
    "select unnest([0.0::float, -0.0::float, 'nan'::float, null, 0.1::float]) k",
    "select unnest([1, 1.0, 1.50, 1.5, null, -3.25])::decimal(18, 3) k",
    "select unnest([1, -1, null, 170141183460469231731687303715884105727])::hugeint k",
    "select unnest([interval '1 month', interval '30 days', interval '720 hours', interval '1 day', null]) k",
    "select unnest(['a', 'A', '', null, 'a long string that is not inlined']) k",
    "select unnest([{'a': 1, 'b': [1, null]}, {'a': null, 'b': []}, null]) k",
    "select unnest([[0.0::double], [-0.0::double], ['nan'::double], []]) k",
    "select unnest(['x', 'y', null])::enum('x', 'y') k",
    "select unnest(['2020-01-01 10:00:00+01', '2020-01-01 09:00:00+00'])::timestamptz k",
    "select unnest(['101', '11', null])::bit k",
    "select unnest([true, false, null]) k",
]


@pytest.mark.parametrize("keys", EQUAL_KEYS)
def test_what_sql_calls_equal_shares_a_partition(tmp_path: Path, keys: str) -> None:
    with (
        duckdb.connect() as connection,
        ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=str(tmp_path)) as manager,
    ):
        manager.register_shuffle("q")
        connection.execute("set arrow_lossless_conversion = true")
        rows = f"select k from ({keys}), range(5)"
        (manifest,) = manager.write_partition(
            connection.cursor().sql(rows), [Output("q", "e", 0, 0, Scheme.hash_columns(["k"], 64))]
        )
        streams = [manager.read([manifest], partition, partition + 1) for partition in range(64)]
        parts = [pa.table(stream) for stream in streams]
        placed = pa.concat_tables(
            part.append_column("p", pa.array([number] * part.num_rows, pa.int64()))
            for number, part in enumerate(parts)
            if part.num_rows
        )
        assert placed.num_rows == len(connection.sql(rows).fetchall())
        query = "select k, count(distinct p) from placed group by k having count(distinct p) > 1"
        assert connection.sql(query).fetchall() == []


@pytest.fixture(scope="module")
def manifest_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    spill = tmp_path_factory.mktemp("spill")
    with ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=str(spill)) as manager:
        manager.register_shuffle("q")
        table = pa.table({"i": range(100), "l": [[str(i)] for i in range(100)]})
        (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.hash_columns(["i"], 7))])
        return manifest.to_bytes()


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_manifests_are_refused(manifest_bytes: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(manifest_bytes) - 1))
    cut = data.draw(st.integers(0, len(manifest_bytes)))
    patch = data.draw(st.binary(min_size=1, max_size=9))
    damaged = manifest_bytes[:at] + patch + manifest_bytes[at + len(patch) :]
    for candidate in (damaged, manifest_bytes[:cut], manifest_bytes + patch, patch):
        if candidate != manifest_bytes:
            with pytest.raises(CorruptSegment):
                Manifest.from_bytes(candidate)


def test_an_unsupported_type_is_named(tmp_path: Path) -> None:
    with ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=str(tmp_path)) as manager:
        manager.register_shuffle("q")
        table = pa.table({"r": pa.array([1, 1, 2], pa.run_end_encoded(pa.int32(), pa.int64()))})
        with pytest.raises(UnsupportedType, match=r"\+r"):
            manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])


def test_extension_types_keep_their_name(tmp_path: Path) -> None:
    with ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=str(tmp_path)) as manager:
        manager.register_shuffle("q")
        table = pa.table({"u": pa.array([b"0" * 16, None], pa.uuid()), "i": pa.array([1, 2])})
        (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
        assert pa.table(manager.read([manifest], 0, 1)).equals(table)


def test_wrong_arguments_are_native_errors(tmp_path: Path) -> None:
    with ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=str(tmp_path)) as manager:
        manager.register_shuffle("q")
        table = pa.table({"i": [1]})
        with pytest.raises(NativeError, match="no column 'x'"):
            manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.hash_columns(["x"], 2))])
        with pytest.raises(NativeError, match="64-bit integer"):
            manager.write_partition(pa.table({"h": ["a"]}), [Output("q", "e", 0, 0, Scheme.hash_column("h", 2))])
        with pytest.raises(NativeError, match="number of partitions"):
            Scheme.round_robin(0)
        with pytest.raises(NativeError, match="no manifest"):
            manager.read([], 0, 1)
