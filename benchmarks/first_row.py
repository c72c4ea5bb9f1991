"""From ``import sabot_sql`` to the first row of a small query, each time in a fresh process, beside plain DuckDB.

The clocks start in the new process right before the import; starting the interpreter is not part of it. The time of the
processors is given as well: it says the same on a machine that others use at the same time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence

BAR_S = 0.6
PROGRAMS = {
    "sabot_sql": "import sabot_sql; row = sabot_sql.query({sql!r}).fetchone()",
    "duckdb": "import duckdb; row = duckdb.execute({sql!r}).fetchone()",
}
TIMED = """
import time
wall, processor = time.perf_counter(), time.process_time()
{program}
print(time.perf_counter() - wall, time.process_time() - processor)
assert row
"""


def main(arguments: Sequence[str]) -> int:
    """Measure both programs in turn and print their medians."""
    parser = argparse.ArgumentParser(prog="first_row.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="fresh processes on either side (9)")
    parser.add_argument("--sql", default="SELECT sum(range) FROM range(1000)", help="the query")
    options = parser.parse_args(arguments)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(options.rounds + 1):
        for name, program in PROGRAMS.items():
            code = TIMED.format(program=program.format(sql=options.sql))
            done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            wall_s, processor_s = map(float, done.stdout.split())
            seconds[name].append((wall_s, processor_s))
    print("import to first row, medians")
    for name, pairs in seconds.items():
        wall_s, processor_s = (statistics.median(clock[1:]) for clock in zip(*pairs, strict=True))
        verdict = f"   bar {BAR_S:g} s: {'met' if wall_s <= BAR_S else 'missed'}" if name == "sabot_sql" else ""
        print(f"{name:>10} {wall_s:.3f} s, processors {processor_s:.3f} s{verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
