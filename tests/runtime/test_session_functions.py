"""What tells of a connection is asked of the session's own, and its side effects happen there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import sabot_sql
from sabot_sql import Session
from sabot_sql.catalog.file_sources import FILE_FUNCTIONS
from sabot_sql.catalog.session_functions import SAME_ANYWHERE, TELL_OF_CONNECTION
from sabot_sql.catalog.whole_files import WHOLE_FILE_FUNCTIONS

SETUP = (
    "CREATE TABLE t AS SELECT range AS a FROM range(10)",
    "CREATE SCHEMA other",
    "CREATE TEMP TABLE mine AS SELECT 1 AS x",
    "CREATE TEMP VIEW my_view AS FROM mine",
    "CREATE TEMP MACRO my_macro() AS 1",
    "SET VARIABLE v = 42",
    "PREPARE p AS SELECT 1",
    "SET SESSION default_null_order = 'nulls_first'",
    "USE memory.other",
    "CREATE TABLE names AS SELECT unnest(['v', 'w']) AS name",
)


@pytest.fixture(scope="module", params=[(1, "thread"), (2, "thread"), (2, "process")], ids=str)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as opened:
        opened.execute("; ".join(SETUP))
        yield opened


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("; ".join(SETUP))
        yield connection


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW TABLES",
        "SHOW ALL TABLES",
        "FROM duckdb_variables()",
        "SELECT name, statement FROM duckdb_prepared_statements()",
        "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables",
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_catalog IN ('memory', 'temp')",
        "SELECT type, name, sql FROM sqlite_master",
        "SELECT nspname FROM pg_catalog.pg_namespace",
        "SELECT schemaname, tablename FROM pg_tables",
        "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal",
        "SELECT function_name FROM duckdb_functions() WHERE NOT internal",
        "SELECT name, value FROM duckdb_settings() WHERE name = 'default_null_order'",
        "SELECT table_name, count(*) FROM duckdb_columns() WHERE NOT internal GROUP BY ALL",
        "SELECT current_schema(), current_database(), current_setting('default_null_order'), getvariable('v')",
        "SELECT schema_name FROM duckdb_schemas() WHERE in_search_path(database_name, schema_name)",
        "FROM pragma_table_info('mine')",
        "SELECT a FROM memory.main.t JOIN duckdb_tables() ON a = estimated_size",
        "SELECT $v + 1",
        "SELECT a FROM memory.main.t WHERE a + 40 = $v",
    ],
)
def test_it_is_asked_of_the_sessions_connection(session: Session, plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    expected = sorted(plain.execute(sql).fetchall(), key=repr)
    assert sorted(session.query(sql).fetchall(), key=repr) == expected
    assert expected


def test_a_parameter_hides_the_variable_of_its_name(session: Session, plain: duckdb.DuckDBPyConnection) -> None:
    for sql, given in (
        ("SELECT $v", {"v": 7}),
        ("SELECT a FROM memory.main.t WHERE a < $v", {"v": 3}),
        ("SELECT a + $v FROM memory.main.t WHERE a < $w", {"w": 3}),
    ):
        try:
            expected: object = sorted(plain.execute(sql, given).fetchall())
        except duckdb.Error:
            with pytest.raises(sabot_sql.QueryError):
                session.query(sql, given)
            continue
        assert sorted(session.query(sql, given).fetchall()) == expected


@pytest.mark.parametrize("option", ["store_rejects = true", "rejects_table = 'kept'", "rejects_scan = 'seen'"])
def test_rejected_rows_are_kept_with_the_session(session: Session, tmp_path: Path, option: str) -> None:
    for i in range(3):
        (tmp_path / f"{i}.csv").write_text("a\n1\nx\n")
    reader = f"read_csv('{tmp_path}/*.csv', {option}, types = {{'a': 'INTEGER'}})"
    assert session.query(f"SELECT sum(a) FROM {reader}").fetchall() == [(3,)]
    table = "kept" if "kept" in option else "reject_errors"
    assert session.query(f"SELECT count(*) FROM {table} WHERE csv_line = 'x'").fetchall() == [(3,)]
    session.execute("; ".join(f"DROP TABLE IF EXISTS {name}" for name in (table, "reject_scans", "seen")))


def test_what_is_the_same_anywhere_is_a_function_of_duckdb() -> None:
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT DISTINCT function_name, function_type, stability FROM duckdb_functions()")
        found = rows.fetchall()
    tables = {name for name, kind, _ in found if kind == "table"}
    assert {name for name, _, _ in found} >= SAME_ANYWHERE | TELL_OF_CONNECTION
    left = tables - SAME_ANYWHERE - set(FILE_FUNCTIONS) - set(WHOLE_FILE_FUNCTIONS)
    assert {name for name in left if name.startswith(("duckdb_", "pragma_"))} == {
        name for name in tables if name.startswith(("duckdb_", "pragma_"))
    }


@pytest.mark.parametrize("name", ["finalize", "combine_aggr", "to_aggregate_state", "list_value"])
def test_a_macro_named_like_what_the_planner_calls_changes_nothing(session: Session, name: str) -> None:
    sql = "SELECT a % 2, avg(a) FROM memory.main.t GROUP BY ALL ORDER BY ALL"
    expected = session.query(sql).fetchall()
    session.execute(f"CREATE MACRO {name}(a) AS 4242, (a, b, c, d) AS 4242")
    result = session.query(sql)
    session.execute(f"DROP MACRO {name}")
    assert result.fetchall() == expected
    assert "failed" not in result.plan.json()["reason"]
