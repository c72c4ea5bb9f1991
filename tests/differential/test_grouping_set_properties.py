"""Random grouping sets over random aggregates, in two phases or by the keys that sets share, give DuckDB's groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.compare import difference
from tests.support.engine import agents_answer, planner_settings, sessions
from tests.support.oracle import Oracle

SETUP = [
    """
    CREATE TABLE t AS SELECT
        CASE WHEN i % 11 > 0 THEN i % 4 END AS a, CASE WHEN i % 7 > 0 THEN 'k' || i % 3 END AS b, i * 7 % 5 AS c,
        i % 2 = 0 AS f, DATE '2024-01-01' + (i % 9)::INTEGER AS d,
        CASE WHEN i % 5 > 0 THEN i * 31 % 17 END AS x, i * 13 % 101 AS y, i / 3.0 AS z
    FROM range(700) AS r(i)
    """,
    "CREATE TABLE e AS SELECT * FROM t LIMIT 0",
]
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "two": {"agents": 2},
    "hashed": {"agents": 3, "broadcast_limit": 0},
    "fixed": {"agents": 3, "adaptive": False, "partitions": 5},
}
AGGREGATES = [
    *("count(*)", "sum(x)", "avg(z)", "min(b)", "max(d)", "stddev(z)", "bool_and(f)", "arg_max(y, z)"),
    *("count(x) FILTER (f)", "approx_count_distinct(x)", "count(DISTINCT x)", "count(DISTINCT y)", "sum(DISTINCT x)"),
    *("count(DISTINCT x) FILTER (y > 50)", "median(y)", "quantile_disc(y, 0.3)", "list(y ORDER BY y, x, z)"),
    "string_agg(b, ',' ORDER BY y, x, z)",
]
SOURCES = [
    "t",
    "t",
    "e",
    "(SELECT * FROM t WHERE y > 40)",
    "(SELECT t.* FROM t JOIN t AS u ON t.y = u.y AND t.c = u.x)",
]


@st.composite
def queries(draw: st.DrawFn) -> str:
    keys = draw(st.lists(st.sampled_from("abcdf"), min_size=1, max_size=3, unique=True))
    subsets = st.lists(st.sampled_from(keys), max_size=3, unique=True)
    sets = draw(st.lists(subsets, min_size=1, max_size=5))
    missing = [[key] for key in keys if not any(key in one for one in sets)]
    listed = ", ".join(keys)
    forms = [
        f"ROLLUP ({listed})",
        f"CUBE ({listed})",
        f"{keys[0]}, ROLLUP ({listed})",
        "GROUPING SETS (" + ", ".join(f"({', '.join(one)})" for one in sets + missing) + ")",
    ]
    asked = draw(st.lists(st.lists(st.sampled_from(keys), min_size=1, unique=True), max_size=2))
    groupings = [f"GROUPING({', '.join(one)})" for one in asked]
    aggregates = draw(st.lists(st.sampled_from(AGGREGATES), max_size=4, unique=True))
    having = draw(st.sampled_from(["", "", " HAVING count(*) > 3"]))
    select = ", ".join([*keys, *groupings, *aggregates])
    return f"SELECT {select} FROM {draw(st.sampled_from(SOURCES))} AS s GROUP BY {draw(st.sampled_from(forms))}{having}"


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Any]]:
    with planner_settings(gather_rows=0), sessions(CONFIGURATIONS, SETUP) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain() -> Iterator[Oracle]:
    with Oracle(SETUP) as oracle:
        yield oracle


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(sql=queries(), name=st.sampled_from(sorted(CONFIGURATIONS)))
def test_random_grouping_sets(opened: dict[str, Any], plain: Oracle, sql: str, name: str) -> None:
    found = agents_answer(opened[name], sql)
    wrong = difference(plain.expect(sql).answer, found.rows)
    assert wrong is None, f"{sql}\n{found.mode}: {found.reason}\n{wrong}"


@pytest.mark.parametrize("sets", ["(a), (a), ()", "(a), (), ()", "(a), (b), (b), ()", "(), ()"])
def test_sets_that_come_twice_without_aggregates(opened: dict[str, Any], plain: Oracle, sets: str) -> None:
    for source in ("t", "e"):
        sql = f"SELECT 1 AS one, {'a, ' if 'a' in sets else ''} FROM {source} GROUP BY GROUPING SETS ({sets})"
        found = agents_answer(opened["two"], sql)
        assert difference(plain.expect(sql).answer, found.rows) is None
