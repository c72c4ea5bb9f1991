"""One hot key that holds half the rows of a join, against even keys: wall time and the balance of the tasks.

Both tables have the same rows, files and partner table; in one of them every second row has the same key. Sides are
hashed, never copied. In every round each query runs once over either table, the order swapped from round to round; a
first round warms up and is not counted. Beside the medians stand figures that no noise touches: the rows read by the
heaviest task of the join's stage, over the mean of its tasks when keys are even.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

import sabot_sql

KEYS = 100_000
BAR = 1.3
QUERIES = {
    "inner": "SELECT count(*), sum(p.v + b.w) FROM probe p JOIN build b ON p.k = b.k",
    "left": "SELECT count(*), sum(p.v), sum(b.w) FROM probe p LEFT JOIN build b ON p.k = b.k AND b.w % 2 = 0",
    "semi": "SELECT count(*), sum(p.v) FROM probe p WHERE k IN (SELECT k FROM build WHERE w % 5 > 0)",
    "anti": "SELECT count(*), sum(p.v) FROM probe p WHERE NOT EXISTS (FROM build b WHERE p.k = b.k AND b.w % 2 > 0)",
    "three": "SELECT count(*), sum(p.v + b.w + c.w) FROM probe p JOIN build b ON p.k = b.k"
    " LEFT JOIN build c ON c.k = p.k",
    "group by": "SELECT k, sum(v) AS s, avg(v) AS a FROM probe GROUP BY k ORDER BY s DESC LIMIT 5",
    "join key": "SELECT p.k, sum(p.v) AS s, avg(b.w) FROM probe p JOIN build b ON p.k = b.k GROUP BY p.k"
    " ORDER BY s DESC LIMIT 5",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One query over both tables; ``hot_balance`` and ``even_balance`` are rows of the heaviest task over a fair share.

    ``tasks`` are those of the join's stage, (even, hot).
    """

    even_ms: float
    hot_ms: float
    ratio: float
    even_balance: float
    hot_balance: float
    tasks: tuple[int, int]


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for, print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(prog="hot_key.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000_000, help="rows of the probed table (4,000,000)")
    parser.add_argument("--agents", type=int, default=4, help="agents (4)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds after the one that warms up (7)")
    parser.add_argument("--isolation", choices=["thread", "process"], action="append", help="one kind instead of both")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="hot-key-") as folder:
        write_tables(Path(folder), options.rows)
        for isolation in options.isolation or ["thread", "process"]:
            found = compare(Path(folder), isolation, options.agents, options.rounds)
            print_figures(isolation, options.agents, found)
            figures[isolation] = {name: asdict(one) for name, one in found.items()}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def write_tables(folder: Path, rows: int) -> None:
    """``even`` and ``hot``, alike but for the key of every second row, and the ``build`` table with each key once."""
    with duckdb.connect() as connection:
        for name, key in (("even", "h % {n}"), ("hot", "CASE WHEN i % 2 = 0 THEN 7 ELSE h % {n} END")):
            key = key.format(n=KEYS)
            connection.execute(
                f"COPY (SELECT ({key})::BIGINT AS k, i AS v, i * 0.5 AS x FROM"
                f" (SELECT i, hash(i) AS h FROM range({rows}) r(i))) TO '{folder}/{name}.parquet'"
            )
        connection.execute(f"COPY (SELECT i AS k, i * 3 AS w FROM range({KEYS}) r(i)) TO '{folder}/build.parquet'")


def compare(folder: Path, isolation: str, agents: int, rounds: int) -> dict[str, Figures]:
    """Every query over both tables, interleaved."""
    times: dict[tuple[str, str], list[float]] = {}
    plans: dict[tuple[str, str], Mapping[str, object]] = {}
    options = {"agents": agents, "isolation": isolation, "threads": 1, "broadcast_limit": 0}
    with sabot_sql.connect(**options) as session:
        for round_number in range(rounds + 1):
            for name, sql in QUERIES.items():
                for table in ("even", "hot") if round_number % 2 else ("hot", "even"):
                    text = sql.replace("probe", f"'{folder}/{table}.parquet'").replace(
                        "build", f"'{folder}/build.parquet'"
                    )
                    began = time.perf_counter()
                    result = session.query(text)
                    result.fetchall()
                    if round_number:
                        times.setdefault((name, table), []).append((time.perf_counter() - began) * 1e3)
                    plans[name, table] = result.plan.json()
    return {name: figures(name, times, plans) for name in QUERIES}


def figures(
    name: str, times: Mapping[tuple[str, str], list[float]], plans: Mapping[tuple[str, str], Mapping[str, object]]
) -> Figures:
    """The figures of one query."""
    even_ms, hot_ms = (statistics.median(times[name, table]) for table in ("even", "hot"))
    ratio = statistics.median(h / e for e, h in zip(times[name, "even"], times[name, "hot"], strict=True))
    even, hot = (rows_of_tasks(plans[name, table]) for table in ("even", "hot"))
    fair = sum(even) / len(even)
    return Figures(even_ms, hot_ms, ratio, max(even) / fair, max(hot) / fair, (len(even), len(hot)))


def rows_of_tasks(plan: Mapping[str, object]) -> list[int]:
    """The rows that each task read of the stage that reads most."""
    stages: list[list[int]] = [[task["rows_in"] or 0 for task in stage["tasks"]] for stage in plan["stages"]]  # type: ignore[attr-defined]
    return max(stages, key=sum)


def print_figures(isolation: str, agents: int, found: Mapping[str, Figures]) -> None:
    """A line per query."""
    print(f"\n{agents} agents ({isolation}): half of all rows have one key, against even keys")
    print(
        f"{'query':>9} {'even ms':>8} {'hot ms':>8} {'ratio':>6}   {'heaviest task, even':>19} {'hot':>6} {'tasks':>7}"
    )
    for name, one in found.items():
        verdict = "met" if one.ratio <= BAR else "missed"
        print(
            f"{name:>9} {one.even_ms:8.1f} {one.hot_ms:8.1f} {one.ratio:6.2f}   {one.even_balance:17.2f} x"
            f" {one.hot_balance:5.2f} x {one.tasks[0]:>3}/{one.tasks[1]}   bar {BAR:g}: {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
