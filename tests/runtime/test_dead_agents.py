"""The memory and the files of an agent that died: readable as long as a query may need them, then given up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sabot_sql
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, ShuffleEdge, ShuffleEdgeType
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.agent.process_agent import ProcessAgent
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.coordinator.driver import run_job
from sabot_sql.errors import AgentError

SOURCE = "SELECT range % 10 AS k, range AS v FROM range(1000)"
SLOW = "SELECT k, count(*) AS n FROM e1, range(200_000_000) r WHERE r.range % 200_000_000 = k GROUP BY k"


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[AgentPool]:
    config = parse_config(agents=2, isolation="process", memory_limit="512MiB", threads=1, spill_directory=tmp_path)
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
    """Whether it does within half a minute, which is long even where processes have to start on a busy machine."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def kill(agent: ProcessAgent) -> None:
    os.kill(agent.process_id, signal.SIGKILL)
    assert comes_true(lambda: not agent.alive)


def test_it_is_given_up_with_the_query_that_read_it(pool: AgentPool, tmp_path: Path) -> None:
    graph = OperatorGraph(
        (
            Operator("source", OperatorType.MAP, SOURCE, 4),
            Operator("slow", OperatorType.MAP, SLOW, 2),
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
    assert comes_true(lambda: len(pool.agents) == 2)
    assert not any(maps(os.getpid(), arena) for arena in arenas)
    # One whose start took long is introduced while this looks.
    # The first ones may have been introducing each other when these were counted: that takes some for a moment.
    assert comes_true(lambda: descriptors() <= before), "the dead ones' descriptors went with them"


_EXITING = 0x4
"""Of the flags of a process: it is about to end."""
_KILLED = 1 << (signal.SIGKILL - 1)


def is_ending(process: int) -> bool:
    """Whether a process has been killed, although the kernel has not yet come to end it."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    pending = [int(line.split()[1], 16) for line in status if line.startswith(("SigPnd", "ShdPnd"))]
    flags = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[6])
    return bool(flags & _EXITING) or any(signals & _KILLED for signals in pending)


def children() -> set[int]:
    """Agent processes of this one that have not ended."""
    found = set()
    ids: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile; so may a process
            ids += (task / "children").read_text().split()
    for child in ids:
        with contextlib.suppress(OSError):
            if b"process_main" in Path(f"/proc/{child}/cmdline").read_bytes() and not is_ending(int(child)):
                found.add(int(child))
    return found


def test_a_storm_of_kills_makes_no_wrong_answer_and_never_more_agents_than_asked_for() -> None:
    dice = random.Random(8)
    over = threading.Event()
    most = 0
    killed = 0
    with sabot_sql.connect(agents=2, isolation="process", memory_limit="512MiB", threads=1) as session:
        sql = "SELECT a.range % 100 AS k, count(*) AS n FROM range(2_000_000) a GROUP BY ALL"
        expected = sorted(session.query(sql).fetchall())

        def storm() -> None:
            nonlocal most, killed
            due = time.monotonic() + 0.3
            while not over.wait(0.01):
                alive = children()
                most = max(most, len(alive))
                if alive and time.monotonic() > due:
                    with contextlib.suppress(OSError):
                        os.kill(
                            dice.choice(sorted(alive)), dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
                        )
                        killed += 1
                    due = time.monotonic() + dice.uniform(0.2, 0.8)

        storming = threading.Thread(target=storm)
        storming.start()
        answered = 0
        deadline = time.monotonic() + 90
        while (killed <= 10 or answered <= 3) and time.monotonic() < deadline:
            # Where every attempt of a task is killed that is an error; a wrong row or a hang it is never.
            with contextlib.suppress(AgentError):
                assert sorted(session.query(sql, timeout=30).fetchall()) == expected
                answered += 1
        over.set()
        storming.join()
        assert killed > 10
        assert answered > 3
        assert most <= 2
        assert comes_true(lambda: len(children()) <= 2)
        assert sorted(session.query(sql).fetchall()) == expected
        assert len(children()) == 2
    assert comes_true(lambda: not children())


def test_an_agent_that_is_killed_while_the_first_ones_start_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_ready, killed = ProcessAgent.wait_ready, []

    def kill_one(agent: ProcessAgent, check: Callable[[], None]) -> None:
        if not killed:
            killed.append(agent.agent_id)
            os.kill(agent.process_id, signal.SIGKILL)
        wait_ready(agent, check)

    monkeypatch.setattr(ProcessAgent, "wait_ready", kill_one)
    with sabot_sql.connect(agents=2, isolation="process", memory_limit="1GiB") as session:
        session.execute("CREATE TABLE t AS SELECT range AS i FROM range(300000)")
        assert session.query("SELECT i % 3 AS k, count(*) AS n FROM t GROUP BY k ORDER BY k").fetchall() == [
            (0, 100_000),
            (1, 100_000),
            (2, 100_000),
        ]
        assert killed == ["agent-1"]
        assert len(children()) == 2
    assert comes_true(lambda: not children())


def test_a_query_whose_agents_all_die_and_cannot_be_replaced_ends_with_an_error(
    pool: AgentPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out by the end of their sockets, and by launches that fail."""
    endless = "SELECT count(*) AS n FROM range(100_000_000_000) t(i) WHERE i % 7 = 3"
    graph = OperatorGraph((Operator("slow", OperatorType.MAP, endless, 2),), ())
    killed: list[float] = []

    def disturb(snapshot: dict[str, Any]) -> None:
        if snapshot["state"] == "running" and not killed:
            monkeypatch.setattr(pool._crew, "_config_of", lambda name: 1 / 0)
            for agent in pool.agents:
                assert isinstance(agent, ProcessAgent)
                os.kill(agent.process_id, signal.SIGKILL)
            killed.append(time.monotonic())

    with pytest.raises(AgentError):
        run_job(graph, pool, query_id="q", deadline_ms=60_000, observer=disturb)
    assert time.monotonic() - killed[0] < 10


def test_a_stopped_agent_s_task_is_run_by_another(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            Operator("source", OperatorType.MAP, SOURCE, 4),
            Operator("slow", OperatorType.MAP, SLOW, 2),
        ),
        (ShuffleEdge("e1", "source", "slow", ShuffleEdgeType.HASH, keys=("k",), partitions=4),),
    )
    victim = process(pool, 0)
    stopped: list[float] = []

    def disturb(snapshot: dict[str, Any]) -> None:
        running = [t for s in snapshot["stages"] if s["id"] == "slow" for t in s["tasks"] if t["state"] == "running"]
        if any(task["agent"] == victim.agent_id for task in running) and not stopped:
            os.kill(victim.process_id, signal.SIGSTOP)
            stopped.append(time.monotonic())

    finished = run_job(graph, pool, query_id="q", deadline_ms=60_000, observer=disturb)
    assert stopped
    assert finished.stats["retries"] >= 1
    assert sorted(pa.table(finished.stream)["n"].to_pylist()) == [400] * 10
    finished.release()
    assert len(pool.agents) == 2
