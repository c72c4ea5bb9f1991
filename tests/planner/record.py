"""Asks DuckDB anew what the planner asks for TPC-H and TPC-DS: ``python -m tests.planner.record``.

Tables of a small scale factor give the schemas; their rows are multiplied, so that the plans are those of large tables.
The plans that come of it are written to ``plan_snapshots`` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import duckdb

from sabot_planner import QueryPlan, plan_query
from tests.planner.context import FakeContext
from tests.planner.plan_text import plan_text, snapshot
from tests.planner.recordings import AGENTS, Answers, Recorder, Recording
from tests.support.tpcds import data as tpcds
from tests.support.tpch import data as tpch

LARGE = 1_000
"""Rows of scale factor 100 from data of 0.1."""

TPCH_FIXED = frozenset({"nation", "region"})
TPCDS_FIXED = frozenset(
    {"call_center", "date_dim", "household_demographics", "customer_demographics", "income_band", "promotion"}
    | {"reason", "ship_mode", "store", "time_dim", "warehouse", "web_page", "web_site", "catalog_page", "item"}
)
"""Tables that hardly grow with the scale factor."""


def record(suite: str, folder: Path, queries: Mapping[str, str], fixed: frozenset[str]) -> None:
    """Record and plan all queries of a suite over the Parquet files in ``folder``."""
    answers: dict[str, Answers] = {}
    # By relative paths, so that the recording names no folder of the machine that made it.
    with chdir(folder), duckdb.connect(config={"threads": 1}) as connection:
        for path in sorted(folder.glob("*.parquet")):
            connection.execute(f"CREATE VIEW {path.stem} AS FROM '{path.name}'")
        for name, sql in queries.items():
            context = FakeContext(connection, agents=AGENTS, factor=LARGE, fixed=fixed)
            answers[name] = Answers(context.export(sql))
            plan = plan_query(answers[name].exported, Recorder(context, answers[name]))
            assert isinstance(plan, QueryPlan), f"{name}: {plan.reason}"
            snapshot(suite, name).write_text(plan_text(plan))
        aggregates, volatile = sorted(context.aggregates()), sorted(context.volatile_functions())
    Recording(aggregates, volatile, answers).store(suite)


if __name__ == "__main__":
    record("tpch", tpch.tpch(0.1), tpch.queries(), TPCH_FIXED)
    record("tpcds", tpcds.tpcds(0.1), tpcds.queries(), TPCDS_FIXED)
