"""TPC-H on agents of several hosts: network namespaces with a link each, over TLS with a token.

* ``cost``: two agents on two hosts, links as fast as they go, beside two process agents of this host, one thread each:
  the processor time of Flight and TLS against that of shared memory, as a ratio over all queries.
* ``link``: two hosts at ``--mbit``: bytes that left the hosts, and seconds, for each query; once as plans are revised
  while they run, with runtime filters among other things, and once with ``adaptive=False``.
* ``kill``: three hosts at ``--mbit``, an agent killed at a random moment of each query; every answer is compared with
  DuckDB's, and the time with that of the undisturbed query.
* ``many``: ``--agents`` services of this host that run already: the seconds until a session has joined them, and those
  of a query of ``--tasks`` tiny tasks, with the processor time that the session's process takes for a task.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

import sabot_sql

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import processor_seconds
from tests.support import hosts
from tests.support.clusters import Cluster, make
from tests.support.compare import Rows, difference
from tests.support.services import Service, token_file
from tests.support.tpch.data import queries, tpch, views

BAR = 1.15
RECOVERY_BAR = 1.5
MANY_TASKS_SECONDS = 20.0


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 where a bar is missed or an answer is wrong."""
    parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["cost", "link", "kill", "many"])
    parser.add_argument("--scale", type=float, default=1, help="scale factor of TPC-H (1)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds of cost (3)")
    parser.add_argument("--mbit", type=float, default=1000, help="of the links of link and kill (1000)")
    parser.add_argument("--memory", default="2GiB", help="of each agent (2GiB)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which agents are killed (1)")
    parser.add_argument("--agents", type=int, default=64, help="services of many (64)")
    parser.add_argument("--tasks", type=int, default=2000, help="tasks of many (2,000)")
    options = parser.parse_args(arguments)
    if options.what == "many":
        return many(options.agents, options.tasks)
    data = tpch(options.scale)
    if options.what == "cost":
        return cost(data, options.rounds, options.memory)
    if options.what == "link":
        return link(data, options.mbit, options.memory)
    return kill(data, options.mbit, options.memory, random.Random(options.seed))


@contextmanager
def cluster_of(count: int, data: Path, mbit: float | None, memory: str) -> Iterator[Cluster]:
    """Agents with one thread on hosts of their own."""
    with tempfile.TemporaryDirectory() as folder, hosts.hosts(count, mbit=mbit) as network:
        cluster = make(Path(folder), network, data, memory=memory, threads=1, sessions=1)
        try:
            yield cluster
        finally:
            for service in cluster.services:
                service.stop()


def prepare(session: sabot_sql.Session | duckdb.DuckDBPyConnection, data: Path) -> None:
    """Make the tables of TPC-H views over its files."""
    for statement in views(data):
        session.execute(statement)


def cost(data: Path, rounds: int, memory: str) -> int:
    """The ratio of processor times, in interleaved rounds after one that warms up."""
    ratios, spent = [], {"hosts": 0.0, "processes": 0.0}
    with (
        cluster_of(2, data, None, memory) as cluster,
        cluster.connect() as away,
        sabot_sql.connect(agents=2, isolation="process", threads=1, memory_limit="6GiB") as near,
    ):
        sides = {"hosts": away, "processes": near}
        for session in sides.values():
            prepare(session, data)
        for number in range(rounds + 1):
            round_spent = {}
            for name in sorted(sides, reverse=bool(number % 2)):
                before = processor_seconds(os.getpid())
                for sql in queries().values():
                    _distributed(sides[name].query(sql))
                round_spent[name] = processor_seconds(os.getpid()) - before
            if number:
                ratios.append(round_spent["hosts"] / round_spent["processes"])
                spent = {name: spent[name] + seconds for name, seconds in round_spent.items()}
    ratio = statistics.median(ratios)
    print(f"processor time of {rounds} rounds of 22 queries: two hosts {spent['hosts']:.1f} s, ", end="")
    print(f"two processes {spent['processes']:.1f} s; median ratio {ratio:.2f} (at most {BAR})")
    return int(ratio > BAR)


def link(data: Path, mbit: float, memory: str) -> int:
    """Bytes and seconds of each query at ``mbit``, as revised while it runs and as planned."""
    figures: dict[str, list[tuple[int, float]]] = {name: [] for name in queries()}
    with cluster_of(2, data, mbit, memory) as cluster:
        for adaptive in (True, False):
            with cluster.connect(adaptive=adaptive) as session:
                prepare(session, data)
                for name, sql in queries().items():
                    session.query(sql)
                    before, began = _sent(cluster), time.perf_counter()
                    _distributed(session.query(sql))
                    seconds = time.perf_counter() - began
                    figures[name].append((_sent(cluster) - before, seconds))
    print(f"at {mbit:,.0f} Mbit/s: MB sent by two hosts and seconds, revised while it runs | as planned")
    for name, ((sent, seconds), (sent_planned, seconds_planned)) in figures.items():
        print(f"{name}  {sent / 1e6:8.1f} MB {seconds:6.2f} s | {sent_planned / 1e6:8.1f} MB {seconds_planned:6.2f} s")
    for index, title in enumerate(("revised", "as planned")):
        sent, seconds = sum(f[index][0] for f in figures.values()), sum(f[index][1] for f in figures.values())
        print(f"{title}: {sent / 1e6:,.1f} MB, {seconds:.1f} s")
    return 0


def kill(data: Path, mbit: float, memory: str, rng: random.Random) -> int:
    """Each query undisturbed and with an agent killed at a random moment of it, both compared with DuckDB."""
    wrong, slower, reached = [], [], 0
    with cluster_of(3, data, mbit, memory) as cluster, cluster.connect() as session, duckdb.connect() as plain:
        prepare(session, data)
        prepare(plain, data)
        for name, sql in queries().items():
            relation = plain.sql(sql)
            expected = Rows(tuple(relation.columns), tuple(map(str, relation.types)), tuple(relation.fetchall()))
            session.query(sql)
            began = time.perf_counter()
            wrong += _faults(f"{name} undisturbed", expected, session.query(sql))
            undisturbed = time.perf_counter() - began
            victim = rng.choice(cluster.services)
            timer = threading.Timer(rng.uniform(0, undisturbed), victim.kill)
            timer.start()
            began = time.perf_counter()
            result = session.query(sql)
            disturbed = time.perf_counter() - began
            timer.cancel()
            timer.join()
            wrong += _faults(f"{name} with an agent killed", expected, result)
            if victim.process.poll() is not None:
                reached += 1
                slower.append(disturbed / undisturbed)
                victim.start()
                victim.wait_ready()
            print(f"{name}: {undisturbed:.2f} s, {disturbed:.2f} s with an agent killed", flush=True)
    print(f"{reached} of {len(queries())} queries had an agent killed, wrong {len(wrong)}", *wrong, sep="\n")
    if slower:
        print(f"time with an agent killed over undisturbed: median {statistics.median(slower):.2f}, ", end="")
        print(f"most {max(slower):.2f} (aim {RECOVERY_BAR})")
    return int(bool(wrong))


def many(agents: int, tasks: int) -> int:
    """How long many agents take to be joined, and many tasks to be answered."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        given = ["--token-file", str(token_file(folder)), "--memory", "96MiB", "--threads", "1", "--sessions", "1"]
        services: list[Service] = []
        try:
            while len(services) < agents:
                number = len(services)
                started = [
                    Service(folder / f"agent-{i}", options=given) for i in range(number, min(agents, number + 8))
                ]
                services += started
                for service in started:
                    service.wait_ready()
            url = "grpc://" + ",".join(f"127.0.0.1:{service.port}" for service in services)
            options = {"token_file": folder / "token", "agents": agents, "memory_limit": "2GiB", "partitions": tasks}
            with sabot_sql.connect(url, **options) as session:
                joined = session.query("SELECT i FROM range(10) t(i)").plan.json()["times"]["startup_ms"] / 1e3
                began, spent = time.perf_counter(), time.process_time()
                result = session.query("SELECT i, i * 2 FROM range(100000) t(i) WHERE i % 10 = 3")
                seconds, each = time.perf_counter() - began, (time.process_time() - spent) / tasks
                _distributed(result)
                ran = sum(len(stage["tasks"]) for stage in result.plan.json()["stages"])
        finally:
            for service in services:
                service.stop()
    print(f"{agents} agents joined in {joined:.1f} s (aim 5.0); {ran:,} tasks answered in {seconds:.1f} s ", end="")
    print(f"(at most 20.0), {each * 1e3:.2f} ms of the session's processor time each")
    return int(seconds > MANY_TASKS_SECONDS or result.to_arrow_table().num_rows != 10_000)


def _faults(what: str, expected: Rows, result: sabot_sql.Result) -> list[str]:
    _distributed(result)
    found = difference(expected, Rows(tuple(result.columns), tuple(result.types), tuple(result.fetchall())))
    return [f"{what}: {found}"] if found else []


def _distributed(result: sabot_sql.Result) -> None:
    if result.plan.mode == "single":
        raise SystemExit(f"a query did not run on the agents: {result.plan.reason}")


def _sent(cluster: Cluster) -> int:
    return sum(cluster.network.sent_bytes(name) for name in cluster.network.names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
