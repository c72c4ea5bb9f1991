from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql import ConfigError, QueryCancelled, QueryTimeout, Session, SessionClosed

LONG_QUERY = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"


def test_a_deadline_stops_a_query_and_leaves_the_session_usable(session: Session) -> None:
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        session.query(LONG_QUERY, timeout=0.3)
    assert time.monotonic() - began < 5
    assert session.query("SELECT 1").fetchall() == [(1,)]


def test_a_cancelled_query_stops_soon(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a FROM range(200000)")
    sql = "SELECT count(*) FROM t x JOIN t y ON x.a % 11 = y.a % 7 AND x.a * y.a % 13 = 5"
    threading.Timer(0.5, session.cancel).start()
    began = time.monotonic()
    with pytest.raises(QueryCancelled):
        session.query(sql)
    assert time.monotonic() - began < 5
    assert session.running() == ()
    assert session.query("SELECT count(*) FROM t").fetchall() == [(200000,)]


def test_a_query_that_waits_for_another_can_be_stopped(single: Session) -> None:
    def run_long() -> None:
        with pytest.raises(QueryCancelled):
            single.query(LONG_QUERY)

    other = threading.Thread(target=run_long)
    other.start()
    while not single.running():
        time.sleep(0.01)
    time.sleep(0.2)
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        single.query("SELECT 1", timeout=0.2)
    assert time.monotonic() - began < 2
    single.cancel()
    other.join(10)
    assert single.query("SELECT 1").fetchall() == [(1,)]


def test_ctrl_c_stops_the_query_and_not_the_session(single: Session) -> None:
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        single.query(LONG_QUERY)
    assert time.monotonic() - began < 3
    assert single.query("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_limit_that_is_no_time_is_refused(single: Session, timeout: float) -> None:
    with pytest.raises(ConfigError):
        single.query("SELECT 1", timeout=timeout)


def test_a_closed_session_says_so_and_its_results_live_on() -> None:
    session = sabot_sql.connect()
    result = session.query("SELECT 1::HUGEINT AS a")
    session.close()
    session.close()
    assert session.closed
    for use in (
        lambda: session.query("SELECT 1"),
        lambda: session.explain("SELECT 1"),
        lambda: session.register("t", result),
    ):
        with pytest.raises(SessionClosed):
            use()
    assert result.fetchall() == [(1,)]
    assert "closed" in repr(session)


def test_queries_of_several_threads_do_not_mix(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a FROM range(1000)")
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = session.query("SELECT count(*) FROM t WHERE a % 8 = $n", {"n": number}).fetchall()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: [(125,)] for number in range(8)}


def test_changes_wait_for_the_tasks_of_a_query(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a, 1 AS v FROM range(100000)")
    wrong: list[Any] = []

    def change() -> None:
        for _ in range(5):
            session.execute("UPDATE t SET v = v + 1")

    writer = threading.Thread(target=change)
    writer.start()
    while writer.is_alive():
        rows = session.query("SELECT min(v), max(v), count(*) FROM t").fetchall()
        if rows[0][0] != rows[0][1] or rows[0][2] != 100000:
            wrong.append(rows)
    writer.join()
    assert wrong == []


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with sabot_sql.connect(agents=2, isolation="process", spill_directory=tmp_path) as session:
        session.register("t", pa.table({"a": range(1000)}))
        assert session.query("SELECT count(*) FROM t").fetchall() == [(1000,)]
        for entry in tmp_path.iterdir():
            assert entry.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_session_ends_its_agents(tmp_path: Path) -> None:
    session = sabot_sql.connect(agents=2, spill_directory=tmp_path)
    session.register("t", pa.table({"a": range(1000)}))
    session.query("SELECT count(*) FROM t")
    del session
    give_up = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < give_up:
        gc.collect()
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_directories_of_dead_sessions_are_swept(tmp_path: Path) -> None:
    stale = tmp_path / "sabot-999999999-1-abc"
    stale.mkdir()
    (stale / "segment").write_text("x")
    other = tmp_path / "somebody-else"
    other.mkdir()
    with sabot_sql.connect(agents=2, spill_directory=tmp_path) as session:
        session.register("t", pa.table({"a": [1]}))
        session.query("FROM t")
    assert list(tmp_path.iterdir()) == [other]
