"""The memory and the files of an agent that died: readable as long as a query may need them, then given up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sabot_planner.job.job_graph import JobGraph
from sabot_planner.job.operators import OperatorType, ShuffleEdge, ShuffleEdgeType, StreamOperatorNode
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.agent.process_agent import ProcessAgent
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.coordinator.driver import run_job

SOURCE = "SELECT range % 10 AS k, range AS v FROM range(1000)"
SLOW = "SELECT k, count(*) AS n FROM e1, range(200_000_000) r WHERE r.range % 200_000_000 = k GROUP BY k"


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[AgentPool]:
    config = parse_config(agents=2, isolation="process", memory_limit="256MiB", threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    with start_agents(config, connection.main) as pool:
        yield pool
    connection.close()


def process(pool: AgentPool, index: int) -> ProcessAgent:
    agent = pool.agents[index]
    assert isinstance(agent, ProcessAgent)
    return agent


def arena_of(agent: ProcessAgent) -> int:
    return os.fstat(agent.arena_descriptor).st_ino


def maps(process_id: int, inode: int) -> bool:
    return any(line.split()[4] == str(inode) for line in Path(f"/proc/{process_id}/maps").read_text().splitlines())


def mapped_by(pool: AgentPool, inode: int) -> int:
    processes = [os.getpid(), *(agent.process_id for agent in pool.agents if isinstance(agent, ProcessAgent))]
    return sum(maps(process_id, inode) for process_id in processes)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def kill(agent: ProcessAgent) -> None:
    os.kill(agent.process_id, signal.SIGKILL)
    assert comes_true(lambda: not agent.alive)


def test_it_is_given_up_with_the_query_that_read_it(pool: AgentPool, tmp_path: Path) -> None:
    graph = JobGraph(
        (
            StreamOperatorNode("source", OperatorType.MAP, SOURCE, 4),
            StreamOperatorNode("slow", OperatorType.MAP, SLOW, 2),
        ),
        (ShuffleEdge("e1", "source", "slow", ShuffleEdgeType.HASH, keys=("k",), partitions=4),),
    )
    victim = process(pool, 0)
    arena = arena_of(victim)
    files = next(tmp_path.glob(f"sabot-*/{victim.agent_id}"))
    held: list[bool] = []

    def disturb(snapshot: dict[str, Any]) -> None:
        running = [t for s in snapshot["stages"] if s["id"] == "slow" for t in s["tasks"] if t["state"] == "running"]
        if running and victim.alive:
            os.kill(victim.process_id, signal.SIGKILL)
        held.append(maps(os.getpid(), arena) and files.exists())

    finished = run_job(graph, pool, query_id="q", deadline_ms=60_000, observer=disturb)
    assert finished.stats["retries"] >= 1
    assert all(held)
    assert sorted(pa.table(finished.stream)["n"].to_pylist()) == [400] * 10
    assert comes_true(lambda: mapped_by(pool, arena) == 3), "new agents read what is left of dead ones"
    finished.release()
    del finished
    assert comes_true(lambda: mapped_by(pool, arena) == 0)
    assert not files.exists()


def test_it_is_kept_for_every_query_that_ran_when_it_died(pool: AgentPool) -> None:
    victim = process(pool, 1)
    arena = arena_of(victim)
    pool.enter("a")
    pool.enter("b")
    kill(victim)
    pool.heal()
    pool.enter("later")
    pool.release("a")
    assert comes_true(lambda: mapped_by(pool, arena) == 3)
    pool.release("b")
    assert comes_true(lambda: mapped_by(pool, arena) == 0)
    assert pool.agent("agent-3").alive


def test_it_is_given_up_at_once_between_queries(pool: AgentPool) -> None:
    victims = [process(pool, index) for index in range(2)]
    arenas = [arena_of(victim) for victim in victims]
    before = descriptors()
    for victim in victims:
        kill(victim)
    pool.heal()
    assert not any(maps(os.getpid(), arena) for arena in arenas)
    assert descriptors() == before, "the dead ones' descriptors went with them"
