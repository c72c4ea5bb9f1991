"""Groups that reuse the hash of a join are formed in two phases where one partition of the join is far too large."""

from __future__ import annotations

import pytest

from sabot_planner import EdgeFacts, PlanSettings, QueryPlan
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast

SQL = "SELECT u.k, count(*) AS n, avg(t.v) FROM t JOIN u ON t.k = u.k GROUP BY u.k"
EVEN, HOT = (100,) * 12, (100,) * 11 + (1_200,)


def measured(plan: QueryPlan, sizes: tuple[int, ...], scale: int) -> QueryPlan:
    """The plan once both sides of its join have these bytes, times ``scale``, in their partitions."""
    hashed = [e for e in plan.operator_graph.edges if len(e.keys) == 1 and e.partitions == 12]
    in_bytes = tuple(size * scale for size in sizes)
    facts = {e.edge_id: EdgeFacts(10**9, sum(in_bytes), in_bytes, in_bytes) for e in hashed}
    return plan.revise(facts, frozenset(e.source for e in hashed))


@pytest.fixture
def hashed(context: FakeContext) -> FakeContext:
    context.settings, context.factor = PlanSettings(broadcast_bytes=0, gather_rows=0), 1_000_000
    return context


def test_a_heavy_partition_splits_the_groups_from_the_join(hashed: FakeContext) -> None:
    plan = hashed.plan(SQL)
    revised = measured(plan, HOT, 1 << 20)
    assert revised is not plan
    (moved,) = (e for e in revised.operator_graph.edges if "groups are formed in parts" in e.reason)
    assert "partition 11 of the join holds 1.6 times its share" in moved.reason
    join = revised.operator_graph.operator(moved.source)
    assert join.label.startswith("inner join"), describe(revised)
    assert all(e.splittable for e in revised.operator_graph.inputs_of(join.operator_id))


@pytest.mark.parametrize(("sizes", "scale"), [(EVEN, 1 << 20), (HOT, 1)], ids=["even", "tiny"])
def test_even_or_tiny_joins_keep_their_groups(hashed: FakeContext, sizes: tuple[int, ...], scale: int) -> None:
    plan = hashed.plan(SQL)
    assert measured(plan, sizes, scale) is plan


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT u.k, median(t.v) FROM t JOIN u ON t.k = u.k GROUP BY u.k",
        "SELECT u.k, first(t.v) FROM t JOIN u ON t.k = u.k GROUP BY u.k",
        "SELECT u.k, count(*) FROM t FULL JOIN u ON t.k = u.k GROUP BY u.k",
        "SELECT DISTINCT u.k FROM t JOIN u ON t.k = u.k",
    ],
)
def test_what_has_no_two_phases_or_cannot_be_shared_out_stays(hashed: FakeContext, sql: str) -> None:
    plan = hashed.plan(sql)
    assert measured(plan, HOT, 1 << 20) is plan, describe(plan)


@pytest.mark.parametrize(
    "sql",
    [
        SQL,
        "SELECT u.k, count(*) AS n, stddev(t.v), min(u.w) FROM t LEFT JOIN u ON t.k = u.k GROUP BY u.k, t.k",
        "SELECT k, n FROM (SELECT u.k, count(*) AS n FROM t JOIN u ON t.k = u.k GROUP BY u.k) WHERE n > 40",
        "SELECT a.k, n FROM (SELECT u.k, max(w) n FROM t JOIN u ON t.k = u.k GROUP BY 1) a JOIN early e ON e.k = a.k",
        "SELECT t.k, t.g, sum(u.w) FROM t JOIN u ON t.k = u.k GROUP BY t.k, t.g",
    ],
)
def test_groups_in_parts_are_the_same_groups(context: FakeContext, sql: str) -> None:
    context.settings = forced(3, coalesce_bytes=0)
    hot = "SELECT 3, i, '1', i, i, i % 3 FROM range(900) r(i)"
    context.connection.execute(f"CREATE OR REPLACE TABLE t2 AS FROM t UNION ALL {hot}")
    sql = sql.replace("FROM t ", "FROM t2 AS t ")
    simulation = Simulation(context, context.plan(sql))
    assert_same(fetch(context.connection, sql), simulation.run())
    said = " ".join(e.reason for e in simulation.plan.operator_graph.edges)
    assert "groups are formed in parts" in said or "JOIN early" in sql, describe(simulation.plan)
