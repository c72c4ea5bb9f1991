"""A lease is lost by an agent that does not run, not by one that is busy, nor because the session itself was late."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

import sabot_native
import sabot_sql
from sabot_sql.agent import process_agent
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.agent.process_agent import LEASE_SECONDS, ProcessAgent
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    Fragment,
    Outcome,
    QueryContext,
    TaskId,
    TaskReport,
    TaskSpec,
    WriteKind,
    WriteScheme,
)

LONG_TEXT = f"SELECT 1 AS a WHERE 1 IN ({', '.join(map(str, range(500_000)))})"
"""DuckDB's parser reads it for seconds, and keeps Python's lock meanwhile."""

LONGER_TEXT = f"SELECT 1 AS a WHERE 1 IN ({', '.join(map(str, range(1_000_000)))})"
"""As :data:`LONG_TEXT`, for what must happen while the lock is held."""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[AgentPool]:
    config = parse_config(agents=2, isolation="process", memory_limit="512MiB", threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    with start_agents(config, connection.main) as pool:
        yield pool
    connection.close()


def first(pool: AgentPool) -> ProcessAgent:
    agent = pool.agents[0]
    assert isinstance(agent, ProcessAgent)
    return agent


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def submit(agent: ProcessAgent, sql: str) -> list[Outcome]:
    outcomes: list[Outcome] = []
    agent.begin(QueryContext("q"))
    output = EdgeOutput("e", WriteScheme(WriteKind.ONE_PARTITION))
    agent.submit(TaskSpec(TaskId("q", "s", 0, 0), Fragment(sql), (output,)), outcomes.append)
    return outcomes


def test_a_stopped_process_loses_its_lease_in_time(pool: AgentPool) -> None:
    agent = first(pool)
    os.kill(agent.process_id, signal.SIGSTOP)
    began = time.monotonic()
    assert comes_true(lambda: not agent.alive, 10)
    assert LEASE_SECONDS - 0.5 < time.monotonic() - began < 5


def test_a_process_whose_parser_holds_python_s_lock_keeps_its_lease(
    pool: AgentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = 0.6
    with duckdb.connect() as plain:
        assert longest_hold(lambda: plain.extract_statements(LONGER_TEXT)) > lease, "the lock was not held for long"
    monkeypatch.setattr(process_agent, "LEASE_SECONDS", lease)
    agent = first(pool)
    outcomes = submit(agent, LONGER_TEXT)
    assert comes_true(lambda: bool(outcomes), 90)
    assert isinstance(outcomes[0], TaskReport)
    assert agent.alive


def longest_hold(work: Callable[[], object]) -> float:
    """For how many seconds ``work`` keeps Python's lock from another thread at a time."""
    longest, ended = [0.0], threading.Event()

    def watch() -> None:
        last = time.monotonic()
        while not ended.is_set():
            time.sleep(0.002)
            longest[0], last = max(longest[0], time.monotonic() - last), time.monotonic()

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    ended.set()
    watcher.join()
    return longest[0]


def test_a_process_that_runs_but_never_answers_is_ended_in_the_end(
    pool: AgentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_agent, "SILENCE_SECONDS", 0.5)
    agent = first(pool)
    submit(agent, LONGER_TEXT)
    assert comes_true(lambda: not agent.alive, 20)


def hold_the_lock(seconds: float) -> None:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # PyDLL keeps the GIL


def test_a_session_that_holds_python_s_lock_loses_no_agent() -> None:
    with sabot_sql.connect(agents=2, isolation="process", memory_limit="512MiB") as session:
        before = session.query("SELECT count(*) FROM range(1000)")
        pool = session._pools._pool
        assert pool is not None
        agents = pool.agents
        hold_the_lock(LEASE_SECONDS + 3)
        time.sleep(1)
        assert all(agent.alive for agent in agents)
        assert session.query("SELECT count(*) FROM range(1000)").fetchall() == before.fetchall()
        assert pool.agents == agents


STOPPED_SESSION = """
import sys, time
import sabot_sql
session = sabot_sql.connect(agents=2, isolation="process", memory_limit="512MiB")
session.query("SELECT count(*) FROM range(1000)")
pool = session._pools._pool
agents = pool.agents
print("ready", flush=True)
sys.stdin.readline()
time.sleep(1)
print(all(agent.alive for agent in agents), flush=True)
session.close()
"""


def test_a_session_that_was_stopped_loses_no_agent() -> None:
    session = subprocess.Popen(
        [sys.executable, "-c", STOPPED_SESSION], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert session.stdin is not None
    assert session.stdout is not None
    with session, session.stdin, session.stdout:
        assert session.stdout.readline() == "ready\n"
        os.kill(session.pid, signal.SIGSTOP)
        time.sleep(LEASE_SECONDS + 2)
        os.kill(session.pid, signal.SIGCONT)
        session.stdin.write("\n")
        session.stdin.flush()
        assert session.stdout.readline() == "True\n"


def test_a_large_message_to_a_busy_process_does_not_hold_up_the_session(pool: AgentPool) -> None:
    agent = first(pool)
    outcomes = submit(agent, LONG_TEXT)
    comes_true(lambda: agent._asked, 5)
    began = time.monotonic()
    for number in range(20):
        agent.begin(QueryContext(f"q{number}", settings=(("x", "y" * 1_000_000),)))
    assert time.monotonic() - began < 1
    assert comes_true(lambda: bool(outcomes), 90)
    assert isinstance(outcomes[0], TaskReport)
    assert agent.metrics()["outputs"] == 1, "what was held up has arrived, in its order"


def test_a_heartbeat_counts_from_a_question_that_was_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heartbeat = sabot_native.Heartbeat(ours.fileno(), 20)
        assert theirs.recv(1) == b"?"
        assert comes_true(lambda: heartbeat.silent_ms >= 100, 5)
        theirs.send(b"!")
        assert theirs.recv(1) == b"?"
        assert heartbeat.silent_ms < 100
        theirs.send(b"?")
        assert theirs.recv(1) == b"!", "both ends answer"
        heartbeat.stop()


def test_the_heartbeats_of_two_ends_keep_each_other_content() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pair = [sabot_native.Heartbeat(end.fileno(), 20) for end in (ours, theirs)]
        hold_the_lock(0.5)
        assert max(heartbeat.silent_ms for heartbeat in pair) < 200
        for heartbeat in pair:
            heartbeat.stop()
