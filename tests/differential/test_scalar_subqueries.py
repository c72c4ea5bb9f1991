"""A subquery in place of a value: none, one or more rows, and the error at two rows is DuckDB's wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from sabot_sql.duck.errors import translate
from sabot_sql.errors import QueryError, SabotSQLError
from tests.support.compare import Rows, difference
from tests.support.engine import agents_answer, sessions
from tests.support.oracle import fetch

SETUP = [
    (
        "CREATE TABLE t AS SELECT i::INT AS i, (i % 5)::INT AS k, CASE WHEN i % 7 > 0 THEN i % 4 END::INT AS n"
        " FROM range(60) AS r(i)"
    ),
    "CREATE TABLE u AS SELECT (i + 10)::INT AS i, CASE WHEN i > 1 THEN i END::INT AS n FROM range(8) AS r(i)",
]
SUBQUERIES = {
    "no row": "SELECT i FROM u WHERE i * i = 7",
    "one row": "SELECT i FROM u WHERE i = 12",
    "one NULL": "SELECT n FROM u WHERE i = 10",
    "two rows": "SELECT i FROM u WHERE i IN (10, 17)",
    "two NULLs": "SELECT n FROM u WHERE i < 12",
    "the first row": "SELECT i FROM u ORDER BY i DESC LIMIT 1",
    "nested": "SELECT i + (SELECT n FROM u WHERE i = 13) FROM u WHERE i = (SELECT min(i) FROM u)",
    "nested, two rows inside": "SELECT i + (SELECT n FROM u) FROM u WHERE i = 11",
    "nested, two rows outside": "SELECT i + (SELECT n FROM u WHERE i = 13) FROM u",
}
STATEMENTS = {
    "alone": "SELECT ({})",
    "select": "SELECT i, ({}) FROM t",
    "where": "SELECT i FROM t WHERE i > ({})",
    "on": "SELECT t.i, u.i FROM t JOIN u ON t.i = u.i + ({}) - 10",
    "on of a left join": "SELECT t.i, u.i FROM t LEFT JOIN u ON t.i = u.i AND u.n < ({})",
    "case": "SELECT CASE WHEN i > 20 THEN ({}) ELSE k END FROM t",
    "a branch never taken": "SELECT CASE WHEN i < 0 THEN ({}) ELSE k END FROM t",
    "coalesce": "SELECT i FROM t WHERE coalesce(({}), 5) < i",
    "over no rows": "SELECT i FROM t WHERE i * i = 7 AND i > ({})",
    "beside no rows": "SELECT i, ({}) FROM t WHERE i * i = 7",
    "join of no rows": "SELECT t.i FROM t JOIN (SELECT i, ({}) AS x FROM u) AS s ON t.i = s.i AND t.k > x"
    " WHERE t.i * t.i = 7",
    "unread": "SELECT count(*) FROM (SELECT i, ({}) FROM t)",
    "having": "SELECT k, sum(i) FROM t GROUP BY k HAVING sum(i) > ({})",
    "group by": "SELECT ({}) + k AS g, count(*) FROM t GROUP BY g",
    "order by": "SELECT i FROM t ORDER BY ({}), i",
    "filter": "SELECT count(*) FILTER (i < ({})) FROM t",
    "in": "SELECT i FROM t WHERE i IN (SELECT u.i + ({}) - 12 FROM u)",
    "twice": "SELECT i FROM t WHERE i = ({0}) OR n = ({0}) - 10",
    "window": "SELECT i, sum(i + coalesce(({}), 0)) OVER (PARTITION BY k ORDER BY i) FROM t",
    "shared": "WITH c AS MATERIALIZED (SELECT ({}) AS x) SELECT i, x FROM t, c UNION ALL SELECT x, x FROM c",
    "set operation": "SELECT i FROM t EXCEPT SELECT i + ({}) - 12 FROM u",
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "one partition": {"agents": 2, "partitions": 1},
    "two partitions": {"agents": 3, "partitions": 2},
    "three partitions, all hashed": {"agents": 2, "partitions": 3, "broadcast_limit": 0},
    "processes": {"agents": 2, "partitions": 3, "isolation": "process", "broadcast_limit": 0},
}


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for statement in SETUP:
            connection.execute(statement)
        yield connection


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Any]]:
    with sessions(CONFIGURATIONS, SETUP) as by_name:
        yield by_name


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_subquery_as_a_value(
    statement: str, configuration: str, duck: duckdb.DuckDBPyConnection, opened: dict[str, Any]
) -> None:
    agents = opened[configuration]
    for name, subquery in SUBQUERIES.items():
        sql = STATEMENTS[statement].format(subquery)
        expected = outcome(duck, sql)
        if isinstance(expected, SabotSQLError):
            with pytest.raises(QueryError) as raised:
                agents_answer(agents, sql)
            assert (type(raised.value), raised.value.message) == (type(expected), expected.message), sql
            continue
        given = agents_answer(agents, sql)
        assert "volatile" not in given.reason, sql
        found = difference(expected, given.rows)
        assert found is None, f"{name}: {sql}\n{given.mode}: {given.reason}\n{found}"


def test_both_outcomes_occur(duck: duckdb.DuckDBPyConnection) -> None:
    sql = STATEMENTS["where"]
    with pytest.raises(duckdb.InvalidInputException, match="More than one row"):
        duck.execute(sql.format(SUBQUERIES["two rows"]))
    assert len(duck.execute(sql.format(SUBQUERIES["one row"])).fetchall()) == 47


def outcome(duck: duckdb.DuckDBPyConnection, sql: str) -> Rows | SabotSQLError:
    """DuckDB's rows, or its error as this package says it."""
    try:
        return fetch(duck, sql)
    except duckdb.Error as error:
        return translate(error)
