"""Table functions that are cut by arithmetic: slices, put together, are what DuckDB gives for the whole call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabot_planner import Placement, SourceInfo
from sabot_sql.call.running import RunningQuery
from sabot_sql.catalog.catalog import Catalog
from sabot_sql.config import parse_config
from sabot_sql.scratch import Scratch
from tests.support.engine import run

COUNTS = [1, 2, 3, 7]
LEAST, MOST = -(2**63), 2**63 - 1


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    scratch = Scratch(str(tmp_path_factory.mktemp("scratch")))
    catalog = Catalog(parse_config(agents=2), scratch)
    yield catalog
    catalog.close()
    scratch.close()


def described(catalog: Catalog, call: str) -> tuple[Any, SourceInfo]:
    """The sources of ``SELECT * FROM call``, and what the planner is told of the call as DuckDB exports it."""
    (statement,) = catalog.split(f"SELECT * FROM {call}", None)
    bound = catalog.bind(statement, [{}], parse_config(agents=2), RunningQuery("test", None))
    assert not isinstance(bound, str), bound
    relation = bound.exported_sql.partition("FROM ")[2].rpartition(" AS r0(")[0]
    return bound.sources, bound.sources.source(relation, [])


def check(catalog: Catalog, call: str, *, cut: bool = True) -> SourceInfo:
    """Assert that the slices of ``call`` are the rows, names and types of the whole, in order, and are even."""
    sources, info = described(catalog, call)
    whole = duckdb.sql(f"FROM {call}")
    rows = whole.fetchall()
    for count in COUNTS:
        parts = [catalog.connection.main.sql(sources.bind_slice(info.source_id, i, count).sql) for i in range(count)]
        for part in parts:
            assert (part.columns, part.types) == (whole.columns, whole.types)
        fetched = [part.fetchall() for part in parts]
        assert [row for part in fetched for row in part] == rows, count
        if cut:
            assert max(map(len, fetched)) - min(map(len, fetched)) <= 1
    if cut:
        assert info.rows == len(rows)
        assert info.max_slices > 1
        assert info.placement is Placement.ANY
    else:
        assert info.max_slices == 1
    return info


@pytest.mark.parametrize(
    "call",
    [
        "range(10)",
        "range(3, 20, 4)",
        "range(10, -10, -3)",
        "range(5, 5)",
        "range(NULL)",
        "range(1, NULL)",
        f"range({LEAST}, {LEAST + 8}, 3)",
        f"range({MOST - 7}, {MOST})",
        f"range({MOST - 7}, {MOST}, 5)",
        f"range({LEAST + 2}, {LEAST}, -1)",
        "generate_series(1, 10)",
        "generate_series(10, 1, -4)",
        "generate_series(5, 1)",
        f"generate_series({MOST - 3}, {MOST})",
        "range(TIMESTAMP '2024-02-27', TIMESTAMP '2024-03-03', INTERVAL 12 HOUR)",
        "range(DATE '2024-03-03', DATE '2024-02-27', INTERVAL (-1) DAY)",
        "generate_series(TIMESTAMP '1969-12-30', TIMESTAMP '1970-01-02', INTERVAL '1 day 30 minutes')",
        "repeat('it''s', 7)",
        "repeat(NULL::DATE, 3)",
        "repeat(1.5, 0)",
        "unnest([3, 1, NULL, 2])",
        "unnest([[1], [2, 3], []])",
        "unnest(array_value('a', 'b', 'c'))",
        "unnest([{'a': 1, 'b': 'x'}])",
    ],
)
def test_slices_make_the_whole(catalog: Catalog, call: str) -> None:
    check(catalog, call)


@pytest.mark.parametrize(
    "call",
    [
        "range(TIMESTAMP '2024-01-31', TIMESTAMP '2024-06-30', INTERVAL 1 MONTH)",
        "range(TIMESTAMPTZ '2024-03-30 00:00:00+00', TIMESTAMPTZ '2024-04-02 00:00:00+00', INTERVAL 1 DAY)",
        "repeat_row(1, 'a', num_rows = 3)",
    ],
)
def test_what_has_no_fixed_step_is_one_slice(catalog: Catalog, call: str) -> None:
    check(catalog, call, cut=False)


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    function=st.sampled_from(["range", "generate_series"]),
    start=st.integers(-50, 50) | st.sampled_from([LEAST, MOST - 40]),
    distance=st.integers(-40, 40),
    step=st.integers(-9, 9).filter(bool),
)
def test_any_series(catalog: Catalog, function: str, start: int, distance: int, step: int) -> None:
    check(catalog, f"{function}({start}, {max(LEAST, min(MOST, start + distance))}, {step})")


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_series_is_counted_by_all_agents(isolation: str) -> None:
    sql = "SELECT count(*), sum(i) FROM range(1, 100001) t(i) WHERE i % 7 <> 3"
    found = run(sql, agents=2, isolation=isolation)
    assert list(found.rows.rows) == duckdb.sql(sql).fetchall()
    assert found.mode == "distributed"
    assert len(found.plan["stages"][0]["tasks"]) == 2


@pytest.mark.parametrize("function", ["read_text", "read_blob"])
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_whole_files_are_cut_between_files(tmp_path: Path, function: str, isolation: str) -> None:
    for number in range(5):
        (tmp_path / f"it's {number}.txt").write_text("x" * number)
    quoted = str(tmp_path).replace("'", "''")
    for argument in (f"'{quoted}/*.txt'", f"['{quoted}/it''s 3.txt', '{quoted}/it''s 1.txt']"):
        sql = f"SELECT filename, content, size FROM {function}({argument})"
        found = run(sql, agents=2, isolation=isolation)
        assert list(found.rows.rows) == duckdb.sql(sql).fetchall()
        assert found.mode == "distributed"


def test_a_file_named_twice_is_read_twice(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    found = run(f"SELECT content FROM read_text(['{tmp_path}/a.txt', '{tmp_path}/a.txt'])", agents=2)
    assert found.rows.rows == (("x",), ("x",))
