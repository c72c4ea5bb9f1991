"""What docs/trust.md says, sentence by sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_native
import sabot_sql
from sabot_sql import QueryError, SabotSQLError, Session
from sabot_sql.agent.agent_instance import AgentInstance, InstanceConfig
from sabot_sql.agent.guard import require_query
from sabot_sql.protocol.task_spec import QueryContext


def rows_file(path: Path, first: int, rows: int = 20_000) -> None:
    quoted = str(path).replace("'", "''")
    duckdb.connect().execute(
        f"COPY (SELECT range AS a FROM range({first}, {first + rows})) TO '{quoted}' (FORMAT parquet)"
    )


# ---------------------------------------------------------------------------------------------------- process agents


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trust")
    for name in ("named", "other", "globbed"):
        (root / name).mkdir()
        rows_file(root / name / "t.parquet", 0, 10)
        (root / name / "t.csv").write_text("a\n1\n")
    (root / "named" / "link.parquet").symlink_to(root / "other" / "t.parquet")
    duckdb.connect(str(root / "d.duckdb")).execute("CREATE TABLE t AS SELECT 1 AS a").close()
    return root


@pytest.fixture(scope="module")
def locked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The DuckDB of an agent process whose session has named a file, a directory and a database."""
    own = tmp_path_factory.mktemp("agent")
    config = InstanceConfig("agent-1", 4 << 20, str(own / "spill"), str(own / "tmp"), 1, 256 << 20)
    with sabot_native.ShuffleManager("agent-1", budget_bytes=4 << 20, spill_directory=own / "spill") as manager:
        instance = AgentInstance(config, manager)
        paths = (str(data / "named" / "t.parquet"), f"{data}/globbed/")
        context = QueryContext("q", paths=paths, attachments=(("d", str(data / "d.duckdb")),))
        with instance.runner(context):
            assert instance._connection is not None
            yield instance._connection.cursor()
        instance.close()


ALLOWED = ["FROM '{d}/named/t.parquet'", "FROM '{d}/globbed/*.parquet'", "FROM '{d}/globbed/t.csv'", "FROM d.t"]
REFUSED = [
    "FROM '{d}/other/t.parquet'",
    "FROM '{d}/named/*.parquet'",
    "FROM '{d}/globbed/../other/t.parquet'",
    "FROM '{d}/named/link.parquet'",
    "FROM read_text('/etc/passwd')",
    "FROM read_text('/proc/self/environ')",
    "FROM read_csv('/etc/passwd')",
    "FROM sniff_csv('{d}/other/t.csv')",
    "FROM glob('/etc/*')",
    "FROM parquet_metadata('{d}/other/t.parquet')",
    "FROM 'http://127.0.0.1:9/t.parquet'",
    "COPY (SELECT 1) TO '{d}/other/written.csv'",
    "COPY (SELECT 1) TO '/tmp/written-by-an-agent.csv'",
    "EXPORT DATABASE '{d}/exported'",
    "ATTACH '{d}/new.duckdb'",
    "ATTACH '{d}/d.duckdb' AS again",
    "INSERT INTO d.t VALUES (2)",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET threads = 5",
    "SET lock_configuration = false",
    "RESET allowed_directories",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_a_process_agent_reads_what_was_named(locked: duckdb.DuckDBPyConnection, data: Path, sql: str) -> None:
    assert locked.execute(sql.format(d=data)).fetchall()


@pytest.mark.parametrize("sql", REFUSED)
def test_a_process_agent_touches_nothing_else(locked: duckdb.DuckDBPyConnection, data: Path, sql: str) -> None:
    text = sql.format(d=data)

    def run() -> None:
        require_query(locked, text)
        locked.execute(text).fetchall()

    with pytest.raises((duckdb.Error, QueryError)):
        run()
    assert not (data / "other" / "written.csv").exists()
    assert not (data / "new.duckdb").exists()
    assert locked.execute("SELECT count(*) FROM d.t").fetchall() == [(1,)]


def test_a_process_agent_sees_no_python_names(locked: duckdb.DuckDBPyConnection) -> None:
    frame = {"a": 1}
    with pytest.raises(duckdb.CatalogException):
        locked.execute("FROM frame").fetchall()
    assert frame


WRITES = [
    "CREATE TABLE t AS SELECT 1",
    "COPY (SELECT 1) TO '/tmp/x.csv'",
    "SET threads = 1",
    "ATTACH ':memory:' AS m",
    "WITH ins AS (INSERT INTO d.t VALUES (5)) SELECT 1",
    "SELECT 1; SELECT 2",
    "",
]


@pytest.mark.parametrize("sql", WRITES)
def test_an_agent_of_either_kind_runs_one_query_that_reads(sql: str) -> None:
    with pytest.raises(QueryError, match="fragment"):
        require_query(duckdb.connect(), sql)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_session_may_what_the_user_may(tmp_path: Path, isolation: Any) -> None:
    with sabot_sql.connect(agents=2, isolation=isolation, memory_limit="1GiB") as session:
        session.execute(f"COPY (SELECT 1 AS a) TO '{tmp_path}/written.csv'")
        session.execute(f"ATTACH '{tmp_path}/made.duckdb' AS made; CREATE TABLE made.t AS SELECT 1 AS a")
        assert session.query(f"SELECT count(*) FROM read_text('{tmp_path}/written.csv')").fetchall() == [(1,)]


def test_a_session_is_closed_down_by_duckdb_s_own_settings(tmp_path: Path) -> None:
    rows_file(tmp_path / "t.parquet", 0)
    config: Mapping[str, object] = {"enable_external_access": False, "lock_configuration": True}
    with sabot_sql.connect(config=config, memory_limit="1GiB") as session:
        for sql in (
            f"SELECT count(*) FROM '{tmp_path}/t.parquet'",
            f"COPY (SELECT 1) TO '{tmp_path}/w.csv'",
            f"ATTACH '{tmp_path}/x.duckdb'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(SabotSQLError):
                session.query(sql)
        assert session.query("SELECT 42").fetchall() == [(42,)]
    assert {path.name for path in tmp_path.iterdir()} == {"t.parquet"}


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("at_start", [True, False])
def test_a_locked_configuration_leaves_queries_to_one_agent(tmp_path: Path, isolation: Any, at_start: bool) -> None:
    rows_file(tmp_path / "t.parquet", 0)
    config: Mapping[str, object] = {"lock_configuration": True} if at_start else {}
    sql = f"SELECT a % 3 AS k, count(*) AS n FROM '{tmp_path}/t.parquet' GROUP BY k ORDER BY k"
    with sabot_sql.connect(agents=2, isolation=isolation, config=config, memory_limit="1GiB") as session:
        if not at_start:
            assert session.query(sql).plan.json()["mode"] == "distributed"
            session.execute("SET lock_configuration = true")
        with duckdb.connect() as plain:
            expected = plain.execute(sql).fetchall()
        given = session.query(sql)
        assert given.fetchall() == expected
        assert "lock_configuration" in given.plan.text()
        with pytest.raises(SabotSQLError, match="locked"):
            session.execute("SET threads = 1")


# ------------------------------------------------------------------------------------------------ files that change

SUMS = "SELECT count(*), sum(a) FROM '{d}/*.parquet' WHERE a >= 0"


@pytest.fixture(params=["thread", "process"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with sabot_sql.connect(agents=2, isolation=request.param, memory_limit="1GiB") as opened:
        opened.query("SELECT sum(range) FROM range(1000)")
        yield opened


def changing(session: Session, monkeypatch: pytest.MonkeyPatch, change: Any) -> list[int]:
    """Make ``change`` happen once, between a query's plan and its tasks; gives how often it did."""
    from sabot_sql.call import distributed

    done: list[int] = []
    run = distributed.run_query

    def changed_before(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(1)
            change()
        return run(*arguments, **options)

    monkeypatch.setattr(distributed, "run_query", changed_before)
    return done


@pytest.mark.parametrize("how", ["replaced", "grown", "removed rows", "no file any more"])
def test_rows_of_a_file_that_changed_are_thrown_away(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for part in range(3):
        rows_file(tmp_path / f"{part}.parquet", part * 20_000)
    other = tmp_path / "new.tmp"

    def change() -> None:
        if how == "no file any more":
            (tmp_path / "2.parquet").write_bytes(b"")
            return
        rows = {"replaced": 20_000, "grown": 50_000, "removed rows": 10}[how]
        rows_file(other, 1_000_000, rows)
        other.replace(tmp_path / "1.parquet")

    done = changing(session, monkeypatch, change)
    sql = SUMS.format(d=tmp_path)
    if how == "no file any more":
        with pytest.raises(SabotSQLError):
            session.query(sql)
    else:
        result = session.query(sql)
        assert result.fetchall() == duckdb.connect().sql(sql).fetchall()
        assert "1.parquet was changed" in result.plan.reason
    assert done == [1]


def test_what_was_to_be_written_is_written_once(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    for form in ("TO '{d}/out/rows.parquet'", "TO '{d}/out/parts' (FORMAT parquet, PER_THREAD_OUTPUT true)"):
        rows_file(tmp_path / "t.parquet", 0)
        with monkeypatch.context() as patch:
            done = changing(session, patch, lambda: rows_file(tmp_path / "t.parquet", 7_000_000, 30_000))
            session.query(f"COPY (SELECT a FROM '{tmp_path}/t.parquet') {form.format(d=tmp_path)}")
            assert done == [1]
    expected = [(30_000, 7_000_000)]
    for written in ("rows.parquet", "parts/*.parquet"):
        assert duckdb.connect().sql(f"SELECT count(*), min(a) FROM '{tmp_path}/out/{written}'").fetchall() == expected
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rows.parquet", "parts"}


def test_a_file_that_did_not_change_is_read_by_agents(session: Session, tmp_path: Path) -> None:
    rows_file(tmp_path / "t.parquet", 0)
    shutil.copystat(tmp_path / "t.parquet", tmp_path / "t.parquet")
    result = session.query(SUMS.format(d=tmp_path))
    assert result.plan.mode == "distributed"
    os.utime(tmp_path / "t.parquet")  # afterwards it may
    assert result.fetchall() == [(20_000, sum(range(20_000)))]
