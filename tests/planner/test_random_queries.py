"""Random queries under random settings give DuckDB's rows; many of these plans change while they run."""

from __future__ import annotations

from random import Random

import duckdb
import pytest

from sabot_planner import NotDistributed, Placement, PlanSettings
from sabot_planner.job.plan import Zone
from tests.planner.context import FakeContext, describe, forced
from tests.planner.random_queries import Queries
from tests.planner.simulate import Simulation
from tests.support.compare import difference
from tests.support.oracle import fetch

SEEDS = range(40)
MOST_ROWS = 5_000
CLUSTERED = {
    ("t", "v"): tuple(Zone(i * 50, i * 50 + 49, 50) for i in range(4)),
    ("u", "w"): tuple(Zone(i * 20, i * 20 + 19, 20) for i in range(3)),
    ("early", "v"): tuple(Zone(i * 20, i * 20 + 19, 20) for i in range(4)),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_queries(connection: duckdb.DuckDBPyConnection, seed: int) -> None:
    random = Random(seed)
    queries = Queries(random)
    sql = next(sql for sql in iter(queries.query, None) if _fits(connection, sql))
    context = _context(connection, random)
    plan = context.planned(sql)
    if isinstance(plan, NotDistributed):
        assert plan.reason
        return
    # A measurement ten thousand times as large as the rows are turns copies into hashes.
    simulation = Simulation(context, plan, bytes_factor=random.choice([1, 1, 10_000]))
    found = difference(fetch(connection, sql), simulation.run())
    assert found is None, f"{found}\n{sql}\n{describe(plan)}\n→ {describe(simulation.plan)}"


def _context(connection: duckdb.DuckDBPyConnection, random: Random) -> FakeContext:
    settings = [
        (forced(3), 1),
        (forced(2, broadcast_bytes=random.choice([1_000, 3_000, 1_000_000])), 1),
        (PlanSettings(partitions=3, gather_rows=0), random.choice([2_000, 100_000, 1_000_000])),
        (forced(3, filter_bytes=0, filter_share=1.0, coalesce_bytes=0), 1),
    ]
    chosen, factor = random.choice(settings)
    context = FakeContext(connection, agents=3, settings=chosen, factor=factor)
    tables = ["t", "u", "small", "early"]
    if random.random() < 0.3:
        context.placements = dict.fromkeys(random.sample(tables, 2), Placement.SESSION)
    if random.random() < 0.3:
        context.whole = frozenset(random.sample(tables, 2))
    if random.random() < 0.5:
        context.clustered = CLUSTERED
    return context


def _fits(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Whether DuckDB can print the plan and the answer is small; duplicate joins may grow without bound."""
    try:
        FakeContext(connection).export(sql)
        ((rows,),) = connection.execute(f"SELECT count(*) FROM (FROM ({sql}) LIMIT {MOST_ROWS + 1})").fetchall()
    except duckdb.Error:
        return False
    return bool(rows <= MOST_ROWS)
