"""TPC-DS: two process agents beside plain DuckDB, query by query: none may cost more than 3 x DuckDB + 30 ms.

Both sides read the same Parquet files, in one interleaved run; DuckDB has as many threads as there are agents. A first
round warms up. A query's figure is the median over rounds of its times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import duckdb

import sabot_sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, it finds its own folder only

from benchmarks.tpch import machine, numbers, rows_of, run_rounds
from tests.support.tpcds.data import queries, tpcds, views

TIMES = 3.0
MORE_MS = 30.0


def main(arguments: Sequence[str]) -> int:
    """Measure, print the queries that cost most and, if asked, write JSON; 1 where one is above the bar."""
    parser = argparse.ArgumentParser(prog="tpcds.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-DS scale factor (1)")
    parser.add_argument("--queries", default="1-99", help="for example 1-6,13 (1-99)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds after the one that warms up (3)")
    parser.add_argument("--agents", type=int, default=2, help="process agents of one thread each (2)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)

    data = tpcds(options.scale)
    known = queries()
    texts = {number: known[f"q{number:02}"] for number in numbers(options.queries)}
    print(f"TPC-DS, scale factor {options.scale:g}, {len(texts)} queries, {options.rounds} rounds; {machine()}")
    with (
        sabot_sql.connect(agents=options.agents, isolation="process", threads=1) as session,
        duckdb.connect(config={"threads": options.agents}) as plain,
    ):
        for statement in views(data):
            session.execute(statement)
            plain.execute(statement)
        sides: dict[str, Callable[[str], int]] = {
            "sabot_sql": lambda sql: session.query(sql).to_arrow_table().num_rows,
            "duckdb": partial(rows_of, plain),
        }
        times_ms, processor_s = run_rounds(sides, texts, options.rounds)
    medians = {side: {q: statistics.median(times) for q, times in of.items()} for side, of in times_ms.items()}
    ours, theirs = medians["sabot_sql"], medians["duckdb"]
    share = {q: ours[q] / (TIMES * theirs[q] + MORE_MS) for q in texts}
    print(f"\n{'query':>6} {'sabot_sql ms':>13} {'DuckDB ms':>10} {'ratio':>6} {'of the bar':>11}")
    for q in sorted(texts, key=share.__getitem__, reverse=True)[:20]:
        print(f"{f'Q{q}':>6} {ours[q]:13.1f} {theirs[q]:10.1f} {ours[q] / theirs[q]:6.2f} {share[q]:11.2f}")
    total = sum(ours.values()), sum(theirs.values())
    above = [q for q in texts if share[q] > 1]
    print(f"{'total':>6} {total[0]:13.1f} {total[1]:10.1f} {total[0] / total[1]:6.2f}", end="")
    print(f"   processor time {processor_s['sabot_sql'] / processor_s['duckdb']:.2f} x")
    print(f"above {TIMES:g} x DuckDB + {MORE_MS:g} ms: {', '.join(f'Q{q}' for q in above) or 'none'}")
    if options.json:
        figures = {"machine": machine(), "scale": options.scale, "rounds": options.rounds, "milliseconds": medians}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
