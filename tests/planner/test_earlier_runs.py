"""What a finished stage measured is the estimate of the next plan with the same sub-plan, and decides what it may."""

from __future__ import annotations

import pytest

from sabot_planner import EdgeFacts, PlanSettings, QueryPlan, ShuffleEdge, ShuffleEdgeType
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast

BY_V = "SELECT v, count(*) AS n, avg(w) AS a, sum(w) FROM (SELECT v, n AS w FROM t) GROUP BY v"


@pytest.fixture
def learned(context: FakeContext) -> FakeContext:
    """A context that :func:`run` lets remember what it measures."""
    context.settings = forced(3)
    return context


def run(context: FakeContext, sql: str) -> QueryPlan:
    """Plan and run a query, compare its rows with DuckDB's, and remember what was measured."""
    plan = context.plan(sql)
    simulation = Simulation(context, plan)
    rows = simulation.run()
    assert_same(fetch(context.connection, sql), rows)
    facts = {edge_id: measured.rows for edge_id, measured in simulation.facts.items()} | {"result": len(rows.rows)}
    names = simulation.plan.identities()
    context.memory |= {names[edge_id]: count for edge_id, count in facts.items() if edge_id in names}
    return plan


def edges(plan: QueryPlan) -> tuple[ShuffleEdge, ...]:
    return plan.operator_graph.edges


def test_the_second_plan_estimates_what_the_first_one_measured(learned: FakeContext) -> None:
    sql = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k WHERE t.v % 7 = 3 AND u.w % 5 = 1"
    first, second = run(learned, sql), run(learned, sql)
    assert {e.estimated_by for e in edges(first)} == {"DuckDB"}
    assert {e.estimated_by for e in edges(second)} == {"an earlier run"}
    assert sorted(e.rows_estimated or 0 for e in edges(second)) == [10, 29]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT v, k FROM t WHERE v % 7 = 3 ORDER BY v", "SELECT sum(w) FROM t JOIN u ON t.k = u.k WHERE v % 7 = 3"),
        (
            "SELECT a.g, count(*) FROM t AS a JOIN u AS b ON a.k = b.k WHERE b.w > 9 GROUP BY a.g ORDER BY 1",
            "SELECT count(*) FROM u JOIN t ON u.k = t.k WHERE u.w > 9",
        ),
        (
            "SELECT DISTINCT k FROM t ORDER BY k",
            "SELECT x.k, u.w FROM (SELECT k, max(v) FROM t GROUP BY k) x JOIN u USING (k)",
        ),
    ],
    ids=["filter", "join", "groups"],
)
def test_another_query_with_the_same_part_is_estimated_by_it(learned: FakeContext, before: str, after: str) -> None:
    run(learned, before)
    assert any(e.estimated_by == "an earlier run" for e in edges(run(learned, after)))


def test_another_version_of_a_source_knows_nothing(learned: FakeContext) -> None:
    sql = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k WHERE t.v % 7 = 3"
    run(learned, sql)
    learned.factor = 2  # the fake's versions differ by it
    learned._sources.clear()
    assert not any(e.estimated_by == "an earlier run" for e in edges(learned.plan(sql)))


def test_rows_that_a_filter_kept_back_are_not_taken_for_all(learned: FakeContext) -> None:
    sql = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k AND u.w % 9 = 2"
    learned.settings = forced(3, filter_bytes=0, filter_share=1.0)
    plan = learned.plan(sql)
    simulation = Simulation(learned, plan)
    simulation.run()
    (again,) = (e for e in edges(simulation.plan) if e.rereads)
    filtered = next(e for e in edges(simulation.plan) if e.source == again.target)
    names = simulation.plan.identities()
    assert filtered.edge_id not in names
    assert {again.rereads, "result"} <= names.keys()


# --- a first phase that does not reduce -----------------------------------------------------------------------------


def partial(plan: QueryPlan) -> bool:
    return any(e.reason == "partial groups of equal keys must meet" for e in edges(plan))


def test_a_first_phase_that_left_all_rows_is_skipped_next_time(learned: FakeContext) -> None:
    first, second = run(learned, BY_V), run(learned, BY_V)
    assert partial(first)
    assert not partial(second)
    (edge,) = (e for e in edges(second) if e.edge_type is ShuffleEdgeType.HASH)
    assert edge.reason == "about 200 partial groups of 200 rows by an earlier run: the rows move as they are"
    assert partial(run(learned, "SELECT k, avg(v) FROM t GROUP BY k")), "others reduce"


def test_groups_known_from_another_query_are_enough(learned: FakeContext) -> None:
    run(learned, "SELECT DISTINCT v FROM t ORDER BY v")
    plan = run(learned, BY_V)
    assert not partial(plan), describe(plan)
    filtered = run(learned, BY_V.replace("FROM t)", "FROM t WHERE n > 1)"))
    assert not partial(filtered), describe(filtered)


def test_a_wrong_decision_is_remembered(learned: FakeContext) -> None:
    """By its estimate nothing is reduced; measured, the rows are many more than the groups."""
    run(learned, "SELECT DISTINCT k FROM t ORDER BY k")
    learned.memory = dict.fromkeys((name for name in learned.memory if " in " not in name), 200)
    sql = "SELECT k, count(*) FROM t GROUP BY k"
    assert not partial(run(learned, sql))
    assert partial(run(learned, sql))


def test_the_groups_of_few_keys_are_formed_first(learned: FakeContext) -> None:
    sql = "SELECT k, avg(v) FROM t GROUP BY k"
    for _ in range(2):
        assert partial(run(learned, sql))


@pytest.mark.parametrize(
    "aggregates",
    [
        "count(*), sum(w)",
        "avg(w) FILTER (w > 1)",
        "first(w), last(w)",
        "list(w)",
        "count(DISTINCT w)",
        "arg_max(w, v)",
        "stddev(w), min(w)",
    ],
)
def test_rows_that_move_as_they_are_give_the_same_groups(learned: FakeContext, aggregates: str) -> None:
    sql = f"SELECT v, {aggregates} FROM (SELECT v, n AS w FROM t) GROUP BY v"
    for _ in range(2):
        run(learned, sql)


def test_estimates_of_an_earlier_run_decide_what_is_copied(context: FakeContext) -> None:
    """Thought to be large, measured to be small: the next plan copies it from the start."""
    context.settings, context.factor = PlanSettings(), 1_000_000
    sql = "SELECT t.v, u.w FROM t JOIN (SELECT * FROM u WHERE w % 9 = 2) AS u ON t.k = u.k"
    plan = context.plan(sql)
    assert ShuffleEdgeType.BROADCAST not in {e.edge_type for e in edges(plan)}
    small = min(edges(plan), key=lambda e: e.rows_estimated or 0)
    plan.revise({small.edge_id: EdgeFacts(7, 112)}, frozenset({small.source}))
    context.memory = {plan.identities()[small.edge_id]: 7}
    assert ShuffleEdgeType.BROADCAST in {e.edge_type for e in edges(context.plan(sql))}
