"""Random windows without PARTITION BY, over ranges that may be short or empty, give what they give on plain DuckDB.

Every generated window is determined: where rows are counted they are ordered by a unique column last, and where equal
rows may come in any order the function does not tell them apart.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential.generated import literal
from tests.support.engine import assert_same_as_duckdb, sessions

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "three ranges": {"agents": 2, "partitions": 3, "adaptive": False, "broadcast_limit": 0},
    "many ranges": {"agents": 3, "partitions": 9, "adaptive": True},
    "processes": {"agents": 2, "partitions": 4, "adaptive": True, "isolation": "process"},
}
COLUMNS = {
    "k": "INTEGER",
    "u": "USMALLINT",
    "m": "DECIMAL(7, 2)",
    "f": "DOUBLE",
    "t": "DATE",
    "s": "VARCHAR",
    "b": "BOOLEAN",
}
RANKS = ["rank", "dense_rank", "percent_rank", "cume_dist"]
KINDS = ["rank", "position", "lag", "ends", "rows", "groups", "range", "range of days", "fill", "whole"]
_DAY = dt.date(2024, 1, 31)

values = st.tuples(
    st.sampled_from([None, 5, 5, 5, 5, 5, 5, -3, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 50, 2**31 - 200]),
    st.none() | st.integers(100, 200),
    st.none() | st.decimals(-20, 20, places=2),
    st.none() | st.sampled_from([0.0, -0.0, 1.5, 2.25, 1e10, float("inf"), float("nan")]),
    st.none() | st.integers(0, 70).map(lambda days: _DAY + dt.timedelta(days)),
    st.none() | st.sampled_from(["", "a", "b", "c", "aa"]),
    st.none() | st.booleans(),
)
amounts = st.integers(0, 4) | st.integers(5, 60)


@st.composite
def tables(draw: st.DrawFn) -> list[str]:
    """A table of up to 60 rows, or none, with a unique ``id``."""
    rows = draw(st.lists(values, min_size=1, max_size=60)) if draw(st.integers(0, 15)) else []
    declared = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    statements = [f"CREATE OR REPLACE TABLE w (id INTEGER, {declared})"]
    if rows:
        order = draw(st.permutations(range(len(rows))))
        texts = [f"({', '.join(map(literal, (number, *row)))})" for number, row in zip(order, rows, strict=True)]
        statements.append(f"INSERT INTO w VALUES {', '.join(texts)}")
    return statements


@st.composite
def orders(draw: st.DrawFn, column: str) -> str:
    """An ORDER BY key."""
    return column + draw(st.sampled_from(["", " DESC"])) + draw(st.sampled_from(["", " NULLS FIRST", " NULLS LAST"]))


@st.composite
def counted_bounds(draw: st.DrawFn) -> str:
    """The bounds of a frame in rows or groups; it may be empty."""
    starts = [f"{draw(amounts)} PRECEDING", "CURRENT ROW", f"{draw(amounts)} FOLLOWING", "UNBOUNDED PRECEDING"]
    ends = [f"{draw(amounts)} PRECEDING", "CURRENT ROW", f"{draw(amounts)} FOLLOWING", "UNBOUNDED FOLLOWING"]
    start, end = draw(st.sampled_from(starts)), draw(st.sampled_from(ends))
    if (start == "CURRENT ROW" and end.endswith("PRECEDING")) or (start.endswith("FOLLOWING") and end in ends[:2]):
        end = "UNBOUNDED FOLLOWING"
    return f"BETWEEN {start} AND {end}"


@st.composite
def measured_bounds(draw: st.DrawFn, distances: st.SearchStrategy[str]) -> str:
    """The bounds of a frame in distances from the sort key."""
    starts = [f"{draw(distances)} PRECEDING", "CURRENT ROW", "UNBOUNDED PRECEDING", f"{draw(distances)} PRECEDING"]
    ends = [f"{draw(distances)} FOLLOWING", "CURRENT ROW", "UNBOUNDED FOLLOWING", f"{draw(distances)} FOLLOWING"]
    return f"BETWEEN {draw(st.sampled_from(starts))} AND {draw(st.sampled_from(ends))}"


AGGREGATES = [
    "count(*)",
    "count(s)",
    "sum(k)",
    "sum(m)",
    "min(t)",
    "max(s)",
    "avg(k)",
    "avg(m)",
    "bool_and(b)",
    "bit_xor(k)",
    "median(m)",
    "count(DISTINCT s)",
    "stddev(k)",
    "sum(k) FILTER (WHERE b)",
    "list(k ORDER BY k, id)",
    "arg_max(id, id)",
]


@st.composite
def windows(draw: st.DrawFn) -> str:
    """One window call."""
    total = f"{draw(orders(draw(st.sampled_from(list(COLUMNS)))))}, id"
    tied = draw(orders(draw(st.sampled_from(list(COLUMNS)))))
    aggregate = draw(st.sampled_from(AGGREGATES))
    match draw(st.sampled_from(KINDS)):
        case "rank":
            return f"{draw(st.sampled_from(RANKS))}() OVER (ORDER BY {tied})"
        case "position":
            call = draw(st.sampled_from(["row_number()", "ntile(3)", "ntile(7)", "ntile(100)"]))
            return f"{call} OVER (ORDER BY {total})"
        case "lag":
            call, column = draw(st.sampled_from(["lag", "lead"])), draw(st.sampled_from(["k", "s", "t", "f"]))
            rest = draw(st.sampled_from(["", f", {draw(amounts)}", ", 2, NULL", ", -1"]))
            return f"{call}({column}{rest}{draw(st.sampled_from(['', ' IGNORE NULLS']))}) OVER (ORDER BY {total})"
        case "ends":
            call, column = draw(st.sampled_from(["first_value", "last_value", "nth"])), draw(st.sampled_from("kst"))
            if call == "nth":
                return f"nth_value({column}, {draw(amounts) + 1}) OVER (ORDER BY {total} ROWS {draw(counted_bounds())})"
            nulls = draw(st.sampled_from(["", " IGNORE NULLS"]))
            return f"{call}({column}{nulls}) OVER (ORDER BY {total} ROWS {draw(counted_bounds())})"
        case "rows":
            exclude = draw(st.sampled_from(["", "", " EXCLUDE CURRENT ROW"]))
            return f"{aggregate} OVER (ORDER BY {total} ROWS {draw(counted_bounds())}{exclude})"
        case "groups":
            exclude = draw(st.sampled_from(["", "", " EXCLUDE CURRENT ROW", " EXCLUDE GROUP", " EXCLUDE TIES"]))
            return f"{aggregate} OVER (ORDER BY {tied} GROUPS {draw(counted_bounds())}{exclude})"
        case "range":
            key = draw(orders(draw(st.sampled_from(["k", "u", "m", "f"]))))
            exclude = draw(st.sampled_from(["", "", " EXCLUDE CURRENT ROW", " EXCLUDE GROUP", " EXCLUDE TIES"]))
            return f"{aggregate} OVER (ORDER BY {key} RANGE {draw(measured_bounds(amounts.map(str)))}{exclude})"
        case "range of days":
            distances = st.tuples(amounts, st.sampled_from(["DAY", "DAY", "MONTH"]))
            bounds = draw(measured_bounds(distances.map(lambda d: f"INTERVAL {d[0]} {d[1]}")))
            return f"{aggregate} OVER (ORDER BY {draw(orders('t'))} RANGE {bounds})"
        case "fill":
            return f"fill({draw(st.sampled_from(['k', 'm', 't']))}) OVER (ORDER BY {draw(orders('id'))})"
        case _:
            return f"{aggregate} OVER ()"


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Any]]:
    with sessions(CONFIGURATIONS) as opened:
        yield opened


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(
    setup=tables(),
    calls=st.lists(windows(), min_size=1, max_size=3),
    where=st.sampled_from(["", "", " WHERE k <> 5", " WHERE id > 100"]),
    name=st.sampled_from(sorted(CONFIGURATIONS)),
)
def test_random_windows(opened: dict[str, Any], setup: list[str], calls: list[str], where: str, name: str) -> None:
    sql = f"SELECT id, {', '.join(calls)} FROM w{where}"
    assert_same_as_duckdb(opened[name], setup, sql)
