"""Distinct counts from manifests against DuckDB's, for projected and native hashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot_native import CorruptSegment, Manifest, Output, Scheme, ShuffleManager, distinct_count

pytestmark = pytest.mark.fast

STANDARD_ERROR = 1 / (256 - 2) ** 0.5

KEYS = [
    "i",
    "i::INTEGER",
    "i / 7.0",
    "i::VARCHAR",
    "'a key with a long beginning ' || i",
    "DATE '1990-01-01' + i::INTEGER",
    "i::DECIMAL(18, 3)",
    "i::HUGEINT",
    "md5(i::VARCHAR)::UUID",
    "CASE WHEN i % 2 = 0 THEN NULL ELSE i END",
    "to_timestamp(i)",
]


@pytest.fixture
def manager(tmp_path: Path):
    with ShuffleManager("agent", budget_bytes=64 << 20, spill_directory=str(tmp_path / "spill")) as manager:
        manager.register_shuffle("q")
        yield manager


def written(manager: ShuffleManager, rows: object, scheme: Scheme, task: int = 0, attempt: int = 0) -> Manifest:
    (manifest,) = manager.write_partition(rows, [Output("q", "e", task, attempt, scheme)])  # type: ignore[arg-type]
    manager.release("q", "e")
    return Manifest.from_bytes(manifest.to_bytes())


def counted(manifests: Sequence[Manifest]) -> int:
    return distinct_count(manifest.key_sketch for manifest in manifests)


def projected(manager: ShuffleManager, keys: str, relation: str, task: int = 0) -> Manifest:
    with duckdb.connect() as connection:
        rows = connection.sql(f"SELECT hash({keys}) AS h, 1 AS x FROM {relation}")
        return written(manager, rows, Scheme.hash_column("h", 4), task)


def native(manager: ShuffleManager, keys: str, relation: str, task: int = 0) -> Manifest:
    with duckdb.connect() as connection:
        connection.execute("SET arrow_lossless_conversion = true")
        rows = connection.sql(f"SELECT {keys} AS k FROM {relation}")
        return written(manager, rows, Scheme.hash_columns(["k"], 4), task)


@pytest.mark.parametrize("write", [projected, native])
@pytest.mark.parametrize("keys", KEYS)
def test_few_keys_are_exact_and_many_are_close(manager: ShuffleManager, write, keys: str) -> None:
    for rows in (0, 1, 150, 255):
        truth = duckdb.sql(f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM range({rows}) r(i))").fetchall()[0][0]
        assert counted([write(manager, keys, f"range({rows}) r(i), range(3)")]) == truth
    errors = []
    for rows in (2_000, 9_000, 30_000, 100_000):
        truth = duckdb.sql(f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM range({rows}) r(i))").fetchall()[0][0]
        errors.append(counted([write(manager, keys, f"range({rows}) r(i)")]) / truth - 1)
    assert max(map(abs, errors)) < 4 * STANDARD_ERROR
    assert mean(map(abs, errors)) < 2 * STANDARD_ERROR


@pytest.mark.parametrize("write", [projected, native])
def test_all_nulls_are_one_key(manager: ShuffleManager, write) -> None:
    assert counted([write(manager, "NULL::INTEGER", "range(1000)")]) == 1
    assert counted([write(manager, "CASE WHEN i % 5 > 0 THEN i % 5 END", "range(1000) r(i)")]) == 5


def test_several_columns_are_one_key(manager: ShuffleManager) -> None:
    assert counted([projected(manager, "i % 7, i % 11, NULL", "range(5000) r(i)")]) == 77


def test_tasks_are_counted_together(manager: ShuffleManager) -> None:
    for first, second in ((0, 50), (0, 0), (100, 250)):
        parts = [
            projected(manager, "i", f"range({first}, 150) r(i)", 0),
            projected(manager, "i", f"range({second}, 225) r(i)", 1),
            projected(manager, "i", "range(0) r(i)", 2),
        ]
        truth = len({*range(first, 150), *range(second, 225)})
        assert counted(parts) == counted(parts[::-1]) == truth
    overlapping = [projected(manager, "i", f"range({n * 10_000}, {n * 10_000 + 20_000}) r(i)", n) for n in range(4)]
    assert counted(overlapping) == counted([projected(manager, "i", "range(50000) r(i)")])


def test_no_sketch_of_rows_that_are_not_hashed(manager: ShuffleManager) -> None:
    assert written(manager, pa.table({"i": range(100)}), Scheme.round_robin(3)).key_sketch == b""


@pytest.mark.parametrize("sketch", [b"\0", bytes(8) * 2, bytes(8 * 513), (5).to_bytes(8, "little") + bytes(8)])
def test_what_is_no_sketch_is_refused(sketch: bytes) -> None:
    with pytest.raises(CorruptSegment):
        distinct_count([b"", sketch])


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.lists(st.integers(-400, 400) | st.none(), max_size=400), min_size=1, max_size=4))
def test_any_few_keys_in_any_tasks(tmp_path_factory: pytest.TempPathFactory, parts: list[list[int | None]]) -> None:
    directory = tmp_path_factory.mktemp("spill")
    with ShuffleManager("agent", budget_bytes=8 << 20, spill_directory=str(directory)) as manager:
        manager.register_shuffle("q")
        for_keys = Scheme.hash_columns(["k"], 3)
        manifests = [
            written(manager, pa.table({"k": pa.array(part, pa.int64())}), for_keys, task, task % 2)
            for task, part in enumerate(parts)
        ]
        truth = len({key for part in parts for key in part})
        assert counted(manifests) == truth if truth < 256 else abs(counted(manifests) / truth - 1) < 6 * STANDARD_ERROR
