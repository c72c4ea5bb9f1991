"""Planning the 22 TPC-H queries through a session, over warm metadata: how long until the first task could start.

Each query is planned several times over files whose footers are known; its figure is the median, in milliseconds:

* ``DuckDB``: DuckDB binds, optimises and prints the query.
* ``read``: the text is read exactly and built into a logical plan.
* ``place``: everything else up to the job graph: rules, exchanges, the checker, fragments.
* ``revise``: what the plan is asked while the query runs, after each stage, all stages together.

The first three are what the query waits for before it runs; the bars hold for their sum.

With ``--curves`` statements that grow, one direction each (``planning_shapes.py``), are planned instead, turn by turn
with DuckDB's own ``EXPLAIN`` of them: planning should take at most 3 times as long and 10 ms. Both are CPU times,
medians, and no text is planned twice.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

import sabot_sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, it finds its own folder only

import sabot_planner.planner
from benchmarks.planning_shapes import SHAPES, TABLES
from sabot_planner import QueryPlan
from sabot_sql.call.running import RunningQuery
from sabot_sql.catalog.catalog import Catalog
from tests.support.tpch.data import queries, tpch, views

MEDIAN_BAR_MS, LARGEST_BAR_MS = 10.0, 60.0
CURVE_FACTOR, CURVE_FREE_MS = 3, 10.0
CURVE_LONG_MS = 2_000.0
"""A statement that takes longer is measured once."""

PARTS = ("DuckDB", "read", "place", "revise")
STEPS = (
    (Catalog, "_explain", "DuckDB"),
    (sabot_planner.planner, "build", "read"),
    (sabot_sql.Session, "_plan", "plan"),
    (QueryPlan, "revise", "revise"),
)
"""Where each clock runs; ``plan`` is all of the first three parts."""


def main(arguments: Sequence[str]) -> int:
    """Measure, and print a line per query, the median and the largest."""
    parser = argparse.ArgumentParser(prog="planning.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor (1)")
    parser.add_argument(
        "--data", type=Path, help="folder with <table>.parquet of all tables, instead of generated ones"
    )
    parser.add_argument("--agents", type=int, default=2, help="thread agents (2)")
    parser.add_argument("--rounds", type=int, default=7, help="counted runs after two that warm up (7)")
    parser.add_argument("--curves", action="store_true", help="statements that grow, beside DuckDB's EXPLAIN")
    options = parser.parse_args(arguments)
    if options.curves:
        return curves(options.agents, options.rounds)
    with sabot_sql.connect(agents=options.agents) as session, clocks() as clock_ms:
        for statement in views(options.data or tpch(options.scale)):
            session.execute(statement)
        figures = {name: measure(session, sql, options.rounds, clock_ms) for name, sql in queries().items()}
    print(f"{'query':>6}" + "".join(f"{part:>9}" for part in PARTS) + f"{'to run':>9}   ms")
    for name, parts in figures.items():
        print(f"{name:>6}" + "".join(f"{parts[part]:9.1f}" for part in PARTS) + f"{parts['plan']:9.1f}")
    totals = [parts["plan"] for parts in figures.values()]
    for word, figure, bar in (
        ("median", statistics.median(totals), MEDIAN_BAR_MS),
        ("largest", max(totals), LARGEST_BAR_MS),
    ):
        print(f"{word:>8} {figure:.1f} ms   bar {bar:g}: {'met' if figure <= bar else 'missed'}")
    return 0


def curves(agents: int, rounds: int) -> int:
    """Plan every shape at every size, and print a line for each."""
    missed = 0
    with sabot_sql.connect(agents=agents) as session, duckdb.connect() as plain:
        for statement in TABLES:
            session.execute(statement)
            plain.execute(statement)
        print(f"{'shape':>14}{'size':>9}{'DuckDB':>10}{'ours':>10}{'bar':>10}   ms of CPU")
        for shape in SHAPES:
            for size in shape.sizes:
                sql = shape.make(size)
                theirs_ms, ours_ms, outcome = beside(session, plain, sql, rounds)
                bar_ms = CURVE_FACTOR * theirs_ms + CURVE_FREE_MS
                missed += ours_ms > bar_ms
                word = "" if ours_ms <= bar_ms else "missed, "
                print(
                    f"{shape.name:>14}{size:9}{theirs_ms:10.1f}{ours_ms:10.1f}{bar_ms:10.1f}   {word}{outcome}",
                    flush=True,
                )
    print(f"{missed} missed")
    return 0


def beside(
    session: sabot_sql.Session, plain: duckdb.DuckDBPyConnection, sql: str, rounds: int
) -> tuple[float, float, str]:
    """DuckDB's EXPLAIN of ``sql`` and our planning of it, in milliseconds of CPU, and what was planned."""
    theirs, ours = [], []
    outcome = ""
    for number in range(rounds):
        began = time.process_time()
        plain.execute(f"EXPLAIN {sql}").fetchall()
        theirs.append((time.process_time() - began) * 1e3)
        text = sql + " " * number  # nothing that is remembered of a text helps
        began = time.process_time()
        (statement,) = session._catalog.split(text, None)
        planned = session._plan(statement, session.config, (), RunningQuery("planned", None))
        ours.append((time.process_time() - began) * 1e3)
        outcome = f"single: {planned}" if isinstance(planned, str) else planned[0].mode.value
        if ours[-1] > CURVE_LONG_MS:
            break
    return statistics.median(theirs), statistics.median(ours), outcome


def measure(session: sabot_sql.Session, sql: str, rounds: int, clock_ms: dict[str, float]) -> dict[str, float]:
    """Milliseconds of each part of planning ``sql``, medians; it is run as well, for the revisions."""
    seen: dict[str, list[float]] = defaultdict(list)
    for round_number in range(rounds + 2):
        clock_ms.clear()
        session.query(sql)
        if round_number >= 2:
            for part in ("DuckDB", "read", "plan", "revise"):
                seen[part].append(clock_ms.get(part, 0.0))
    found = {part: statistics.median(times) for part, times in seen.items()}
    return {**found, "place": found["plan"] - found["DuckDB"] - found["read"]}


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Milliseconds spent in each of ``STEPS``, counted while it is open."""
    clock_ms: dict[str, float] = defaultdict(float)
    whole = [(owner, name, getattr(owner, name)) for owner, name, _ in STEPS]
    for (owner, name, part), (_, _, function) in zip(STEPS, whole, strict=True):
        setattr(owner, name, timed(function, part, clock_ms))
    try:
        yield clock_ms
    finally:
        for owner, name, function in whole:
            setattr(owner, name, function)


def timed(function: Callable[..., Any], part: str, clock_ms: dict[str, float]) -> Callable[..., Any]:
    """``function``, whose time is added to ``part``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            clock_ms[part] += (time.perf_counter() - began) * 1e3

    return run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
