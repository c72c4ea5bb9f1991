"""What DBOS records lies in a PostgreSQL: real, killed, and back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import sabot_sql
from sabot_sql.detached.host_client import DATABASE_DOWN, HostClient
from sabot_sql.detached.known_queries import host_state
from sabot_sql.detached.messages import DescribeHost, HostState
from sabot_sql.detached.state_directory import StateDirectory
from tests.support.postgres import Server, binaries, server
from tests.support.processes import wait_until

PROGRAMS = binaries()

pytestmark = pytest.mark.skipif(
    PROGRAMS is None and "CI" not in os.environ,
    reason="no PostgreSQL is installed (Debian: apt-get install postgresql)",
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    assert PROGRAMS is not None
    with server(PROGRAMS) as running:
        yield running


@pytest.fixture
def recorded_there(state: StateDirectory, postgres: Server, monkeypatch: pytest.MonkeyPatch) -> StateDirectory:
    monkeypatch.setenv("SABOT_STATE_DATABASE", postgres.url)
    return state


def test_a_query_survives_its_host(recorded_there: StateDirectory, session: sabot_sql.Session, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT range AS i FROM range(100000)) TO '{file}' (ROW_GROUP_SIZE 10000)")
    sql = f"SELECT i % 10 AS k, count(*), sum(i) FROM '{file}' GROUP BY k ORDER BY k"
    handle = session.submit(sql)
    host = HostClient(recorded_there).ask(DescribeHost(), HostState)
    assert host.database.startswith("postgresql://127.0.0.1:")
    assert not recorded_there.database.exists()
    os.kill(host.pid, signal.SIGKILL)
    with duckdb.connect() as connection:
        assert handle.result(60).fetchall() == connection.execute(sql).fetchall()


def test_a_database_that_is_down_makes_durable_queries_pause_and_no_others(
    recorded_there: StateDirectory, session: sabot_sql.Session, postgres: Server
) -> None:
    session.submit("SELECT 1").result(60)
    slow = session.submit("SELECT count(*) FROM range(20000) a, range(10000) b WHERE hash(a.range + b.range) % 2 = 0")
    wait_until(lambda: slow.status == "running")
    postgres.stop()
    try:
        assert session.query("SELECT 42").fetchall() == [(42,)]
        with pytest.raises(sabot_sql.AgentError) as error:
            session.submit("SELECT 2")
        assert error.value.code == DATABASE_DOWN
        time.sleep(2)  # an outage takes its time: what is simulated
    finally:
        postgres.start()
    assert len(slow.result(90).fetchall()) == 1
    assert session.submit("SELECT 3").result(60).fetchall() == [(3,)]
    wait_until(lambda: (host := host_state()) is not None and host.running == 0)
