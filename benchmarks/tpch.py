"""TPC-H: sabot_sql beside plain DuckDB in one interleaved run, as ratios of times, and memory against its budget.

Two comparisons, each over the same Parquet files in the same process:

* ``auto``: ``connect(agents="auto")`` against DuckDB as it comes; the price of the layer where one agent is enough.
* ``processes``: two process agents with one thread each against DuckDB with two threads; the price of distribution.
  ``speed-up`` is how much faster they are than DuckDB with the one thread that each of them has: 2 at best.

In every round each query runs once on each side, the order swapped from round to round; a first round warms up and
is not counted. A query's figure is the median over rounds of its times; the total is the median over rounds of the
round's ratio. Processor time is that of this process and all agents over all rounds. Memory is measured in a run of
its own, in a fresh process that is sampled from outside.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import duckdb

import sabot_sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, it finds its own folder only

from benchmarks.memory import peak_while, processor_seconds
from tests.support.tpch.data import queries, tpch, views


@dataclass(frozen=True, slots=True)
class Comparison:
    """One way to run sabot_sql, the DuckDB it is held against, and the ratio of times it should reach.

    ``one_thread``: it is measured beside DuckDB with one thread as well.
    """

    name: str
    title: str
    options: Mapping[str, object]
    duckdb_threads: int | None
    bar: float
    one_thread: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over rounds: by query, of a round's total, and of the ratio of a round's totals.

    ``geometric_mean`` is that of the queries' ratios, ``processor_ratio`` that of all processor seconds.
    """

    sabot_sql_ms: Mapping[int, float]
    duckdb_ms: Mapping[int, float]
    one_thread_ms: Mapping[int, float]
    total_sabot_sql_ms: float
    total_duckdb_ms: float
    total_ratio: float
    geometric_mean: float
    processor_ratio: float
    bar: float


TICK_S = 0.01
"""What the kernel counts processor time in: less than that reads as nothing."""
COMPARISONS = (
    Comparison("auto", 'agents="auto" / DuckDB', {"agents": "auto"}, None, 1.05),
    Comparison(
        "processes",
        "2 process agents x 1 thread / DuckDB with 2 threads",
        {"agents": 2, "isolation": "process", "threads": 1},
        2,
        2.0,
        one_thread=True,
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for, print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(prog="tpch.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor (1)")
    parser.add_argument(
        "--data", type=Path, help="folder with <table>.parquet of all tables, instead of generated ones"
    )
    parser.add_argument("--queries", default="1-22", help="for example 1-6,13 (1-22)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds after the one that warms up (7)")
    parser.add_argument("--only", choices=[c.name for c in COMPARISONS], help="one comparison instead of both")
    parser.add_argument("--memory-limit-gib", type=float, default=2.0, help="the budget of the memory run (2)")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory run out")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    data = options.data or tpch(options.scale)
    texts = {number: queries()[f"q{number:02}"] for number in numbers(options.queries)}
    chosen = [c for c in COMPARISONS if options.only in (None, c.name)]
    figures: dict[str, object] = {"machine": machine(), "scale": options.scale, "rounds": options.rounds}
    print(f"TPC-H, scale factor {options.scale:g}, {len(texts)} queries, {options.rounds} rounds; {machine()}")
    for comparison in chosen:
        timing = compare(comparison, data, texts, options.rounds)
        print_times(comparison, timing)
        figures[comparison.name] = asdict(timing)
    if not options.no_memory:
        figures["memory"] = {c.name: measure_memory(c, data, texts, options.memory_limit_gib) for c in chosen}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def numbers(text: str) -> list[int]:
    """``"1-3,7"`` as ``[1, 2, 3, 7]``."""
    chosen: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        chosen.extend(range(int(first), int(last or first) + 1))
    return chosen


def compare(comparison: Comparison, data: Path, texts: Mapping[int, str], rounds: int) -> Timing:
    """Run every query on all sides, interleaved."""
    threads = {"duckdb": comparison.duckdb_threads, **({"one_thread": 1} if comparison.one_thread else {})}
    with ExitStack() as stack:
        session = stack.enter_context(sabot_sql.connect(**comparison.options))
        sides: dict[str, Callable[[str], int]] = {"sabot_sql": lambda sql: session.query(sql).to_arrow_table().num_rows}
        for statement in views(data):
            session.execute(statement)
        for name, count in threads.items():
            baseline = stack.enter_context(duckdb.connect(config={"threads": count} if count else {}))
            for statement in views(data):
                baseline.execute(statement)
            sides[name] = partial(rows_of, baseline)
        times_ms, processor_s = run_rounds(sides, texts, rounds)
    ours, theirs = times_ms["sabot_sql"], times_ms["duckdb"]
    sums = [[sum(times) for times in zip(*side.values(), strict=True)] for side in (ours, theirs)]
    medians = {side: {q: statistics.median(t) for q, t in times.items()} for side, times in times_ms.items()}
    return Timing(
        medians["sabot_sql"],
        medians["duckdb"],
        medians.get("one_thread", {}),
        *(statistics.median(side) for side in sums),
        statistics.median(a / b for a, b in zip(*sums, strict=True)),
        statistics.geometric_mean(medians["sabot_sql"][q] / medians["duckdb"][q] for q in texts),
        processor_s["sabot_sql"] / max(processor_s["duckdb"], TICK_S),
        comparison.bar,
    )


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    """How many rows DuckDB answers with."""
    return connection.sql(sql).to_arrow_table().num_rows


def run_rounds(
    sides: Mapping[str, Callable[[str], int]], texts: Mapping[int, str], rounds: int
) -> tuple[dict[str, dict[int, list[float]]], dict[str, float]]:
    """Milliseconds by side and query, and processor seconds by side, of all rounds but the first."""
    times_ms: dict[str, dict[int, list[float]]] = {side: {q: [] for q in texts} for side in sides}
    processor_s = dict.fromkeys(sides, 0.0)
    for round_number in range(rounds + 1):
        order = list(sides) if round_number % 2 else list(reversed(sides))
        for number, sql in texts.items():
            rows = set()
            for side in order:
                started, processors = time.perf_counter(), processor_seconds(os.getpid())
                rows.add(sides[side](sql))
                elapsed_ms = (time.perf_counter() - started) * 1e3
                if round_number:
                    times_ms[side][number].append(elapsed_ms)
                    processor_s[side] += processor_seconds(os.getpid()) - processors
            if len(rows) != 1:
                raise SystemExit(f"query {number}: the sides returned {rows} rows")
    return times_ms, processor_s


def print_times(comparison: Comparison, timing: Timing) -> None:
    """A line per query and one for the total."""
    extra = f"{'1 thread ms':>13} {'speed-up':>9}" if comparison.one_thread else ""
    print(f"\n{comparison.title}\n{'query':>6} {'sabot_sql ms':>13} {'DuckDB ms':>10} {'ratio':>6} {extra}")
    for number, ours_ms in timing.sabot_sql_ms.items():
        theirs_ms = timing.duckdb_ms[number]
        line = f"{f'Q{number}':>6} {ours_ms:13.1f} {theirs_ms:10.1f} {ours_ms / theirs_ms:6.2f}"
        if comparison.one_thread:
            line += f" {timing.one_thread_ms[number]:13.1f} {timing.one_thread_ms[number] / ours_ms:9.2f}"
        print(line)
    line = f"{'total':>6} {timing.total_sabot_sql_ms:13.1f} {timing.total_duckdb_ms:10.1f} {timing.total_ratio:6.2f}"
    if comparison.one_thread:
        one_thread_ms = sum(timing.one_thread_ms.values())
        line += f" {one_thread_ms:13.1f} {one_thread_ms / sum(timing.sabot_sql_ms.values()):9.2f}"
    verdict = "met" if timing.total_ratio <= timing.bar else "missed"
    print(f"{line}   bar {timing.bar:g}: {verdict}")
    mean, processors = timing.geometric_mean, timing.processor_ratio
    print(f"geometric mean of the ratios {mean:.2f}, processor time {processors:.2f} x DuckDB's", flush=True)


def measure_memory(comparison: Comparison, data: Path, texts: Mapping[int, str], limit_gib: float) -> dict[str, int]:
    """Peak memory of a fresh process that runs every query once under a budget, agents included."""
    budget_bytes = int(limit_gib * (1 << 30))
    options = {**comparison.options, "memory_limit": f"{limit_gib:g}GiB"}
    child = multiprocessing.get_context("spawn").Process(target=run_all, args=(options, data, list(texts.values())))
    child.start()
    assert child.pid is not None
    peak = peak_while(child.pid, child.is_alive)
    child.join()
    if child.exitcode:
        raise SystemExit(f"the memory run of {comparison.name} failed with exit code {child.exitcode}")
    verdict = "within" if peak.pss_bytes <= budget_bytes else "ABOVE"
    print(
        f"\npeak memory, {comparison.name}: {peak.pss_bytes / 1e6:.0f} MB over {peak.processes} processes "
        f"(sum of RSS {peak.rss_bytes / 1e6:.0f} MB), {verdict} the budget of {budget_bytes / 1e6:.0f} MB",
        flush=True,
    )
    return {**asdict(peak), "budget_bytes": budget_bytes}


def run_all(options: Mapping[str, object], data: Path, texts: Sequence[str]) -> None:
    """What the sampled process does."""
    with sabot_sql.connect(**options) as session:
        for statement in views(data):
            session.execute(statement)
        for sql in texts:
            session.query(sql).to_arrow_table()


def machine() -> str:
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, Python {platform.python_version()}, DuckDB {duckdb.__version__}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
