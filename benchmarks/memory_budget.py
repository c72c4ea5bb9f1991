"""Peak memory of a session's whole process tree, held against its ``memory_limit``.

A fresh process opens a session and runs one work after the other in it, as a notebook does; it is sampled from outside
every 20 ms. A page that several processes map counts once (PSS). Each work's peak is printed with what the session's
process (first) and its agents had then: private memory, files (programs and libraries, mostly), memory they share.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sabot_sql
from sabot_sql.config import parse_bytes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, it finds its own folder only

from benchmarks.memory import INTERVAL_S, MemoryPeak, tree_memory
from tests.support.tpch.data import queries, tpch, views

BAR = 1.15
STATEMENTS = {
    "wide sort": "SELECT * FROM lineitem ORDER BY l_comment, l_extendedprice",
    "big result": "SELECT * FROM lineitem",
    "wide rows": "SELECT repeat(l_comment, 100) AS s FROM lineitem LIMIT 200_000",
    "groups": "SELECT l_orderkey, l_partkey, sum(l_quantity), min(l_comment) FROM lineitem GROUP BY ALL",
    "join": "SELECT count(*), sum(length(a.l_comment || b.l_comment)) FROM lineitem a JOIN lineitem b"
    " ON a.l_orderkey = b.l_orderkey AND a.l_linenumber = b.l_linenumber WHERE a.l_partkey <> b.l_suppkey",
    "window": "SELECT l_partkey, max(s) FROM (SELECT l_partkey, l_comment || lag(l_comment) OVER (PARTITION BY"
    " l_partkey ORDER BY l_shipdate) AS s FROM lineitem) GROUP BY ALL",
    "distinct": "SELECT l_returnflag, count(DISTINCT l_comment) FROM lineitem GROUP BY ALL",
    "lists": "SELECT l_suppkey % 1000 AS k, list(l_comment) AS s FROM lineitem GROUP BY ALL",
    "texts": "SELECT l_suppkey % 10 AS k, string_agg(l_comment, ',') AS s FROM lineitem GROUP BY ALL",
    "volatile": "SELECT random() AS r, * FROM lineitem",
    "write": "CREATE OR REPLACE TABLE made AS SELECT l_orderkey, l_partkey, l_comment FROM lineitem",
    "read back": "SELECT l_partkey, count(*), max(l_comment) FROM made GROUP BY ALL",
    "drop": "DROP TABLE made",
}


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for and print a line for each work."""
    parser = argparse.ArgumentParser(prog="memory_budget.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor (1)")
    parser.add_argument("--data", type=Path, help="folder with <table>.parquet of all tables")
    parser.add_argument("--memory-limit", default="1GiB", help="of the session (1GiB)")
    parser.add_argument("--agents", type=int, default=2, help="(2)")
    parser.add_argument("--isolation", choices=["process", "thread"], default="process")
    parser.add_argument("--only", default="", help="a regular expression that the names of works have in them")
    options = parser.parse_args(arguments)
    session = {"agents": options.agents, "isolation": options.isolation, "memory_limit": options.memory_limit}
    works = {name: sql for name, sql in {**queries(), **STATEMENTS}.items() if re.search(options.only, name)}
    limit_bytes = parse_bytes("memory_limit", options.memory_limit)
    print(f"TPC-H, scale factor {options.scale:g}, {session}")
    peaks = peaks_of(session, options.data or tpch(options.scale), works, lambda *line: show(limit_bytes, *line))
    highest = max(peak.pss_bytes for peak in peaks.values())
    verdict = "met" if highest <= BAR * limit_bytes else "missed"
    print(f"highest: {highest / 1e6:.0f} MB, {highest / limit_bytes:.2f} x the limit   bar {BAR:g}: {verdict}")
    return 0


def show(limit_bytes: int, name: str, peak: MemoryPeak, seconds: float, outcome: str) -> None:
    """Print one work."""
    tree = "  ".join(
        f"{p.private_bytes / 1e6:.0f}+{p.file_bytes / 1e6:.0f}+{p.shared_bytes / 1e6:.0f}" for p in peak.tree
    )
    pss_bytes = peak.pss_bytes
    print(
        f"{name:>12} {pss_bytes / 1e6:6.0f} MB {pss_bytes / limit_bytes:5.2f} {seconds:6.1f} s  {tree}  {outcome}",
        flush=True,
    )


def peaks_of(
    session: Mapping[str, Any],
    data: Path,
    works: Mapping[str, str],
    tell: Callable[[str, MemoryPeak, float, str], None] = lambda *_: None,
) -> dict[str, MemoryPeak]:
    """The peak of each work of a fresh process, by name; ``tell`` gets it as soon as the work has ended.

    It is told the name, the peak, the seconds it took, and ``""`` or what the work failed with. ``"start"`` is what
    came before the first work.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=run_all, args=(session, data, works, theirs))
    child.start()
    theirs.close()
    assert child.pid is not None
    peaks: dict[str, MemoryPeak] = {}
    peak, began = MemoryPeak(), time.monotonic()
    while child.is_alive():
        peak = peak.seen(tree_memory(child.pid))
        if not ours.poll(INTERVAL_S):
            continue
        try:
            name, outcome = ours.recv()
        except EOFError:
            break
        peaks[name] = peak
        tell(name, peak, time.monotonic() - began, outcome)
        peak, began = MemoryPeak(), time.monotonic()
    child.join()
    if child.exitcode:
        raise SystemExit(f"the measured process ended with exit code {child.exitcode}")
    return peaks


def run_all(session: Mapping[str, Any], data: Path, works: Mapping[str, str], told: Connection) -> None:
    """What the sampled process does: the rows of each work are read once, a batch at a time, and let go."""
    with sabot_sql.connect(**session) as opened:
        for statement in views(data):
            opened.execute(statement)
        told.send(("start", ""))
        for name, sql in works.items():
            outcome = ""
            try:
                for _ in opened.query(sql).to_arrow_reader():
                    pass
            except sabot_sql.SabotSQLError as error:
                outcome = str(error).partition("\n")[0]
            told.send((name, outcome))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
