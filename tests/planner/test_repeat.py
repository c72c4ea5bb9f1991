"""Small sub-plans are computed by every task that needs them, where all tasks come to the same rows."""

from __future__ import annotations

import pytest

from sabot_planner import Placement, PlanSettings, QueryPlan
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast

SMALL = "SELECT small.k, name, w FROM small JOIN u ON small.k = u.k WHERE w > 7"


def repeats(plan: QueryPlan) -> list[str]:
    """Which scans of a plan are read whole by each of several tasks."""
    return [
        scan.source_id
        for stage in plan.operator_graph.operators
        for scan in stage.scans
        if stage.parallelism > 1 and not scan.sliced
    ]


@pytest.fixture
def large(context: FakeContext) -> FakeContext:
    """Statistics of one large table, t; u has 60 rows, small 5."""
    context.settings = PlanSettings()
    context.rows = {"t": 200_000_000, "u": 60, "small": 5}
    return context


@pytest.mark.parametrize(
    "side", ["small", "(SELECT * FROM small WHERE k > 1)", f"({SMALL})", "(VALUES (1), (2)) AS v(k)"]
)
def test_the_stage_of_the_large_side_reads_the_small_one(large: FakeContext, side: str) -> None:
    plan = large.plan(f"SELECT t.v FROM t JOIN {side} USING (k)")
    assert not plan.operator_graph.edges, describe(plan)
    (stage,) = plan.operator_graph.operators
    assert stage.parallelism == large.agents
    assert [scan.sliced for scan in stage.scans].count(True) == 1


@pytest.mark.parametrize("kind", ["JOIN", "LEFT JOIN", "SEMI JOIN", "ANTI JOIN", "RIGHT JOIN", "FULL JOIN"])
@pytest.mark.parametrize("small_first", [False, True])
def test_rows_are_duckdbs_for_every_kind(context: FakeContext, kind: str, small_first: bool) -> None:
    context.settings = forced(3, broadcast_bytes=1 << 20, repeat_rows=100)
    one, two = (f"({SMALL}) AS s", "t") if small_first else ("t", f"({SMALL}) AS s")
    sql = f"SELECT * FROM {one} {kind} {two} ON t.k = s.k AND t.v > s.w"
    plan = context.plan(sql)
    assert_same(fetch(context.connection, sql), Simulation(context, plan).run())


@pytest.mark.parametrize("kind", ["t RIGHT JOIN small", "t FULL JOIN small", "small LEFT JOIN t", "small ANTI JOIN t"])
def test_a_preserved_side_is_never_repeated(large: FakeContext, kind: str) -> None:
    """What it has unmatched would come out of every task."""
    plan = large.plan(f"SELECT small.k FROM {kind} ON t.k = small.k")
    assert all(scan.sliced for stage in plan.operator_graph.operators for scan in stage.scans), describe(plan)


@pytest.mark.parametrize(
    "side",
    [
        "SELECT k FROM small LIMIT 2",
        "SELECT k, sum(f) AS s FROM (SELECT k, w * 0.1::DOUBLE AS f FROM u) GROUP BY k",
        "SELECT k, row_number() OVER () AS n FROM u",
        "SELECT k FROM u USING SAMPLE 5 ROWS",
    ],
)
def test_rows_that_depend_on_an_order_are_computed_once(large: FakeContext, side: str) -> None:
    """Each task might find other rows, and one that joins what another does not has lost or doubled rows."""
    plan = large.plan(f"SELECT t.v, x.* FROM t JOIN ({side}) AS x ON t.k = x.k")
    assert not repeats(plan), describe(plan)


def test_what_lies_in_the_session_is_read_once(large: FakeContext) -> None:
    large.placements = {"small": Placement.SESSION}
    assert not repeats(large.plan("SELECT t.v FROM t JOIN small USING (k)"))


@pytest.mark.parametrize("settings", [PlanSettings(repeat_rows=4), PlanSettings(broadcast_bytes=0)])
def test_a_larger_sub_plan_is_computed_once(large: FakeContext, settings: PlanSettings) -> None:
    large.settings = settings
    plan = large.plan(f"SELECT t.v FROM t JOIN ({SMALL}) AS s USING (k)")
    assert not repeats(plan), describe(plan)
