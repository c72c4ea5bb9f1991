"""Rows come in the order that DuckDB documents for scans, WHERE, LIMIT, OFFSET, UNION ALL and OVER ()."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sabot_sql import Session
from tests.support.engine import session

TABLES = [
    "CREATE TABLE a AS SELECT i AS k, (i * 7919) % 1000 AS v FROM range(3000) AS r(i)",
    "CREATE TABLE b AS SELECT i + 10000 AS k, (i * 104729) % 1000 AS v FROM range(2000) AS r(i)",
    "CREATE TABLE s AS SELECT i + 50000 AS k, i AS v FROM range(5) AS r(i)",
    "CREATE TABLE few AS SELECT (i + 17)::INTEGER AS k, i AS v FROM range(3) AS r(i)",
    "CREATE TABLE e AS SELECT 1 AS k, 2 AS v LIMIT 0",
]
BOTH = "(FROM a UNION ALL FROM b)"
MANY = ", ".join(f"({i})" for i in range(500))
QUERIES = {
    "table": "SELECT * FROM a",
    "parquet": "SELECT * FROM pa",
    "csv": "FROM ca",
    "frame": "FROM frame",
    "where": "SELECT k + 1 FROM a WHERE v % 3 = 0",
    "frame where": "SELECT k FROM frame WHERE v % 3 = 0",
    "subqueries": "SELECT * FROM (SELECT k FROM (SELECT * FROM a WHERE v > 10) WHERE v < 900)",
    "limit": "SELECT k FROM a WHERE v % 3 = 0 LIMIT 700 OFFSET 90",
    "union": "SELECT * FROM a UNION ALL SELECT * FROM b",
    "union by name": "SELECT k, v FROM a UNION ALL BY NAME SELECT v, k FROM b",
    "union of files": "SELECT * FROM pa UNION ALL SELECT * FROM jb",
    "union of all kinds": "FROM pa UNION ALL FROM frame UNION ALL FROM b UNION ALL FROM s",
    "union of frames": "FROM frame UNION ALL FROM frame",
    "union of series": "SELECT i FROM range(5000) r(i) UNION ALL SELECT i FROM range(100) r(i)",
    "union with values": "FROM a UNION ALL VALUES (1, 2), (3, 4) UNION ALL FROM b",
    "union with a group": "SELECT 1 AS x, k FROM a UNION ALL SELECT count(*), 5 FROM b UNION ALL SELECT 2, k FROM b",
    "union of ordered": "(FROM a ORDER BY v, k) UNION ALL (FROM b ORDER BY v DESC, k)",
    "union of limits": "(FROM a LIMIT 100) UNION ALL (FROM b LIMIT 50 OFFSET 3)",
    "union of many": " UNION ALL ".join(["FROM s", "FROM a"] * 6),
    "nested unions": "(FROM a UNION ALL FROM b) UNION ALL (FROM b UNION ALL FROM a)",
    "union where": f"SELECT k FROM {BOTH} WHERE v % 3 = 0",
    "union projected": f"SELECT v * 2 + k FROM {BOTH}",
    "union unnested": f"SELECT k, unnest([1, 2]) FROM {BOTH}",
    "union limit": f"SELECT * FROM {BOTH} LIMIT 4000",
    "union offset": f"SELECT * FROM {BOTH} OFFSET 2990",
    "union limit offset": f"SELECT * FROM {BOTH} LIMIT 30 OFFSET 2990",
    "union where limit": f"SELECT k FROM {BOTH} WHERE v % 2 = 0 LIMIT 1600 OFFSET 10",
    "union percent": f"SELECT * FROM {BOTH} LIMIT 70%",
    "cte": f"WITH u AS {BOTH} SELECT k FROM u WHERE v < 500",
    "cte twice": f"WITH u AS MATERIALIZED {BOTH} SELECT * FROM u UNION ALL SELECT * FROM u",
    "cte of one table twice": "WITH u AS MATERIALIZED (FROM a WHERE v % 3 = 0) FROM u UNION ALL FROM u",
    "cte and limit": f"WITH u AS MATERIALIZED {BOTH} SELECT * FROM u UNION ALL (SELECT * FROM u LIMIT 3500)",
    "cte projected": f"WITH u AS MATERIALIZED (SELECT k * 2 AS kk, v FROM {BOTH} WHERE v % 3 = 1) "
    "SELECT * FROM u WHERE v < 400 UNION ALL SELECT * FROM u",
    "cte and group": f"WITH u AS MATERIALIZED {BOTH} SELECT count(*), 1 FROM u UNION ALL SELECT * FROM u",
    "numbers": "SELECT k, row_number() OVER () FROM a",
    "numbers of a frame": "SELECT k, row_number() OVER () FROM frame",
    "numbers of a union": f"SELECT k, row_number() OVER () AS n FROM {BOTH}",
    "numbers in a branch": "FROM e UNION ALL SELECT k, row_number() OVER () FROM few",
    "numbers beside a table": "FROM s UNION ALL SELECT k, row_number() OVER () FROM few UNION ALL FROM few",
    "numbers in a branch of tables": "FROM b UNION ALL SELECT k, row_number() OVER () FROM a",
    "numbers in a branch, filtered": "SELECT k, n FROM (SELECT k, row_number() OVER () AS n FROM a) WHERE n % 3 = 0 "
    "UNION ALL FROM s",
    "numbers in both branches": "SELECT k, row_number() OVER () FROM s UNION ALL SELECT k, row_number() OVER () FROM a",
    "sum in a branch": "FROM s UNION ALL SELECT k, sum(v) OVER () FROM s",
    "numbers of values in a branch": "FROM e UNION ALL SELECT x, row_number() OVER () FROM (VALUES (4), (2)) AS t(x)",
    "numbers of many values": f"SELECT count(*), max(n) FROM (SELECT v AS n FROM e UNION ALL "
    f"SELECT row_number() OVER () FROM (VALUES {MANY}) AS t(x), (VALUES {MANY}) AS u(y))",
    "sum of values in a branch": "FROM s UNION ALL SELECT x, sum(x) OVER () FROM (VALUES (4), (2)) AS t(x)",
    "lag": "SELECT k, lag(v) OVER () FROM a",
    "lag in a branch": "FROM e UNION ALL SELECT k, lag(v, 2) OVER () FROM a",
    "empty over": "SELECT k, sum(v) OVER () FROM a",
    "empty over a union": f"SELECT k, count(*) OVER () AS n, first_value(k) OVER () AS f FROM {BOTH}",
    "list": f"SELECT list(k) FROM {BOTH}",
    "text": f"SELECT string_agg(k::VARCHAR, ',') FROM {BOTH}",
}
WRITES = {
    "CREATE TABLE": ("CREATE OR REPLACE TABLE made AS {query}", "FROM made"),
    "COPY": ("COPY ({query}) TO '{path}/made.parquet'", "FROM '{path}/made.parquet'"),
    "INSERT": ("INSERT INTO kept {query}", "FROM kept"),
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "1": {"agents": 1},
    "2 threads": {"agents": 2},
    "2 threads, parted": {"agents": 2, "partitions": 2, "broadcast_limit": 0},
    "3 threads": {"agents": 3, "partitions": 5, "broadcast_limit": 0},
    "2 processes": {"agents": 2, "isolation": "process"},
    "3 processes": {"agents": 3, "isolation": "process", "partitions": 4},
}


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def setup(plain: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The statements that make the tables, which plain DuckDB has already."""
    path = tmp_path_factory.mktemp("files")
    for statement in TABLES:
        plain.execute(statement)
    plain.execute(f"COPY a TO '{path}/a.parquet' (ROW_GROUP_SIZE 500)")
    plain.execute(f"COPY a TO '{path}/a.csv'")
    plain.execute(f"COPY b TO '{path}/b.json'")
    views = [
        f"CREATE VIEW pa AS FROM '{path}/a.parquet'",
        f"CREATE VIEW ca AS FROM '{path}/a.csv'",
        f"CREATE VIEW jb AS FROM '{path}/b.json'",
    ]
    for view in views:
        plain.execute(view)
    return TABLES + views


@pytest.fixture(scope="module")
def sessions(setup: list[str]) -> Iterator[dict[str, Session]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(setup, **options)) for name, options in CONFIGURATIONS.items()}


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_order_is_kept(
    configuration: str, name: str, plain: duckdb.DuckDBPyConnection, sessions: dict[str, Session]
) -> None:
    frame = plain.sql("FROM a").to_arrow_table()
    plain.register("frame", frame)
    wanted = plain.sql(QUERIES[name]).fetchall()
    assert sessions[configuration].query(QUERIES[name], scope={"frame": frame}).fetchall() == wanted


@pytest.mark.parametrize("form", WRITES)
@pytest.mark.parametrize("name", ["table", "union", "nested unions", "union where limit"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_order_is_written(
    configuration: str,
    name: str,
    form: str,
    plain: duckdb.DuckDBPyConnection,
    sessions: dict[str, Session],
    tmp_path: Path,
) -> None:
    opened, (write, read) = sessions[configuration], WRITES[form]
    query = QUERIES[name]
    opened.execute(f"CREATE OR REPLACE TABLE kept AS FROM ({query}) LIMIT 0")
    opened.execute(write.format(query=query, path=tmp_path))
    written = opened.query(read.format(path=tmp_path), agents=1)
    assert written.fetchall() == plain.sql(query).fetchall()


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_rows_of_the_session_are_not_dealt_below_a_window_over_all_rows(isolation: str) -> None:
    # More rows than one batch for each task: of two batches dealt to two tasks the order is the same.
    with session(
        ["CREATE TABLE a AS SELECT i AS k, i % 7 AS v FROM range(30000) r(i)"], agents=2, isolation=isolation
    ) as opened:
        rows = opened.query("SELECT k, sum(v) OVER () FROM a").fetchall()
        assert [k for k, _ in rows] == list(range(30000))
        kept = opened.query("SELECT sum(k) FROM (SELECT k, sum(v) OVER () AS s FROM a) WHERE s > 0")
        assert kept.fetchall() == [(sum(range(30000)),)]
        assert kept.plan.mode == "distributed", "where nothing shows the order, rows are dealt"


def test_where_no_order_is_to_be_kept_the_branches_come_as_they_are(setup: list[str]) -> None:
    def read(opened: Session) -> str:
        (edge,) = (e for e in opened.explain(QUERIES["union"]).json()["edges"] if e["id"] == "result")
        return str(edge["reason"])

    with session(setup, agents=2) as opened:
        assert read(opened) == "read in the order of the branches"
        opened.execute("SET preserve_insertion_order = false")
        assert read(opened) == "read as it comes"
        rows = opened.query(QUERIES["union"]).fetchall()
        assert sorted(rows) == sorted(opened.query(QUERIES["union"], agents=1).fetchall())
