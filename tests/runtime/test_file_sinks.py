"""COPY to a directory: every task of the last stage writes a file, and all of them appear at once or none does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import sabot_sql
from sabot_sql import Session
from sabot_sql.agent.process_agent import ProcessAgent
from sabot_sql.errors import QueryCancelled, QueryError, SourceError

QUERY = 'SELECT k, max(v) AS "m x" FROM t GROUP BY k'
SLOW = "SELECT k, (SELECT count(*) FROM range(300_000_000) r WHERE r.range = k) AS n FROM t"


@pytest.fixture(scope="module", params=("thread", "process"))
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    file = tmp_path_factory.mktemp("data") / "t.parquet"
    source = "SELECT (range * 7919) % 5000 AS k, range AS v, 's' || range % 7 AS s FROM range(60_000)"
    duckdb.sql(f"COPY ({source}) TO '{file}' (ROW_GROUP_SIZE 10_000)")
    # Every stage keeps all of its tasks, however few its rows are.
    with sabot_sql.connect(agents=2, isolation=request.param, memory_limit="1GiB", partitions=2) as opened:
        opened.execute(f"CREATE VIEW t AS FROM '{file}'")
        yield opened


@pytest.mark.parametrize(
    ("options", "extension", "reader"),
    [
        ("FORMAT parquet, PER_THREAD_OUTPUT", "parquet", "read_parquet"),
        ("per_thread_output true, format 'csv', compression gzip, delimiter ';'", "csv.gz", "read_csv"),
        ("PER_THREAD_OUTPUT 1, FORMAT json, FILE_EXTENSION 'rows'", "rows", "read_json"),
    ],
)
def test_every_task_writes_a_file(session: Session, tmp_path: Path, options: str, extension: str, reader: str) -> None:
    result = session.query(f"COPY ({QUERY}) TO '{tmp_path}/out' ({options})")
    assert (result.columns, result.types, result.fetchall()) == (["Count"], ["BIGINT"], [(5000,)])
    assert result.plan.json()["mode"] == "distributed"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"part-0000{i}.{extension}" for i in range(2)]
    written = duckdb.sql(f"FROM {reader}('{tmp_path}/out/*') ORDER BY k")
    assert written.columns == ["k", "m x"]
    assert written.fetchall() == session.query(f"{QUERY} ORDER BY k").fetchall()


def test_the_files_are_in_the_order_of_the_query(session: Session, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    session.execute(f"COPY (FROM t ORDER BY k, v DESC) TO '{tmp_path}/out/' (FORMAT parquet, PER_THREAD_OUTPUT)")
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 2
    rows = [row for file in files for row in duckdb.read_parquet(str(file)).fetchall()]
    assert rows == session.query("FROM t ORDER BY k, v DESC").fetchall()


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("SELECT k, v AS k FROM t", "FORMAT parquet, PER_THREAD_OUTPUT"),
        (QUERY, "FORMAT parquet, PER_THREAD_OUTPUT, FILENAME_PATTERN 'mine_{i}'"),
        (QUERY, "FORMAT parquet, PER_THREAD_OUTPUT, OVERWRITE_OR_IGNORE"),
    ],
)
def test_what_says_more_about_files_is_written_by_duckdb(
    session: Session, tmp_path: Path, query: str, options: str
) -> None:
    session.execute(f"COPY ({query}) TO '{tmp_path}/out' ({options})")
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert names
    assert not [name for name in names if name.startswith("part-")]


def test_a_directory_that_holds_files_is_left_alone(session: Session, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("before")
    with pytest.raises(SourceError, match="not empty"):
        session.execute(f"COPY ({QUERY}) TO '{tmp_path}/out' (FORMAT csv, PER_THREAD_OUTPUT)")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_failure_leaves_nothing(session: Session, tmp_path: Path) -> None:
    with pytest.raises(QueryError):
        session.execute(f"COPY (SELECT v::USMALLINT - 50_000 FROM t) TO '{tmp_path}/out' (PER_THREAD_OUTPUT)")
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_copy_leaves_nothing(session: Session, tmp_path: Path) -> None:
    timer = threading.Timer(0.5, session.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(QueryCancelled):
        session.execute(f"COPY ({SLOW}) TO '{tmp_path}/out' (FORMAT csv, PER_THREAD_OUTPUT)")
    assert time.monotonic() - began < 5
    assert list(tmp_path.iterdir()) == []
    assert session.query("SELECT count(*) FROM t").fetchall() == [(60_000,)]


def test_a_task_that_runs_again_counts_once(session: Session, tmp_path: Path) -> None:
    if session.isolation != "process":
        pytest.skip("a thread cannot be killed")
    killed: list[int] = []

    def kill(snapshot: dict[str, object]) -> None:
        if not killed and snapshot["state"] == "running":
            pool = session._pools._pool
            assert pool is not None
            (first, *_) = [agent for agent in pool.agents if isinstance(agent, ProcessAgent)]
            killed.append(first.process_id)
            os.kill(first.process_id, signal.SIGKILL)

    query = "SELECT k, v, (SELECT count(*) FROM range(1_000_000_000) r WHERE r.range = v % 3) AS n FROM t"
    result = session.query(
        f"COPY ({query}) TO '{tmp_path}/out' (FORMAT parquet, PER_THREAD_OUTPUT)",
        observer=kill,  # type: ignore[arg-type]
    )
    assert killed
    assert result.fetchall() == [(60_000,)]
    assert duckdb.sql(f"SELECT count(*), count(DISTINCT v), sum(n) FROM '{tmp_path}/out/*.parquet'").fetchall() == [
        (60_000, 60_000, 60_000)
    ]
