"""From ``import sabot_sql`` to the first row of a small query, each time in a fresh process, beside plain DuckDB.

The clock starts in the new process right before the import; starting the interpreter is not part of it.
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
TIMED = "import time; start = time.perf_counter(); {program}; print(time.perf_counter() - start); assert row"


def main(arguments: Sequence[str]) -> int:
    """Measure both programs in turn and print their medians."""
    parser = argparse.ArgumentParser(prog="first_row.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="fresh processes on either side (9)")
    parser.add_argument("--sql", default="SELECT sum(range) FROM range(1000)", help="the query")
    options = parser.parse_args(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(options.rounds + 1):
        for name, program in PROGRAMS.items():
            code = TIMED.format(program=program.format(sql=options.sql))
            done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            seconds[name].append(float(done.stdout))
    median_s = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    verdict = "met" if median_s["sabot_sql"] <= BAR_S else "missed"
    for name, values in seconds.items():
        print(f"import to first row, {name}: median {median_s[name]:.3f} s, best {min(values[1:]):.3f} s")
    print(f"bar {BAR_S:g} s: {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
