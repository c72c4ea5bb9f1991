"""The fraud-detection job on several agents, beside the same work as one query of DuckDB with as many threads.

Each round runs both, the order swapped from round to round; a first round warms up and is not counted. Every run must
find the planted frauds and nothing else. With ``--memory-limit`` the budget can be made so small that edges spill.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sabot_sql
from examples.fraud_detection import FraudData, fraud_job, one_query, transactions

BAR = 2.0


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


def main(arguments: Sequence[str]) -> int:
    """Measure, print the figures and, if asked, write JSON; 1 where the ratio is above the bar."""
    parser = argparse.ArgumentParser(prog="fraud.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="transactions (10,000,000)")
    parser.add_argument("--agents", type=int, default=4, help="agents (4)")
    parser.add_argument("--isolation", choices=["thread", "process"], default="process")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (3)")
    parser.add_argument("--memory-limit", default=None, help="of the whole session")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        data = transactions(Path(directory), options.rows)
        figures = measured(data, options)
    print(f"{figures.rows:,} transactions, {figures.frauds:,} frauds, all found and nothing else in every run")
    print(f"job on {options.agents} agents: {figures.job_ms:,.0f} ms, {figures.rows_per_second:,.0f} rows/s", end="")
    print(f", {figures.shuffled_bytes:,} bytes shuffled, {figures.spilled_bytes:,} spilled")
    print(f"one query of DuckDB: {figures.duckdb_ms:,.0f} ms; ratio {figures.ratio:.2f} (at most {BAR:.1f})")
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(figures), indent=2))
    return int(figures.ratio > BAR)


def measured(data: FraudData, options: argparse.Namespace) -> Figures:
    """The medians, of runs that were right."""
    cores = len(os.sched_getaffinity(0))
    job, query = fraud_job(data), f"SELECT kind, user_id, id FROM ({one_query(data)})"
    stats: dict[str, int] = {}
    with (
        duckdb.connect(config={"threads": cores}) as plain,
        sabot_sql.connect(
            agents=options.agents, isolation=options.isolation, memory_limit=options.memory_limit
        ) as session,
    ):

        def by_job() -> set[tuple[object, ...]]:
            result = session.run_job(job)
            stats.update(shuffled=result.stats["bytes_shuffled"], spilled=result.stats["spilled_bytes"])
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
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
