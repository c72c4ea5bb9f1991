"""Queries whose answers must agree with each other, whatever DuckDB would say.

The differential tests would miss a mistake that DuckDB and the agents share, and they cannot judge what only happens at
a distance from DuckDB. Two relations need no second engine:

* ternary logic partitioning (TLP; Rigger and Su, OOPSLA 2020): for any predicate ``p`` the rows of a query are those
  where ``p`` is true, those where it is false, and those where it is NULL;
* NoREC (Rigger and Su, ESEC/FSE 2020): as many rows pass ``WHERE p`` as ``p`` is true for where it stands in the select
  list, and nothing can be pushed, pruned or turned into a join.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential import generated
from tests.support.compare import Rows, assert_same
from tests.support.engine import agents_answer, session, sessions

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "hashed": {"agents": 2, "partitions": 3, "adaptive": False, "broadcast_limit": 0},
    "late": {"agents": 3, "partitions": 4, "adaptive": True},
}


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Any]]:
    with sessions(CONFIGURATIONS) as opened:
        yield opened


def rows_of(agents: Any, sql: str) -> Rows:
    return agents_answer(agents, sql).rows


def union_of(agents: Any, queries: list[str]) -> Rows:
    """The rows of several queries together, each run by itself, so that no plan sees more than one of them."""
    parts = [rows_of(agents, sql) for sql in queries]
    return Rows(parts[0].columns, parts[0].types, tuple(row for part in parts for row in part.rows))


def thirds(predicate: str) -> list[str]:
    """Conditions of which every row meets exactly one."""
    return [f"({predicate})", f"NOT ({predicate})", f"({predicate}) IS NULL"]


def plain(agents: Any, source: str, predicate: str) -> None:
    """TLP over rows."""
    whole = rows_of(agents, f"SELECT * FROM {source}")
    assert_same(whole, union_of(agents, [f"SELECT * FROM {source} WHERE {third}" for third in thirds(predicate)]))


def unioned(agents: Any, source: str, predicate: str) -> None:
    """TLP over rows, the three parts put together by the agents."""
    parts = " UNION ALL ".join(f"SELECT * FROM {source} WHERE {third}" for third in thirds(predicate))
    assert_same(rows_of(agents, f"SELECT * FROM {source}"), rows_of(agents, parts))


def distinct(agents: Any, source: str, predicate: str) -> None:
    """TLP over DISTINCT: what is in several parts is one row."""
    parts = " UNION ".join(f"SELECT DISTINCT k, g, s FROM {source} WHERE {third}" for third in thirds(predicate))
    assert_same(rows_of(agents, f"SELECT DISTINCT k, g, s FROM {source}"), rows_of(agents, parts))


def aggregated(agents: Any, source: str, predicate: str) -> None:
    """TLP over groups: sums, counts and extremes of the parts combine to those of the whole."""
    calls = "count(*) AS n, count(d) AS c, sum(d) AS t, min(h) AS lo, max(s) AS hi"
    whole = rows_of(agents, f"SELECT k, {calls} FROM {source} GROUP BY k")
    parts = " UNION ALL ".join(
        f"SELECT k, {calls} FROM {source} WHERE {third} GROUP BY k" for third in thirds(predicate)
    )
    combined = (
        "SELECT k, sum(n)::BIGINT AS n, sum(c)::BIGINT AS c, sum(t)::DECIMAL(38, 2) AS t, min(lo) AS lo, max(hi) AS hi"
        f" FROM ({parts}) AS p GROUP BY k"
    )
    assert_same(whole, rows_of(agents, combined))


def filtered_groups(agents: Any, source: str, predicate: str) -> None:
    """TLP over HAVING: the condition asks the groups' aggregates, whose rows the predicate chooses."""
    grouped = f"SELECT k, g, count(*) AS n FROM {source} GROUP BY k, g"
    parts = [f"{grouped} HAVING {third}" for third in thirds(f"bool_or({predicate})")]
    assert_same(rows_of(agents, grouped), union_of(agents, parts))


def counted(agents: Any, source: str, predicate: str) -> None:
    """NoREC."""
    filtered = rows_of(agents, f"SELECT count(*) AS n FROM {source} WHERE {predicate}")
    evaluated = rows_of(agents, f"SELECT ({predicate}) AS p FROM {source}")
    assert filtered.rows[0][0] == sum(row[0] is True for row in evaluated.rows)


RELATIONS: dict[str, Callable[[Any, str, str], None]] = {
    "rows": plain,
    "rows put together": unioned,
    "distinct rows": distinct,
    "groups": aggregated,
    "filtered groups": filtered_groups,
    "filter and value": counted,
}


@st.composite
def predicates(draw: st.DrawFn, *, subqueries: bool = True) -> str:
    """A condition over the columns of one row ``r``; it may be NULL, and may ask a subquery."""
    first, second = draw(st.sampled_from(generated.KEY_PAIRS))
    column, number = draw(generated.columns), draw(generated.numbers)
    simple = [
        f"r.{first} = r.{second}",
        f"r.{number} > 1",
        f"r.{number} BETWEEN -1 AND 2",
        f"r.{column} IS NULL",
        f"r.{column} IS DISTINCT FROM r.{column}",
        "r.s LIKE 'a%'",
        "r.f = 'nan'::DOUBLE",
        f"r.{number} IN (1, NULL)",
        f"r.{number} NOT IN (1, 3)",
        "CASE WHEN r.g > 0 THEN r.k > 0 ELSE r.f > 0 END",
        "NULL::BOOLEAN",
    ]
    asking = [
        f"r.{first} IN (SELECT {second} FROM b)",
        f"r.{first} NOT IN (SELECT {second} FROM b)",
        f"EXISTS (SELECT 1 FROM b WHERE b.{second} = r.{first})",
        f"NOT EXISTS (SELECT 1 FROM b WHERE b.{second} IS NOT DISTINCT FROM r.{first} AND b.id <> r.id)",
        f"r.id > (SELECT count(*) FROM b WHERE b.{second} = r.{first})",
        f"r.{number} > (SELECT avg({number}) FROM b)",
        "r.k > ALL (SELECT g FROM b)",
        "r.k = ANY (SELECT g FROM b WHERE b.h <> r.h)",
    ]
    chosen = draw(st.sampled_from(simple + asking if subqueries else simple))
    if draw(st.integers(0, 2)):
        return chosen
    return f"({chosen}) {draw(st.sampled_from(['AND', 'OR']))} ({draw(st.sampled_from(simple))})"


@pytest.mark.parametrize("relation", RELATIONS)
def test_relation(relation: str, opened: dict[str, Any]) -> None:
    check = RELATIONS[relation]
    # DuckDB has no subqueries inside aggregates.
    chosen = predicates(subqueries=check is not filtered_groups)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(
        setup=generated.tables(),
        source=generated.relations(),
        predicate=chosen,
        name=st.sampled_from(sorted(CONFIGURATIONS)),
    )
    def holds(setup: list[str], source: str, predicate: str, name: str) -> None:
        for statement in setup:
            opened[name].execute(statement)
        check(opened[name], f"{source} AS r", predicate)

    holds()


def test_a_relation_finds_a_lost_row() -> None:
    """The check can fail: an engine that loses the rows where a predicate is NULL breaks both relations."""

    class Losing:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def query(self, sql: str, **options: Any) -> Any:
            return self.inner.query(sql.replace("(r.k > 1) IS NULL", "false"), **options)

    with session(["CREATE TABLE a AS SELECT unnest([1, 2, NULL]) AS k"], agents=2) as agents:
        with pytest.raises(AssertionError, match="2 rows for 3"):
            plain(Losing(agents), "a AS r", "r.k > 1")
        plain(agents, "a AS r", "r.k > 1")
