"""Queries on a cluster of real processes while agents are killed, stopped and cut off: ``python -m tests.soak``.

A seed draws which of ten queries runs, what happens to which agent, when and for how long. Every answer is compared
with DuckDB's. Wrong, failed, hung and leaked are all to be 0: one agent at a time is disturbed, and two others go on.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

import sabot_sql
from sabot_sql.errors import QueryTimeout, SabotSQLError
from tests.support import clusters, hosts
from tests.support.compare import Rows, difference
from tests.support.processes import wait_until

AGENTS = 3
HUNG_SECONDS = 30.0
LEASE_SECONDS = 2.0
_ROWS = 1_200_000
_LEAK_SECONDS = 20.0

_QUERIES = (
    "SELECT g, count(*), sum(v) FROM '{facts}' GROUP BY g ORDER BY g",
    "SELECT k, count(*), min(t), max(v) FROM '{facts}' GROUP BY k",
    "SELECT name, sum(v) FROM '{facts}' JOIN '{keys}' USING (k) WHERE g < 50 GROUP BY name",
    "SELECT count(*) FROM '{facts}' a JOIN '{facts}' b ON a.v = b.v AND a.g = b.g WHERE b.k % 3 = 0",
    "SELECT v, t FROM '{facts}' ORDER BY v DESC, t LIMIT 500",
    "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM '{facts}' QUALIFY n <= 2",
    "SELECT count(DISTINCT t), count(DISTINCT v), avg(v) FROM '{facts}'",
    "SELECT k FROM '{keys}' WHERE k NOT IN (SELECT k FROM '{facts}' WHERE g = 7)",
    "SELECT t, g FROM '{facts}' WHERE k < 1500 UNION SELECT name, k FROM '{keys}'",
    "WITH s AS (SELECT k, sum(v) AS n FROM '{facts}' GROUP BY k) SELECT count(*) FROM s, s z WHERE s.k = z.k + s.n % 9",
)


@dataclass
class Tally:
    """What became of the rounds; everything but ``rounds`` and ``faults`` is to stay empty."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Those that came while their query ran."""
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.wrong or self.failed or self.hung or self.leaked)

    def text(self) -> str:
        """One line, and one for each thing that went wrong."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        line = f"{self.rounds} queries ({faults} while they ran): wrong {len(self.wrong)}, failed {len(self.failed)}"
        line += f", hung over {HUNG_SECONDS:.0f} s {len(self.hung)}, leaked {len(self.leaked)}"
        return "\n".join([line, *self.wrong, *self.failed, *self.hung, *self.leaked])


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to an agent ``after`` so many seconds of a query, ``lasting`` others."""

    kind: str
    victim: int
    after: float
    lasting: float


@dataclass(frozen=True, slots=True)
class Case:
    """A query and what DuckDB answers."""

    sql: str
    expected: Rows


def draw(rng: random.Random) -> Fault:
    """The next fault of a schedule."""
    kind = rng.choice(("none", "kill", "kill", "stop", "cut"))
    return Fault(kind, rng.randrange(AGENTS), rng.uniform(0, 0.25), rng.uniform(0.2, 4.0))


def soak(seed: int, go_on: Callable[[int], bool], say: Callable[[str], None] = lambda _: None) -> Tally:
    """Rounds until ``go_on``, which is given how many there were, says no."""
    rng, tally = random.Random(seed), Tally()
    before = set(threading.enumerate())
    with tempfile.TemporaryDirectory() as directory, hosts.hosts(AGENTS, mbit=1000) as network:
        folder = Path(directory)
        (folder / "data").mkdir()
        cases = _cases(folder / "data")
        cluster = clusters.make(folder, network, folder / "data")
        try:
            with cluster.connect(lease_seconds=LEASE_SECONDS) as session:
                while go_on(tally.rounds):
                    case, fault = rng.choice(cases), draw(rng)
                    began = time.monotonic()
                    _round(session, cluster, case, fault, tally)
                    say(f"{tally.rounds} {fault.kind} {time.monotonic() - began:.1f} s: {case.sql[:60]}")
            _find_leaks(cluster, before, tally)
        finally:
            for service in cluster.services:
                service.stop()
    return tally


def _cases(data: Path) -> list[Case]:
    facts, keys = str(data / "facts-*.parquet"), str(data / "keys.parquet")
    with duckdb.connect() as connection:
        for part in range(AGENTS * 2):
            low, high = part * _ROWS // (AGENTS * 2), (part + 1) * _ROWS // (AGENTS * 2)
            connection.execute(
                "COPY (SELECT hash(i) % 5000 AS k, i % 97 AS g, (i * 7919) % 100003 AS v,"
                " CASE WHEN i % 11 > 0 THEN 'text ' || i % 1000 END AS t"
                f" FROM range({low}, {high}) r(i)) TO '{data}/facts-{part}.parquet'"
            )
        connection.execute(f"COPY (SELECT i AS k, 'name ' || i % 300 AS name FROM range(6000) r(i)) TO '{keys}'")
        cases = []
        for query in _QUERIES:
            sql = query.format(facts=facts, keys=keys)
            relation = connection.sql(sql)
            names, types = tuple(relation.columns), tuple(map(str, relation.types))
            cases.append(Case(sql, Rows(names, types, tuple(relation.fetchall()))))
    return cases


def _round(session: sabot_sql.Session, cluster: clusters.Cluster, case: Case, fault: Fault, tally: Tally) -> None:
    tally.rounds += 1
    said = f"round {tally.rounds}, {fault}: {case.sql}"
    began = time.monotonic()
    with _disturbed(cluster, fault) as happened:
        try:
            result = session.query(case.sql, timeout=2 * HUNG_SECONDS, scope={})
        except QueryTimeout:
            tally.hung.append(said)
        except SabotSQLError as error:
            tally.failed.append(f"{said}: {error}")
        else:
            found = Rows(tuple(result.columns), tuple(result.types), tuple(result.fetchall()))
            ordered = [1] * len(found.rows) if "ORDER BY g" in case.sql or "LIMIT" in case.sql else None
            if result.plan.mode == "single":
                tally.failed.append(f"{said}: no agent answered it: {result.plan.reason}")
            wrong = difference(case.expected, found, ordered)
            if wrong:
                tally.wrong.append(f"{said}: {wrong}")
            elif time.monotonic() - began > HUNG_SECONDS:
                tally.hung.append(said)
        tally.faults[fault.kind if happened.is_set() else "none"] += 1


@contextmanager
def _disturbed(cluster: clusters.Cluster, fault: Fault) -> Iterator[threading.Event]:
    """The fault happens within, which sets the event, and is mended at its end, early if need be."""
    over, happened = threading.Event(), threading.Event()
    victim, link = cluster.services[fault.victim], cluster.network.names[fault.victim]

    def disturb() -> None:
        if fault.kind == "none" or over.wait(fault.after):
            return
        happened.set()
        if fault.kind == "kill":
            victim.kill()
        elif fault.kind == "stop":
            victim.kill(signal.SIGSTOP)
            over.wait(fault.lasting)
            victim.kill(signal.SIGCONT)
        elif fault.kind == "cut":
            cluster.network.cut(link)
            over.wait(fault.lasting)
            cluster.network.mend(link)

    disturbing = threading.Thread(target=disturb, name="fault")
    disturbing.start()
    try:
        yield happened
    finally:
        over.set()
        disturbing.join()
        if fault.kind == "kill" and happened.is_set():
            victim.process.wait(10)
            victim.start()
            victim.wait_ready()


def _find_leaks(cluster: clusters.Cluster, before: set[threading.Thread], tally: Tally) -> None:
    """What a session that was closed has left in this process or at the services."""

    def left() -> list[str]:
        files = [f"{path}" for service in cluster.services for path in service.left_behind()]
        own = [thread.name for thread in set(threading.enumerate()) - before]
        return files + [f"thread {name}" for name in own if name.startswith("sabot")]

    try:
        wait_until(lambda: not left(), _LEAK_SECONDS)
    except AssertionError:
        tally.leaked += left()


def main(arguments: Sequence[str]) -> int:
    """Run for some minutes; 1 where anything went wrong, with the seed that shows it again."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="how long (30)")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; drawn and told by default")
    options = parser.parse_args(arguments)
    missing = hosts.why_not()
    if missing is not None:
        print(f"no hosts to run on: {missing}", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    end = time.monotonic() + 60 * options.minutes
    tally = soak(seed, lambda _: time.monotonic() < end, lambda line: print(line, flush=True))
    print(tally.text())
    return int(not tally.clean)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
