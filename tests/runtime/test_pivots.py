"""A PIVOT whose values are not listed: distributed, with the columns, order and rows that DuckDB gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import sabot_sql
from sabot_sql import Session
from sabot_sql.catalog.pivots import parse_pivot
from sabot_sql.errors import BindError, QueryTimeout

SOURCE = """SELECT range % 30 AS k, CASE WHEN range % 7 = 0 THEN NULL ELSE chr(104 - (range % 5)::INT) END AS s,
    range % 2 = 0 AS b, range AS v, DATE '2024-01-01' + (range % 4)::INT AS d, (range % 3)::DECIMAL(5, 1) AS n
    FROM range(60_000)"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "t.parquet"
    duckdb.sql(f"COPY ({SOURCE}) TO '{file}' (ROW_GROUP_SIZE 10_000)")
    return file


@pytest.fixture(scope="module", params=("thread", "process"))
def session(request: pytest.FixtureRequest, data: Path) -> Iterator[Session]:
    with sabot_sql.connect(agents=2, isolation=request.param, memory_limit="1GiB") as opened:
        opened.execute(f"CREATE VIEW t AS FROM '{data}'")
        yield opened
        assert opened.query("SELECT type_name FROM duckdb_types() WHERE type_name LIKE '%sabot%'").fetchall() == []


@pytest.fixture(scope="module")
def plain(data: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW t AS FROM '{data}'")
        yield connection


def same(session: Session, plain: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Compare with plain DuckDB, in order where the query has one; gives the mode."""
    relation = plain.sql(sql)
    assert relation is not None
    names, types, rows = relation.columns, list(map(str, relation.types)), relation.fetchall()
    result = session.query(sql)
    assert (result.columns, list(map(str, result.types))) == (names, types)
    found = result.fetchall()
    assert (found if "ORDER BY k" in sql else sorted(found, key=repr)) == (
        rows if "ORDER BY k" in sql else sorted(rows, key=repr)
    )
    return str(result.plan.json()["mode"])


@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT t ON s USING sum(v) GROUP BY k",
        "PIVOT t ON s USING sum(v) GROUP BY k ORDER BY k DESC LIMIT 7",
        "PIVOT t ON s, b USING sum(v) GROUP BY k",
        "PIVOT t ON s, b IN (true) USING sum(v) GROUP BY k",
        "PIVOT t ON s USING sum(v) AS total, count(*) AS n GROUP BY k",
        "PIVOT (SELECT k, s, v FROM t) ON s USING max(v)",
        "PIVOT (SELECT s, v FROM t) ON s USING sum(v)",
        "PIVOT (SELECT k, s FROM t WHERE v > 100) ON s",
        "PIVOT t ON d USING count(*), max(v) GROUP BY b, n",
        "PIVOT t ON n USING sum(v) GROUP BY k",
        "PIVOT t ON k % 4 + 1 USING sum(v) GROUP BY s",
        "PIVOT t ON s || '_' || b USING min(v) GROUP BY k;",
        "PIVOT t ON lower(s) USING sum(v) GROUP BY k -- the end",
        "WITH a AS (FROM t WHERE v % 3 = 0) PIVOT a ON s USING sum(v) GROUP BY k",
        "WITH t AS (FROM t WHERE s < 'f') PIVOT t ON s USING sum(v) GROUP BY k",
        "WITH p AS (PIVOT t ON s USING sum(v) GROUP BY k) SELECT k, e + f AS ef FROM p WHERE k > 3",
        "SELECT * FROM (PIVOT t ON s USING sum(v) GROUP BY k) AS p JOIN (SELECT k FROM t WHERE v < 9) USING (k)",
        "FROM (PIVOT t ON s USING sum(v) GROUP BY k) ORDER BY k",
    ],
)
def test_it_is_distributed_and_gives_what_duckdb_gives(
    session: Session, plain: duckdb.DuckDBPyConnection, sql: str
) -> None:
    assert same(session, plain, sql) == "distributed"


@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT t ON (s, b) USING sum(v) GROUP BY k",
        "PIVOT t JOIN (SELECT 1 AS k) AS u USING (k) ON s USING sum(v) GROUP BY k",
        "PIVOT (PIVOT t ON s USING sum(v) GROUP BY k, b) ON b USING sum(e) GROUP BY k",
        "PIVOT t ON s USING first(v ORDER BY v) GROUP BY k",
    ],
)
def test_where_there_is_a_doubt_duckdb_runs_the_statement(
    session: Session, plain: duckdb.DuckDBPyConnection, sql: str
) -> None:
    assert same(session, plain, sql) in ("single", "partly", "distributed")


def test_the_values_are_those_that_are_there_now(session: Session) -> None:
    session.execute("CREATE TABLE changing AS SELECT range AS k, 'a' AS s FROM range(10)")
    sql = "PIVOT changing ON s USING count(*)"
    assert session.query(sql).columns == ["k", "a"]
    session.execute("INSERT INTO changing VALUES (1, 'b')")
    assert session.query(sql).columns == ["k", "a", "b"]
    session.execute("TRUNCATE changing")
    assert session.query(sql).columns == ["k"]
    session.execute("DROP TABLE changing")


def test_columns_ascend_under_a_default_of_descending(session: Session, plain: duckdb.DuckDBPyConnection) -> None:
    sql = "PIVOT t ON s USING count(*) GROUP BY k"
    try:
        for each in (session, plain):
            each.execute("SET default_order = 'DESC'")
        found = session.query(sql)
        assert found.plan.mode != "single", found.plan.reason
        assert found.columns == [name for name, *_ in plain.execute(sql).description or ()]
    finally:
        for each in (session, plain):
            each.execute("RESET default_order")


def test_an_error_is_about_the_users_text(session: Session) -> None:
    with pytest.raises(BindError) as caught:
        session.query("PIVOT t ON\n  nothing USING sum(v)")
    assert "nothing" in caught.value.message
    assert "sabot" not in str(caught.value)


def test_the_plan_is_explained(session: Session) -> None:
    plan = session.explain("PIVOT t ON s USING sum(v) GROUP BY k").json()
    assert plan["mode"] == "distributed"


def test_inside_a_transaction_duckdb_runs_it(session: Session) -> None:
    session.execute("BEGIN")
    result = session.query("PIVOT t ON s USING sum(v) GROUP BY k")
    session.execute("ROLLBACK")
    assert (result.plan.json()["mode"], len(result.fetchall())) == ("single", 30)


def test_looking_for_the_values_is_cancelled(session: Session) -> None:
    with pytest.raises(QueryTimeout):
        session.query("PIVOT (SELECT count(*) AS s FROM range(9_000_000) a, range(9_000_000) b) ON s", timeout=0.5)
    assert session.query("SELECT count(*) FROM t").fetchall() == [(60_000,)]


@pytest.mark.parametrize(
    ("text", "static"),
    [
        ("PIVOT t ON s USING sum(v) GROUP BY k", "PIVOT t ON (s) IN e0 USING sum(v) GROUP BY k"),
        (
            "PIVOT t ON s, b IN (true), k + 1 /*c*/ USING f(v);",
            "PIVOT t ON (s) IN e0, b IN (true), (k + 1) IN e1 USING f(v)",
        ),
        ("pivot t on s", "pivot t on (s) IN e0 "),
        ("PIVOT f('PIVOT', x := [1, 2]) AS q ON g(s, 'x')", "PIVOT f('PIVOT', x := [1, 2]) AS q ON (g(s, 'x')) IN e0 "),
        ("PIVOT t ON s IN ('a')", None),
        ("PIVOT t ON *", None),
        ("PIVOT t ON COLUMNS('a')", None),
        ("PIVOT t", None),
        ("WITH a AS (FROM t) SELECT * FROM (PIVOT a ON s)", None),
        ("WITH RECURSIVE p AS (PIVOT t ON s) FROM p", None),
    ],
)
def test_the_parts_of_a_pivot(text: str, static: str | None) -> None:
    found = parse_pivot(text)
    assert (found and found.with_values([f"e{i}" for i in range(len(found.values))])) == static
