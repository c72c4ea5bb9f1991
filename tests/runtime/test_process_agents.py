"""Agent processes: how they start, what they refuse, and that none outlives its session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

import sabot_native
from sabot_sql.agent import process_agent
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.agent_instance import AgentInstance, InstanceConfig
from sabot_sql.agent.pool import start_agents
from sabot_sql.agent.process_agent import ProcessAgent, agent_directories
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.errors import AgentError, SessionClosed
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    FailureKind,
    Fragment,
    Outcome,
    QueryContext,
    TaskFailure,
    TaskId,
    TaskReport,
    TaskSpec,
    WriteKind,
    WriteScheme,
)
from sabot_sql.protocol.wire import Frame

SESSION = """
import sys, time
from sabot_sql.agent.pool import start_agents
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config

config = parse_config(agents=2, isolation="process", memory_limit="512MiB", threads=1, spill_directory=sys.argv[1])
pool = start_agents(config, Connection(config, sys.argv[1] + "/duckdb").main)
print(*(agent.process_id for agent in pool.agents), flush=True)
time.sleep(60)
"""


def instance_config(directory: Path) -> InstanceConfig:
    spill, temporary = agent_directories(directory, "agent-1")
    return InstanceConfig("agent-1", 16 << 20, spill, temporary, 1, 64 << 20)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ProcessAgent]:
    agent = ProcessAgent(instance_config(tmp_path))
    agent.wait_ready()
    yield agent
    agent.close()


def outcome_of(agent: ProcessAgent, query_id: str, attempt: int = 0, sql: str = "SELECT 1 AS a") -> Outcome:
    outcomes: list[Outcome] = []
    output = EdgeOutput("e", WriteScheme(WriteKind.ONE_PARTITION))
    agent.submit(TaskSpec(TaskId(query_id, "s", 0, attempt), Fragment(sql), (output,)), outcomes.append)
    deadline = time.monotonic() + 10
    while not outcomes and time.monotonic() < deadline:
        time.sleep(0.005)
    (outcome,) = outcomes
    return outcome


def failure_of(agent: ProcessAgent, query_id: str, attempt: int = 0) -> FailureKind:
    outcome = outcome_of(agent, query_id, attempt)
    assert isinstance(outcome, TaskFailure)
    return outcome.kind


def is_running(process_id: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


def test_work_of_an_unknown_query_is_refused(agent: ProcessAgent) -> None:
    assert failure_of(agent, "never heard of") is FailureKind.STALE


def test_work_of_a_released_query_is_refused(agent: ProcessAgent) -> None:
    agent.begin(QueryContext("q"))
    assert isinstance(outcome_of(agent, "q"), TaskReport)
    agent.release("q")
    assert failure_of(agent, "q") is FailureKind.STALE
    assert agent.metrics()["outputs"] == 0


def test_an_attempt_older_than_a_known_one_is_refused(agent: ProcessAgent) -> None:
    agent.begin(QueryContext("q"))
    assert isinstance(outcome_of(agent, "q", attempt=1), TaskReport)
    assert failure_of(agent, "q", attempt=0) is FailureKind.STALE
    assert isinstance(outcome_of(agent, "q", attempt=2), TaskReport)


def test_a_session_that_speaks_nonsense_is_left(agent: ProcessAgent) -> None:
    agent.begin(QueryContext("q"))
    agent._send(Frame("dance"))
    assert failure_of(agent, "q") is FailureKind.AGENT_DIED
    assert not agent.alive


def test_what_a_dying_process_said_is_told(agent: ProcessAgent) -> None:
    agent._send(Frame("dance"))
    outcome = outcome_of(agent, "q")
    assert isinstance(outcome, TaskFailure)
    assert isinstance(outcome.error, AgentError)
    assert "dance" in (outcome.error.remote_message or "")


def test_a_process_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_agent, "PROTOCOL_VERSION", 99)
    agent = ProcessAgent(instance_config(tmp_path))
    with pytest.raises(AgentError, match="speaks version 1, this session 99"):
        agent.wait_ready()
    agent.close()
    assert not is_running(agent.process_id)


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    config = instance_config(tmp_path)
    (tmp_path / "file").touch()
    broken = InstanceConfig("agent-1", config.shuffle_bytes, str(tmp_path / "file"), config.temp_directory, 1, 64 << 20)
    agent = ProcessAgent(broken)
    with pytest.raises(AgentError) as caught:
        agent.wait_ready()
    agent.close()
    assert "file" in (caught.value.remote_message or "")


def test_no_process_outlives_a_killed_session_and_its_files_are_swept(tmp_path: Path) -> None:
    session = subprocess.Popen([sys.executable, "-c", SESSION, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert session.stdout is not None
    with session.stdout:
        process_ids = [int(word) for word in session.stdout.readline().split()]
        assert len(process_ids) == 2
        assert all(map(is_running, process_ids))
        session.kill()
        session.wait(5)
    deadline = time.monotonic() + 1
    while any(map(is_running, process_ids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, process_ids))
    (left,) = tmp_path.iterdir()
    assert left.stat().st_mode & 0o777 == 0o700

    config = parse_config(agents=1, isolation="thread", memory_limit="256MiB", spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    with start_agents(config, connection.main):
        assert not left.exists()
    connection.close()


def test_ctrl_c_in_a_terminal_does_not_reach_agents(agent: ProcessAgent) -> None:
    assert os.getpgid(agent.process_id) != os.getpgid(0)
    os.kill(agent.process_id, 0)
    agent.begin(QueryContext("q"))
    assert isinstance(outcome_of(agent, "q"), TaskReport)


def test_the_command_line_carries_a_descriptor_s_number_and_nothing_else(agent: ProcessAgent) -> None:
    command = Path(f"/proc/{agent.process_id}/cmdline").read_bytes().split(b"\0")
    assert command[1:4] == [b"-P", b"-m", b"sabot_sql.agent.process_main"]
    assert command[4].isdigit()


def test_a_killed_process_answers_for_its_work(agent: ProcessAgent) -> None:
    agent.begin(QueryContext("q"))
    outcomes: list[Outcome] = []
    sql = "SELECT count(*) AS n FROM range(10_000_000) a, range(10_000_000) b WHERE a.range + b.range = -1"
    output = EdgeOutput("e", WriteScheme(WriteKind.ONE_PARTITION))
    agent.submit(TaskSpec(TaskId("q", "s", 0, 0), Fragment(sql), (output,)), outcomes.append)
    time.sleep(0.1)
    began = time.monotonic()
    os.kill(agent.process_id, signal.SIGKILL)
    while not outcomes and time.monotonic() - began < 2:
        time.sleep(0.005)
    assert time.monotonic() - began < 1
    (outcome,) = outcomes
    assert isinstance(outcome, TaskFailure)
    assert outcome.kind is FailureKind.AGENT_DIED
    assert "killed by signal 9" in outcome.error.message


def test_an_agent_that_starts_while_its_pool_closes_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(agents=1, isolation="process", memory_limit="256MiB", threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    started: list[ProcessAgent] = []
    with start_agents(config, connection.main) as pool:
        (first,) = pool.agents
        start = pool._start

        def start_and_close(count: int, check: Callable[[], None]) -> list[Agent]:
            new = start(count, check)
            started.extend(agent for agent in new if isinstance(agent, ProcessAgent))
            pool.close()
            return new

        monkeypatch.setattr(pool, "_start", start_and_close)
        pool.enter("q")
        pool.lost(first.agent_id)
        deadline = time.monotonic() + 10
        while not (started and started[0].ended) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert [agent.ended for agent in started] == [True]
        with pytest.raises(SessionClosed):
            pool.heal()
    connection.close()


def test_an_instance_that_may_write_serves_no_other_query(tmp_path: Path) -> None:
    sink, spill = tmp_path / "sink", tmp_path / "spill"
    sink.mkdir()
    spill.mkdir()
    manager = sabot_native.ShuffleManager("a", budget_bytes=4 << 20, spill_directory=str(spill))
    config = InstanceConfig("a", 4 << 20, str(spill), str(tmp_path / "temp"), 1, 64 << 20)
    instance = AgentInstance(config, manager)
    copy = "COPY (SELECT 1 AS one) TO '{}/x.csv'"
    with instance.runner(QueryContext("q1", sink=str(sink))) as runner:
        runner._connection.execute(copy.format(sink))
        with pytest.raises(duckdb.PermissionException):
            runner._connection.execute(copy.format(tmp_path))
    with instance.runner(QueryContext("q2")) as runner, pytest.raises(duckdb.PermissionException):
        runner._connection.execute(copy.format(sink))
    instance.close()
    manager.close()
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["x.csv"]
