"""The guard passes equal statements in any layout and stops every difference."""

from __future__ import annotations

import duckdb
import pytest

from sabot_planner.sql.print_guard import same_meaning

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def guarded(connection: duckdb.DuckDBPyConnection, before: str, after: str) -> bool:
    row = connection.execute("SELECT json_serialize_sql($1), json_serialize_sql($2)", [before, after]).fetchone()
    assert row is not None
    return same_meaning(*row)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT a FROM t WHERE ((a = 1) AND (b))", "SELECT  a\nFROM t\nWHERE (a = 1) AND b"),
        ("SELECT a FROM (t AS x INNER JOIN u ON ((x.a = u.a)))", "SELECT a FROM t AS x INNER JOIN u ON x.a = u.a"),
        ("SELECT CAST(a AS DECIMAL(4, 1)) AS b", "SELECT CAST(a AS DECIMAL(4,1)) AS b"),
    ],
)
def test_layout_is_ignored(connection: duckdb.DuckDBPyConnection, before: str, after: str) -> None:
    assert guarded(connection, before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT sum(a) EXPORT_STATE AS s FROM t", "SELECT sum(a) AS EXPORT_STATE FROM t"),
        ("SELECT a FROM t ORDER BY a ASC NULLS LAST", "SELECT a FROM t ORDER BY a"),
        ("SELECT first_value(a IGNORE NULLS) OVER () FROM t", "SELECT first_value(a) OVER () FROM t"),
        ("SELECT a FROM t LIMIT (10) %", "SELECT a FROM t LIMIT 10"),
        ("SELECT .5", "SELECT 0.50"),
        ("SELECT 'a'", "SELECT 'A'"),
        ("SELECT (NOT (a IS NULL))", "SELECT (a IS NOT NULL)"),
        ("SELECT a FROM (t LEFT JOIN u ON (b))", "SELECT a FROM (t INNER JOIN u ON (b))"),
        ("SELECT a AS x FROM t", "SELECT a AS y FROM t"),
        ("SELECT a FROM t AS r(a, b)", "SELECT a FROM t AS r(b, a)"),
        ("""SELECT '"query_location":1,'""", """SELECT '"query_location":2,'"""),
        ("SELECT CAST(a AS INTEGER)", "SELECT TRY_CAST(a AS INTEGER)"),
    ],
)
def test_every_difference_is_seen(connection: duckdb.DuckDBPyConnection, before: str, after: str) -> None:
    assert guarded(connection, before, before)
    assert not guarded(connection, before, after)


def test_two_errors_are_not_equal_statements(connection: duckdb.DuckDBPyConnection) -> None:
    assert not guarded(connection, "SELEC 1", "SELEC 1")
