"""The durable host: what it is asked to run comes to an end, whatever becomes of it and of those who asked."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql.coordinator.journal import JOURNAL_VERSION
from sabot_sql.detached.doctor import clean, diagnose, stop_host
from sabot_sql.detached.host_client import HOST_GONE, HostClient, start_host
from sabot_sql.detached.known_queries import host_state
from sabot_sql.detached.messages import DescribeHost, HostState
from sabot_sql.detached.state_directory import STATE_DIRECTORY, StateDirectory
from tests.support.durable_hosts import hosts_of, state_directory
from tests.support.processes import wait_until

STAGES = """
SELECT k, count(*) AS n, max(r) AS m FROM (
    SELECT a.i % 7 AS k, row_number() OVER (PARTITION BY a.i % 11 ORDER BY a.i) AS r
    FROM '{file}' a JOIN '{file}' b ON a.j = b.i
) GROUP BY k ORDER BY k
"""
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range + b.range) = 1"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("numbers") / "numbers.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT i, (i * 7919) % 200000 AS j FROM range(200000) r(i)) TO '{file}' (ROW_GROUP_SIZE 20000)"
        )
    return file


class Fraction(int):
    """DuckDB takes it for a number; it is more than one to whoever made it."""


def expected(sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


def recorded(state: StateDirectory, query_id: str) -> list[str]:
    """The lines of a query's journal that are in the database."""
    with closing(sqlite3.connect(f"file:{state.database}?mode=ro", uri=True, timeout=30)) as database:
        rows = database.execute(
            "SELECT output FROM operation_outputs WHERE workflow_uuid = ? ORDER BY function_id", [query_id]
        ).fetchall()
    return [line for (output,) in rows if output for line in json.loads(output).get("lines", [])]


def reported(state: StateDirectory, query_id: str) -> list[tuple[str, int]]:
    found = [json.loads(line) for line in recorded(state, query_id) if '"kind":"TaskReport"' in line]
    return [(line["body"]["id"]["stage"], line["body"]["id"]["task"]) for line in found]


def host_pid(state: StateDirectory) -> int:
    return HostClient(state).ask(DescribeHost(), HostState, start=False).pid


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_query_is_answered_as_by_duckdb(state: StateDirectory, session: sabot_sql.Session, numbers: Path) -> None:
    sql = STAGES.format(file=numbers)
    handle = session.submit(sql)
    result = handle.result(60)
    assert result.fetchall() == expected(sql)
    assert result.columns == ["k", "n", "m"]
    assert result.types == ["BIGINT", "BIGINT", "BIGINT"]
    assert result.plan.mode == "distributed"
    assert result.query_id == handle.query_id
    assert (handle.status, handle.progress()) == ("finished", 1.0)
    # From here on it needs neither the session nor the host.
    session.close()
    stop_host(state)
    again = sabot_sql.attach(handle.query_id)
    assert again.result().fetchall() == expected(sql)
    assert again.result().to_arrow_table().column_names == ["k", "n", "m"]
    assert "dbos" not in sys.modules


def test_the_host_is_killed_at_every_stage(state: StateDirectory, session: sabot_sql.Session, numbers: Path) -> None:
    sql = STAGES.format(file=numbers)
    wanted = expected(sql)
    undisturbed = session.submit(sql)
    assert undisturbed.result(60).fetchall() == wanted
    total = len(reported(state, undisturbed.query_id))
    assert total >= 4
    for reports in range(total):
        handle = session.submit(sql)
        before: list[tuple[str, int]] = []
        while len(before) < reports and handle.state().state in ("queued", "running"):
            before = reported(state, handle.query_id)
        os.kill(host_pid(state), signal.SIGKILL)
        before = reported(state, handle.query_id)
        assert handle.result(60).fetchall() == wanted
        after = reported(state, handle.query_id)
        assert after[: len(before)] == before
        assert len(after) == len(set(after)), f"killed after {reports} reports, a task that had committed ran again"
        assert not (state.segments / handle.query_id).exists()


def test_what_a_query_was_granted_stays_the_same(
    state: StateDirectory, session: sabot_sql.Session, numbers: Path
) -> None:
    """With other memory it would be planned otherwise, and could not go on: here its neighbour is gone by then."""
    sql = STAGES.format(file=numbers)
    neighbour = session.submit(ENDLESS)
    wait_until(lambda: neighbour.status == "running")
    handle = session.submit(sql)
    while not (before := reported(state, handle.query_id)) and handle.state().state in ("queued", "running"):
        pass
    granted = handle.state().admission
    assert "others run" in granted
    os.kill(host_pid(state), signal.SIGKILL)
    before = reported(state, handle.query_id)
    assert handle.result(60).fetchall() == expected(sql)
    after = reported(state, handle.query_id)
    assert after[: len(before)] == before
    assert len(after) == len(set(after))
    assert handle.state().admission == granted
    neighbour.cancel()


def test_tables_views_macros_frames_and_settings_of_the_session_go_along(
    shared_state: StateDirectory, session: sabot_sql.Session, tmp_path: Path
) -> None:
    other = tmp_path / "other.duckdb"
    with duckdb.connect(str(other)) as connection:
        connection.execute("CREATE TABLE far AS SELECT 5 AS f")
    session.query(
        f"""
        CREATE SCHEMA s; CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE TABLE s.t (a INTEGER, m mood, g INTEGER GENERATED ALWAYS AS (a + 1));
        INSERT INTO s.t VALUES (1, 'ok'), (2, 'sad');
        CREATE TABLE left_alone AS SELECT range FROM range(100000);
        CREATE VIEW v AS SELECT a, g FROM s.t; CREATE MACRO double(x) AS x * 2;
        CREATE MACRO count_star() AS 7; CREATE MACRO duckdb_tables() AS TABLE SELECT 1 AS one;
        CREATE TEMP TABLE tt AS SELECT 3 AS c; CREATE TEMP MACRO triple(x) AS x * 3;
        CREATE TEMP VIEW tv AS SELECT c + 1 AS d FROM tt;
        ATTACH '{other}' AS other (READ_ONLY);
        SET VARIABLE n = 4; SET TimeZone = 'Asia/Tokyo'; USE memory.s
        """
    )
    session.register("registered", pa.table({"r": [10, 20]}))
    frame = pa.table({"x": [100]})
    sql = """
        SELECT t.a, t.m, v.g, double(t.a), triple(t.a), c, d, r, x, f, getvariable('n') AS n,
            TIMESTAMPTZ '2024-01-01 00:00:00+00' AS at, 'ok'::mood AS cast_mood
        FROM t JOIN main.v USING (a), tt, tv, registered, frame, other.far ORDER BY ALL
    """
    interactive = session.query(sql)
    handle = session.submit(sql)
    session.close()
    durable = handle.result(60)
    rows = interactive.fetchall()
    assert len(rows) == 4
    assert durable.fetchall() == rows
    assert (durable.columns, durable.types) == (interactive.columns, interactive.types)
    copied = sum(file.stat().st_size for file in shared_state.query(handle.query_id).rglob("*.duckdb"))
    assert copied < 3 << 20
    assert frame.num_rows == 1


def test_a_database_file_is_copied_while_it_is_in_use(shared_state: StateDirectory, tmp_path: Path) -> None:
    with sabot_sql.connect(tmp_path / "own.duckdb", agents=2) as session:
        session.query("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
        handle = session.submit("SELECT sum(i) FROM own.main.t")
        session.query("UPDATE t SET i = 0")
        assert handle.result(60).fetchall() == [(499500,)]


def test_a_database_that_is_read_only_is_read_where_it_is(shared_state: StateDirectory, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "own.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    with sabot_sql.connect(tmp_path / "own.duckdb", agents=2, read_only=True) as session:
        handle = session.submit("SELECT sum(i) FROM t")
        assert handle.result(60).fetchall() == [(499500,)]
    assert not list(shared_state.query(handle.query_id).glob("own.duckdb"))


def test_relative_paths_are_those_of_whoever_asks(
    shared_state: StateDirectory, session: sabot_sql.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.csv").write_text(f"a\n{value}\n")
    answers = []
    for name in ("one", "two"):
        monkeypatch.chdir(tmp_path / name)
        answers.append(session.submit("SELECT a FROM 'data.csv'").result(60).fetchall())
    assert answers == [[(1,)], [(2,)]]


def test_parameters_travel_as_they_are(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    values = [
        None, True, 7, 2.5, float("inf"), "it's", b"\0\xff", dt.date(2024, 2, 29), dt.datetime(2024, 1, 2, 3, 4, 5, 6),
        dt.time(1, 2, 3), dt.timedelta(days=-1, microseconds=5), decimal.Decimal("1.50"), [1, 2], {"a": 1},
    ]  # fmt: skip
    sql = f"SELECT {', '.join('?' * len(values))}"
    assert session.submit(sql, values).result(60).fetchall() == session.query(sql, values).fetchall()
    assert session.submit("SELECT $b - $a", {"a": 1, "b": 5}).result(60).fetchall() == [(4,)]
    known = set(shared_state.queries.iterdir())
    with pytest.raises(sabot_sql.UsageError, match="of type Fraction"):
        session.submit("SELECT ?", [Fraction()])
    assert set(shared_state.queries.iterdir()) == known


@pytest.mark.parametrize(
    ("sql", "error", "said"),
    [
        ("CREATE TABLE t AS SELECT 1", sabot_sql.UsageError, "writes nothing"),
        ("WITH w AS (INSERT INTO kept VALUES (1) RETURNING *) FROM w", sabot_sql.UsageError, "writes nothing"),
        ("SELECT 1; SELECT 2", sabot_sql.UsageError, "single query"),
        ("", sabot_sql.UsageError, "single query"),
        ("SELEC 1", sabot_sql.SQLSyntaxError, "SELEC"),
        ("SELECT nothing_like_that", sabot_sql.BindError, "nothing_like_that"),
        ("FROM nowhere", sabot_sql.BindError, "nowhere"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    sql: str, error: type[Exception], said: str, state: StateDirectory, session: sabot_sql.Session
) -> None:
    session.query("CREATE TABLE kept (i INTEGER)")
    with pytest.raises(error, match=said):
        session.submit(sql)
    assert not list(state.queries.iterdir())
    assert not hosts_of(state.path), "no host was started for it"


def test_nothing_is_handed_over_inside_a_transaction(state: StateDirectory, session: sabot_sql.Session) -> None:
    session.query("BEGIN; CREATE TABLE t AS SELECT 1")
    with pytest.raises(sabot_sql.UsageError, match="COMMIT first"):
        session.submit("FROM t")
    session.query("ROLLBACK")


def test_an_error_of_the_query_is_what_it_would_be_at_once(
    shared_state: StateDirectory, session: sabot_sql.Session
) -> None:
    sql = "SELECT CAST('x' || range AS INTEGER) FROM range(3)"
    with pytest.raises(sabot_sql.QueryError) as here:
        session.query(sql)
    handle = session.submit(sql)
    with pytest.raises(sabot_sql.QueryError) as there:
        handle.result(60)
    assert (type(there.value), there.value.code) == (type(here.value), here.value.code)
    assert there.value.message == here.value.message
    assert handle.status == "failed"


def test_a_query_is_cancelled(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    handle = session.submit(ENDLESS)
    wait_until(lambda: handle.status == "running")
    with pytest.raises(sabot_sql.QueryTimeout, match="it goes on"):
        handle.result(0.2)
    handle.cancel()
    with pytest.raises(sabot_sql.QueryCancelled):
        handle.result(30)
    assert handle.status == "cancelled"
    handle.cancel()  # it stays as it is
    assert handle.status == "cancelled"


def test_a_query_runs_past_its_limit(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    handle = session.submit(ENDLESS, timeout=1)
    with pytest.raises(sabot_sql.QueryTimeout):
        handle.result(60)
    assert handle.status == "timed_out"


def test_many_queries_wait_for_memory_and_none_fails(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    handles = sabot_sql.batch([("SELECT sum(range) + ? FROM range(100000)", [i]) for i in range(50)], session=session)
    assert [handle.result(110).fetchall() for handle in handles] == [[(4999950000 + i,)] for i in range(50)]
    host = host_state()
    assert host is not None
    assert (host.running, host.queued) == (0, 0)


def test_a_batch_is_handed_over_whole_or_not_at_all(state: StateDirectory, session: sabot_sql.Session) -> None:
    with pytest.raises(sabot_sql.UsageError, match="neither SQL nor a pair"):
        sabot_sql.batch(["SELECT 1", 2], session=session)  # type: ignore[list-item]
    assert not list(state.queries.iterdir())
    with pytest.raises(sabot_sql.BindError):
        sabot_sql.batch([ENDLESS, "FROM nowhere"], session=session)
    ((query,),) = [sabot_sql.queries().fetchall()[:1]]
    wait_until(lambda: sabot_sql.attach(query[0]).status == "cancelled")


def test_a_handle_can_be_awaited(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    async def asked() -> list[tuple[object, ...]]:
        return (await session.submit("SELECT 42")).fetchall()

    assert asyncio.run(asked()) == [(42,)]


def test_query_durable_waits_and_shows_the_plan(
    shared_state: StateDirectory, session: sabot_sql.Session, numbers: Path
) -> None:
    seen: list[object] = []
    sql = STAGES.format(file=numbers)
    assert session.query(sql, durable=True, observer=seen.append).fetchall() == expected(sql)
    with pytest.raises(sabot_sql.ConfigError, match="max_rows"):
        session.query("SELECT 1", durable=True, max_rows=1)


def test_queries_are_listed_and_forgotten(state: StateDirectory, session: sabot_sql.Session) -> None:
    assert sabot_sql.queries().fetchall() == []
    assert not hosts_of(state.path), "nothing is started to say that there is nothing"
    handle = session.submit("\n  SELECT 1 AS one\nFROM range(2)")
    handle.result(60)
    (row,) = sabot_sql.queries().fetchall()
    assert row[:3] == (handle.query_id, "finished", "SELECT 1 AS one")
    assert row[-2:] == (2, None)
    handle.forget()
    assert sabot_sql.queries().fetchall() == []
    for use in (lambda: sabot_sql.attach(handle.query_id), lambda: sabot_sql.attach("../../etc")):
        with pytest.raises(sabot_sql.UsageError) as error:
            use()
        assert error.value.code == "NO_SUCH_QUERY"


def test_another_process_attaches(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    handle = session.submit("SELECT range AS i FROM range(3)")
    code = f"import sabot_sql; print(sabot_sql.attach({handle.query_id!r}).result(60).fetchall())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert run.stdout.strip() == "[(0,), (1,), (2,)]"


def test_a_query_outlives_the_process_that_asked_it(shared_state: StateDirectory, numbers: Path) -> None:
    sql = STAGES.format(file=numbers)
    code = f"import os, sabot_sql; print(sabot_sql.connect(agents=2).submit({sql!r}).query_id, flush=True); os._exit(9)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False)
    assert sabot_sql.attach(run.stdout.strip()).result(60).fetchall() == expected(sql)


def test_a_program_that_holds_a_dbos_of_its_own_is_left_alone(shared_state: StateDirectory, tmp_path: Path) -> None:
    code = f"""
from dbos import DBOS, DBOSConfig
import sabot_sql
DBOS(config=DBOSConfig(name="theirs", system_database_url="sqlite:///{tmp_path}/theirs.sqlite", log_level="ERROR"))
@DBOS.workflow()
def theirs(x: int) -> int:
    with sabot_sql.connect(agents=2) as session:
        return x + session.submit("SELECT 40").result(60).fetchall()[0][0]
DBOS.launch()
print(theirs(2))
DBOS.destroy()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False)
    assert run.stdout.strip() == "42", run.stderr
    with closing(sqlite3.connect(tmp_path / "theirs.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM workflow_status").fetchall() == [(1,)]


def test_a_socket_that_was_removed_is_there_again(state: StateDirectory, session: sabot_sql.Session) -> None:
    session.submit("SELECT 1").result(60)
    before = host_state()
    assert before is not None
    state.socket.unlink()
    assert session.submit("SELECT 2").result(60).fetchall() == [(2,)]
    after = host_state()
    assert after is not None
    assert after.pid == before.pid


def test_a_host_that_ends_before_it_listens_is_followed_by_another(
    state: StateDirectory, session: sabot_sql.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sabot_sql.detached.host_client._AGAIN_SECONDS", 0.0)
    starting = state.lock.open("a+")
    fcntl.flock(starting, fcntl.LOCK_EX)
    started = []

    def start(directory: StateDirectory) -> subprocess.Popen[bytes]:
        process = start_host(directory)
        if not started:
            assert process.wait(60) == 0  # it saw that another one was there
            starting.close()
        started.append(process.pid)
        return process

    monkeypatch.setattr("sabot_sql.detached.host_client.start_host", start)
    assert session.submit("SELECT 1").result(60).fetchall() == [(1,)]
    assert len(started) >= 2


def test_a_result_that_was_removed_by_hand_is_said_to_be_lost(
    shared_state: StateDirectory, session: sabot_sql.Session
) -> None:
    handle = session.submit("SELECT 1")
    handle.result(60)
    shutil.rmtree(shared_state.query(handle.query_id))
    with pytest.raises(sabot_sql.ResourceError) as lost:
        handle.result(60)
    assert lost.value.code == "RESULT_LOST"


def test_two_hosts_never_serve_one_directory(state: StateDirectory, session: sabot_sql.Session) -> None:
    session.submit("SELECT 1").result(60)
    first = host_pid(state)
    second = start_host(state)
    assert second.wait(30) == 0, "it sees that there is one, and ends"
    assert host_pid(state) == first
    assert state.epoch() == 1


def test_a_host_that_was_replaced_ends(state: StateDirectory, session: sabot_sql.Session) -> None:
    """On a file system without working locks a second one may come up: the number of hosts then ends the first."""
    session.submit("SELECT 1").result(60)
    (first,) = [process for process in hosts_of(state.path) if process.pid == host_pid(state)]
    state.next_epoch()
    first.wait(30)
    assert session.submit("SELECT 2").result(60).fetchall() == [(2,)]


def test_a_host_that_stands_still_is_said_to(
    state: StateDirectory, session: sabot_sql.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = session.submit("SELECT 1")
    handle.result(60)
    monkeypatch.setattr("sabot_sql.detached.host_client._ANSWER_SECONDS", 0.3)
    with stopped(host_pid(state)), pytest.raises(sabot_sql.AgentError) as error:
        handle.state()
    assert error.value.code == HOST_GONE
    assert handle.state().state == "finished"


def test_a_journal_of_another_release_is_refused_in_words(
    state: StateDirectory, session: sabot_sql.Session, numbers: Path
) -> None:
    handle = session.submit(ENDLESS)
    wait_until(lambda: handle.status == "running")
    os.kill(host_pid(state), signal.SIGKILL)
    with closing(sqlite3.connect(state.database, timeout=30)) as database, database:
        changed = database.execute(
            "UPDATE workflow_status SET application_version = ? WHERE workflow_uuid = ?",
            [f"journal-{JOURNAL_VERSION + 1}", handle.query_id],
        )
        assert changed.rowcount == 1
    with pytest.raises(sabot_sql.UsageError, match=f"journal-{JOURNAL_VERSION + 1}") as error:
        handle.result(60)
    assert error.value.code == "JOURNAL_UNREADABLE"
    assert session.submit("SELECT 1").result(60).fetchall() == [(1,)]


def test_the_database_is_locked_for_a_while(state: StateDirectory, session: sabot_sql.Session, numbers: Path) -> None:
    session.submit("SELECT 1").result(60)
    sql = STAGES.format(file=numbers)
    with closing(sqlite3.connect(state.database, timeout=30, isolation_level=None)) as database:
        handle = session.submit(sql)
        database.execute("BEGIN IMMEDIATE")
        time.sleep(3)  # a backup that takes its time: what is simulated
        database.execute("ROLLBACK")
    assert handle.result(60).fetchall() == expected(sql)


def test_a_state_directory_that_cannot_be_used_is_said_to(
    tmp_path: Path, session: sabot_sql.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SABOT_STATE_DIR", str(tmp_path / "file" / "state"))
    with pytest.raises(sabot_sql.ResourceError) as error:
        session.submit("SELECT 1")
    assert error.value.code == STATE_DIRECTORY
    (tmp_path / "open").mkdir(mode=0o755)
    monkeypatch.setenv("SABOT_STATE_DIR", str(tmp_path / "open"))
    with pytest.raises(sabot_sql.ResourceError, match="chmod 700"):
        session.submit("SELECT 1")
    assert session.query("SELECT 1").fetchall() == [(1,)], "interactive queries never look at it"


def test_only_this_user_can_read_the_state(shared_state: StateDirectory, session: sabot_sql.Session) -> None:
    session.submit("SELECT 'secret'").result(60)
    for path in (shared_state.path, *shared_state.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent != shared_state.path, path
    assert stat.S_IMODE(shared_state.path.stat().st_mode) == 0o700


def test_who_has_no_token_is_not_answered(state: StateDirectory, session: sabot_sql.Session) -> None:
    handle = session.submit("SELECT 1")
    handle.result(60)
    token = state.path / "token"
    token.write_text("0" * 64)
    with pytest.raises(sabot_sql.AgentError) as error:
        HostClient(state).ask(DescribeHost(), HostState, start=False)
    assert error.value.code == HOST_GONE


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"SBT1" + b"\xff" * 64, os.urandom(4096)])
def test_nonsense_on_the_socket_harms_nobody(
    data: bytes, shared_state: StateDirectory, session: sabot_sql.Session
) -> None:
    session.submit("SELECT 1").result(60)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
        client.settimeout(10)
        directory = os.open(shared_state.path, os.O_PATH)
        client.connect(f"/proc/self/fd/{directory}/host.sock")
        os.close(directory)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert client.recv(1024) == b""
    assert session.submit("SELECT 2").result(60).fetchall() == [(2,)]


def test_nothing_is_recorded_that_python_would_run(state: StateDirectory, session: sabot_sql.Session) -> None:
    handle = session.submit("SELECT 1")
    handle.result(60)
    wait_until(lambda: not host_is_busy(state))
    with closing(sqlite3.connect(state.database)) as database:
        statuses = database.execute("SELECT serialization, inputs, output FROM workflow_status").fetchall()
        steps = database.execute("SELECT serialization, output FROM operation_outputs").fetchall()
        journal_mode = database.execute("PRAGMA journal_mode").fetchall()
    assert statuses
    assert steps
    for kind, *values in (*statuses, *steps):
        assert kind == "portable_json"
        assert all(json.loads(value) is not None for value in values if value)
    assert journal_mode == [("wal",)]


def host_is_busy(state: StateDirectory) -> bool:
    host = host_state()
    return host is not None and host.running + host.queued > 0


def test_a_host_ends_when_nothing_is_left_to_do(
    state: StateDirectory, session: sabot_sql.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_HOST_IDLE_SECONDS", "1")
    handle = session.submit("SELECT 1")
    assert handle.result(60).fetchall() == [(1,)]
    wait_until(lambda: not hosts_of(state.path))
    assert not state.socket.exists()
    assert handle.result().fetchall() == [(1,)]


def test_a_host_that_cannot_start_says_why(
    state: StateDirectory, session: sabot_sql.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_STATE_DAYS", "many")
    with pytest.raises(sabot_sql.ConfigError, match="SABOT_STATE_DAYS"):
        session.submit("SELECT 1")
    assert not list(state.queries.iterdir())


def test_the_doctor_sees_and_cleans(state: StateDirectory, session: sabot_sql.Session) -> None:
    handle = session.submit("SELECT 1")
    handle.result(60)
    (state.segments / handle.query_id).mkdir()
    (state.segments / handle.query_id / "e0.segments").write_bytes(b"x" * 100)
    abandoned = state.queries / "q-abandoned"
    abandoned.mkdir()
    os.utime(abandoned, (1, 1))
    found = diagnose(state)
    assert found.host is not None
    assert json.loads(json.dumps(found.json()))["host"]["pid"] == host_pid(state)
    assert {Path(item.path).name for item in found.leftovers} == {handle.query_id, "q-abandoned"}
    assert clean(found) == 100
    assert diagnose(state).leftovers == ()
    assert handle.result().fetchall() == [(1,)]
    assert stop_host(state)
    assert diagnose(state).host is None
    with (state.path / "host.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for 6 MiB."""
    directory = tmp_path / "small"
    directory.mkdir(mode=0o700)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", directory], check=False)
    if made.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_a_full_disk_is_an_error_of_the_query_and_of_nothing_else(
    small_disk: Path, session: sabot_sql.Session, numbers: Path
) -> None:
    with state_directory(small_disk / "state"):
        assert session.submit("SELECT 1").result(60).fetchall() == [(1,)]
        hashes = ", ".join(f"hash(i + {n}) AS h{n}" for n in range(8))  # 12 MB that cannot be compressed
        handle = session.submit(f"SELECT {hashes} FROM '{numbers}' ORDER BY h0")
        with pytest.raises(sabot_sql.ResourceError) as error:
            handle.result(60)
        assert error.value.code == "DISK_FULL"
        assert session.query("SELECT 42").fetchall() == [(42,)]
        assert session.submit("SELECT 2").result(60).fetchall() == [(2,)]
