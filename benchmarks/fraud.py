"""The fraud-detection job on several agents, beside the same work as one query of DuckDB with as many threads.

Each round runs both, the order swapped from round to round; a first round warms up and is not counted. Every run must
find the planted frauds and nothing else. With ``--memory-limit`` the budget can be made so small that edges spill.

``--hosts N`` runs it on N agents with a host each: network namespaces with a link of ``--mbit``, over TLS; the memory
limit is then of each agent. ``--kill`` kills an agent in every run, once it has computed some of the first tasks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sabot_sql
from benchmarks.memory import peak_while
from examples.fraud_detection import FraudData, fraud_job, one_query, transactions
from sabot_sql import Session
from sabot_sql.config import parse_bytes

BAR = 2.0
MEMORY_BAR = 1.15
"""As that of benchmarks/memory_budget.py."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds; ``ratio`` is the job's time over DuckDB's."""

    rows: int
    frauds: int
    job_ms: float
    duckdb_ms: float
    ratio: float
    rows_per_second: float
    shuffled_bytes: int
    spilled_bytes: int
    retries: int


def main(arguments: Sequence[str]) -> int:
    """Measure, print the figures and, if asked, write JSON; 1 where the ratio is above the bar."""
    parser = argparse.ArgumentParser(prog="fraud.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="transactions (10,000,000)")
    parser.add_argument("--agents", type=int, default=4, help="agents (4)")
    parser.add_argument("--isolation", choices=["thread", "process"], default="process")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (3)")
    parser.add_argument("--memory-limit", default=None, help="of the whole session; with --hosts of each agent")
    parser.add_argument("--hosts", type=int, default=0, metavar="N", help="agents on N network namespaces")
    parser.add_argument("--mbit", type=float, default=1000, help="of the links of the hosts (1000)")
    parser.add_argument("--kill", action="store_true", help="kill an agent in every run")
    parser.add_argument("--peak", action="store_true", help="run the job once more, alone, and measure its memory")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    if options.peak and options.hosts:
        parser.error("--peak measures the processes of this host")
    if options.kill and not options.hosts and options.isolation != "process":
        parser.error("--kill needs agents that are processes")
    with tempfile.TemporaryDirectory() as directory:
        data = transactions(Path(directory), options.rows)
        with session_of(options, Path(directory)) as (session, victims):
            figures = measured(data, options, session, victims)
        peak_bytes = _peak_of_a_process(data, options) if options.peak else 0
    print(f"{figures.rows:,} transactions, {figures.frauds:,} frauds, all found and nothing else in every run")
    where = f"{options.hosts} hosts" if options.hosts else f"{options.agents} agents"
    print(f"job on {where}: {figures.job_ms:,.0f} ms, {figures.rows_per_second:,.0f} rows/s", end="")
    print(f", {figures.shuffled_bytes:,} bytes shuffled, {figures.spilled_bytes:,} spilled", end="")
    print(f", {figures.retries} attempts lost with agents that were killed" if options.kill else "")
    print(f"one query of DuckDB: {figures.duckdb_ms:,.0f} ms; ratio {figures.ratio:.2f} (at most {BAR:.1f})")
    over = False
    if options.peak:
        limit_bytes = parse_bytes("memory_limit", options.memory_limit or "2GiB")
        over = peak_bytes > MEMORY_BAR * limit_bytes
        print(f"memory: {peak_bytes / 1e6:,.0f} MB at most, of {limit_bytes / 1e6:,.0f} (bar {MEMORY_BAR})")
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(figures), indent=2))
    return int(figures.ratio > BAR or over)


def _peak_of_a_process(data: FraudData, options: argparse.Namespace) -> int:
    """The most memory that a process which runs the job, and its agents, had at a time (PSS)."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_run_alone, args=(data, options.agents, options.isolation, options.memory_limit or "2GiB")
    )
    process.start()
    assert process.pid is not None
    peak = peak_while(process.pid, process.is_alive)
    if process.exitcode != 0:
        raise SystemExit(f"the job failed with {process.exitcode}")
    return peak.pss_bytes


def _run_alone(data: FraudData, agents: int, isolation: Literal["thread", "process"], memory_limit: str) -> None:
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit=memory_limit) as session:
        found = set(session.run_job(fraud_job(data)).pl().select("kind", "user_id", "id").rows())
    if found != data.planted:
        raise SystemExit(2)


@contextmanager
def session_of(options: argparse.Namespace, folder: Path) -> Iterator[tuple[Session, Victims]]:
    """A session on the agents that were asked for, and who of them may be killed."""
    if not options.hosts:
        with sabot_sql.connect(
            agents=options.agents, isolation=options.isolation, memory_limit=options.memory_limit
        ) as session:
            yield session, Victims(lambda: os.kill(_agent_processes()[0], signal.SIGKILL), lambda: None)
        return
    from tests.support import hosts  # it needs to be allowed to make networks
    from tests.support.clusters import make

    with tempfile.TemporaryDirectory() as away, hosts.hosts(options.hosts, mbit=options.mbit) as network:
        memory = options.memory_limit or "1GiB"
        cluster = make(Path(away), network, folder, memory=memory, sessions=1)

        def replace() -> None:
            cluster.services[0].stop()
            cluster.services[0].start()
            cluster.services[0].wait_ready()

        try:
            with cluster.connect() as session:
                yield session, Victims(cluster.services[0].kill, replace)
        finally:
            for service in cluster.services:
                service.stop()


def _agent_processes() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "agent" in " ".join(child.cmdline())]


@dataclass
class Victims:
    """``kill`` ends an agent at once, ``replace`` makes it good before the next run."""

    kill: Callable[[], None]
    replace: Callable[[], None]

    def observer(self) -> Callable[[Mapping[str, Any]], None]:
        """Kills one agent of a run, once the first of the tasks that enrich have committed."""
        killed: list[bool] = []

        def observe(plan: Mapping[str, Any]) -> None:
            tasks = [task["state"] for stage in plan["stages"] if stage["id"] == "enrich" for task in stage["tasks"]]
            if not killed and plan["state"] == "running" and "finished" in tasks:
                killed.append(True)
                self.kill()

        return observe


def measured(data: FraudData, options: argparse.Namespace, session: Session, victims: Victims) -> Figures:
    """The medians, of runs that were right."""
    cores = len(os.sched_getaffinity(0))
    job, query = fraud_job(data), f"SELECT kind, user_id, id FROM ({one_query(data)})"
    stats: dict[str, int] = {"retries": 0}
    with duckdb.connect(config={"threads": cores}) as plain:

        def by_job() -> set[tuple[object, ...]]:
            result = session.run_job(job, observer=victims.observer() if options.kill else None)
            stats.update(shuffled=result.stats["bytes_shuffled"], spilled=result.stats["spilled_bytes"])
            stats["retries"] += result.stats["retries"]
            return set(result.pl().select("kind", "user_id", "id").rows())

        def by_query() -> set[tuple[object, ...]]:
            return set(plain.execute(query).fetchall())

        times: dict[Callable[[], set[tuple[object, ...]]], list[float]] = {by_job: [], by_query: []}
        for number in range(options.rounds + 1):
            for run in (by_job, by_query) if number % 2 else (by_query, by_job):
                began = time.perf_counter()
                found = run()
                elapsed_ms = (time.perf_counter() - began) * 1e3
                if found != data.planted:
                    raise SystemExit(f"{len(data.planted - found)} missed, {len(found - data.planted)} are none")
                if number:
                    times[run].append(elapsed_ms)
                if options.kill and run is by_job:
                    victims.replace()
    job_ms, duckdb_ms = (statistics.median(times[run]) for run in (by_job, by_query))
    return Figures(
        options.rows,
        len(data.planted),
        job_ms,
        duckdb_ms,
        job_ms / duckdb_ms,
        options.rows / job_ms * 1e3,
        stats["shuffled"],
        stats["spilled"],
        stats["retries"],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
