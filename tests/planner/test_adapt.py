"""Plans change while they run, and only where that loses nothing: names, groups and finished work stay."""

from __future__ import annotations

import pytest

from sabot_planner import Decided, EdgeFacts, OperatorGraph, PlanSettings, QueryPlan, ShuffleEdge, ShuffleEdgeType
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast

HASH, BROADCAST = ShuffleEdgeType.HASH, ShuffleEdgeType.BROADCAST
JOIN = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k"


@pytest.fixture
def large(context: FakeContext) -> FakeContext:
    """Planned for 200 million rows of t and 60 million of u; what is measured is in the test's hands."""
    context.settings, context.factor = PlanSettings(), 1_000_000
    return context


def graph(plan: QueryPlan) -> OperatorGraph:
    return plan.operator_graph


def join_sides(plan: QueryPlan) -> tuple[ShuffleEdge, ShuffleEdge]:
    """The edge that is measured first and the one whose producer waits for it."""
    waiting = next(o for o in graph(plan).operators if o.start_after)
    (late,) = graph(plan).outputs_of(waiting.operator_id)
    (first,) = (e for e in graph(plan).inputs_of(late.target) if e.source in waiting.start_after)
    return first, late


def measured(plan: QueryPlan, edge: ShuffleEdge, size_bytes: int, rows: int = 100) -> QueryPlan:
    return plan.revise({edge.edge_id: EdgeFacts(rows, size_bytes)}, frozenset({edge.source}))


def test_the_smaller_side_runs_first(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, late = join_sides(plan)
    assert (first.edge_type, late.edge_type) == (HASH, HASH)
    assert (first.bytes_estimated or 0) < (late.bytes_estimated or 0)


def test_a_side_that_turns_out_small_is_copied_and_the_other_never_moves(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, late = join_sides(plan)
    revised = measured(plan, first, 36_000)
    (edge,) = graph(revised).edges
    assert (edge.edge_id, edge.edge_type, edge.write_type) == (first.edge_id, BROADCAST, HASH)
    assert (edge.decided, edge.partitions) == (Decided.RUN, first.partitions)
    assert "36 kB" in edge.reason
    assert "estimated" in edge.reason
    assert late.target in {o.operator_id for o in graph(revised).operators}, "the join's stage keeps its name"
    assert len(graph(revised).operators) == len(graph(plan).operators) - 1


def test_a_side_as_large_as_was_thought_stays_hashed(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, _ = join_sides(plan)
    assert measured(plan, first, 1 << 30, 60_000_000) is plan


def test_nothing_changes_once_the_other_side_has_started(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, late = join_sides(plan)
    facts = {first.edge_id: EdgeFacts(100, 36_000)}
    assert plan.revise(facts, frozenset({first.source, late.source})) is plan
    assert plan.revise(facts, frozenset({first.source, late.source, late.target})) is plan


def test_a_group_by_that_reuses_the_hash_of_the_join_keeps_it(large: FakeContext) -> None:
    """Copied, the rows of a group would stay wherever the other side lies: one group per task."""
    for sql in (
        "SELECT u.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY u.k",
        "SELECT DISTINCT t.k FROM t JOIN u ON t.k = u.k",
        "SELECT t.k, sum(u.w) OVER (PARTITION BY t.k) FROM t JOIN u ON t.k = u.k",
    ):
        plan = large.plan(sql)
        for edge in graph(plan).edges:
            if edge.edge_type is HASH:
                revised = measured(plan, edge, 1_000)
                assert {e.edge_type for e in graph(revised).edges if not e.rereads} == {HASH}, describe(revised)


@pytest.mark.parametrize(
    ("join", "kept"),
    [
        ("t LEFT JOIN u", "t"),
        ("t RIGHT JOIN u", "u"),
        ("t FULL JOIN u", "t"),
        ("t FULL JOIN u", "u"),
        ("t SEMI JOIN u", "t"),
        ("t ANTI JOIN u", "t"),
    ],
)
def test_a_preserved_side_is_never_copied_however_small(large: FakeContext, join: str, kept: str) -> None:
    columns = "t.v" if "SEMI" in join or "ANTI" in join else "t.v, u.w"
    plan = large.plan(f"SELECT {columns} FROM {join} ON t.k = u.k")
    (edge,) = (e for e in graph(plan).edges if f"scan {kept}" in graph(plan).operator(e.source).label)
    assert edge.edge_type is HASH, describe(plan)
    revised = measured(plan, edge, 1_000)
    assert {e.edge_type for e in graph(revised).edges if not e.rereads} == {HASH}, describe(revised)


def test_a_side_that_was_to_be_copied_and_is_large_is_hashed(large: FakeContext) -> None:
    large.factor, large.settings = 2000, PlanSettings(broadcast_bytes=4 << 20)
    plan = large.plan(JOIN)
    (copied,) = graph(plan).edges
    assert (copied.edge_type, copied.write_type) == (BROADCAST, HASH), describe(plan)
    revised = measured(plan, copied, 40 << 20, 5_000_000)
    sides = graph(revised).edges
    assert {e.edge_type for e in sides} == {HASH}
    assert {e.partitions for e in sides} == {copied.partitions}, "what is written already decides the buckets"
    assert {e.decided for e in sides} == {Decided.RUN}
    assert copied.edge_id in {e.edge_id for e in sides}
    assert copied.source in {e.source for e in sides}
    assert len({e.keys for e in sides}) == 1


def test_names_are_never_given_twice(large: FakeContext) -> None:
    plan = large.plan("SELECT t.v, u.w, e.at FROM t JOIN u ON t.k = u.k JOIN early AS e ON e.k = u.n")
    names = {e.edge_id: e.source for e in graph(plan).edges}
    facts: dict[str, EdgeFacts] = {}
    for edge_id in list(names):
        facts[edge_id] = EdgeFacts(10, 1_000)
        plan = plan.revise(facts, frozenset(names[e] for e in facts))
        for edge in graph(plan).edges:
            assert names.setdefault(edge.edge_id, edge.source) == edge.source, "an edge keeps its producer"


NO_ROWS = "(SELECT * FROM u WHERE w * w = 7) AS u"
CHAINS = {
    "one join": JOIN,
    "two joins": "SELECT t.v, u.w, small.name FROM t JOIN u ON t.k = u.k JOIN small ON small.k = u.w % 5",
    "three joins": "SELECT count(*), sum(a.v) FROM t AS a JOIN u ON a.k = u.k JOIN t AS b ON b.v = u.w"
    " JOIN early AS e ON e.v = b.v",
    "semi in a join": "SELECT t.v, u.w FROM t JOIN u ON t.v = u.w"
    " WHERE t.k IN (SELECT k FROM early) AND u.n IN (SELECT k FROM late)",
    "left joins": "SELECT t.v, u.w, e.at FROM t LEFT JOIN u ON t.v = u.w LEFT JOIN early AS e ON e.v = u.n",
    "shared": "WITH c AS MATERIALIZED (SELECT t.k, u.w FROM t JOIN u ON t.k = u.k WHERE u.w > 30)"
    " SELECT a.k, b.w FROM c AS a JOIN c AS b ON a.k = b.w % 7 JOIN small ON small.k = a.k WHERE a.w > 57",
    "shared on both sides": "WITH c AS MATERIALIZED (SELECT k, sum(v) AS w FROM t GROUP BY k)"
    " SELECT x.k, y.w, count(*) FROM c AS x LEFT JOIN c AS y ON x.w = y.k GROUP BY ALL UNION ALL SELECT k, k, 1 FROM c",
    "shared twice": "WITH c AS MATERIALIZED (SELECT k, max(v) AS mv FROM t GROUP BY k),"
    " d AS MATERIALIZED (SELECT c.k, u.w FROM c JOIN u ON c.k = u.k)"
    " SELECT * FROM d JOIN c ON d.k = c.k UNION ALL SELECT k, w, k, w FROM d",
    "union": "SELECT t.v FROM t JOIN u ON t.k = u.k UNION ALL SELECT e.v FROM early AS e JOIN late AS l ON e.v = l.v",
    "top": "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k ORDER BY t.v DESC, u.w LIMIT 9",
    "order": "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k ORDER BY t.v DESC, u.w",
    "partial": "SELECT u.s, sum(t.v) FROM t JOIN u ON t.k = u.k GROUP BY u.s",
    "window": "SELECT t.v, row_number() OVER (PARTITION BY u.s ORDER BY t.v, u.w) FROM t JOIN u ON t.k = u.k",
    "no row of one side": f"SELECT t.v, u.w FROM t JOIN {NO_ROWS} ON t.k = u.k",
    "no row of the left side": "SELECT t.v, u.w FROM (SELECT * FROM t WHERE v * v = 7) AS t LEFT JOIN u ON t.k = u.k",
    "no row of the right side": f"SELECT t.v, u.w FROM t LEFT JOIN {NO_ROWS} ON t.k = u.k",
    "no row to exclude": f"SELECT t.v FROM t ANTI JOIN {NO_ROWS} ON t.k = u.k",
    "nothing to count": f"SELECT count(*), sum(t.v) FROM t JOIN {NO_ROWS} ON t.k = u.k",
    "nothing on a full side": f"SELECT t.v, u.w FROM t FULL JOIN {NO_ROWS} ON t.k = u.k",
}


@pytest.mark.parametrize("estimates", ["too large", "too small"])
@pytest.mark.parametrize("name", CHAINS)
def test_wrong_estimates_never_change_rows(large: FakeContext, name: str, estimates: str) -> None:
    sql = CHAINS[name]
    if estimates == "too small":
        # The plan copies what it can; measured sides are all 'too large' then.
        large.factor, large.settings = 2000, PlanSettings(broadcast_bytes=4 << 20, gather_rows=0)
    plan = large.plan(sql)
    simulation = Simulation(large, plan, bytes_factor=100_000 if estimates == "too small" else 1)
    assert_same(fetch(large.connection, sql), simulation.run())
    if name in ("one join", "three joins", "partial"):
        assert simulation.plan is not plan, "there was something to decide again"


ABOVE_NOTHING = {
    "a branch": "SELECT v FROM ({join}) UNION ALL SELECT v FROM t",
    "a branch of a group by": "SELECT v, count(*) FROM (SELECT v FROM ({join}) UNION ALL SELECT v FROM t) GROUP BY v",
    "a preserved right side": "SELECT t.v, j.w FROM ({join}) AS j RIGHT JOIN t ON j.v = t.v",
    "an exists over it": "SELECT t.v FROM t WHERE EXISTS (SELECT 1 FROM ({join}) AS j WHERE j.v = t.v)",
    "a preserved left side": "SELECT t.v, j.w FROM t LEFT JOIN ({join}) AS j ON j.v = t.v",
    "read twice": "WITH j AS MATERIALIZED ({join}) SELECT a.v, b.w FROM j AS a FULL JOIN j AS b ON a.v = b.w",
    "read and joined": "WITH j AS MATERIALIZED ({join}) SELECT t.v, a.w FROM t LEFT JOIN j AS a ON t.v = a.v"
    " UNION ALL SELECT v, w FROM j",
    "an order": "SELECT v FROM ({join}) ORDER BY v LIMIT 3",
    "groups": "SELECT v, count(*) FROM ({join}) GROUP BY v",
    "one group": "SELECT count(*), sum(w) FROM ({join})",
    "ranks": "SELECT v, row_number() OVER (ORDER BY w) FROM ({join})",
    "grouping sets": "SELECT v, w, count(*) FROM ({join}) GROUP BY CUBE (v, w)",
}


@pytest.mark.parametrize("filtered", [True, False], ids=["filters", "no filters"])
@pytest.mark.parametrize("copied", [True, False], ids=["copied", "hashed"])
@pytest.mark.parametrize("name", ABOVE_NOTHING)
def test_what_is_above_an_empty_join_stands_it_or_the_join_stays(
    context: FakeContext, name: str, copied: bool, filtered: bool
) -> None:
    context.settings = forced(
        3, broadcast_bytes=1 << 20 if copied else 0, filter_bytes=0 if filtered else 1 << 40, coalesce_bytes=0
    )
    sql = ABOVE_NOTHING[name].format(join=f"SELECT t.v, u.w FROM t JOIN {NO_ROWS} ON t.k = u.k")
    plan = context.plan(sql)
    simulation = Simulation(context, plan)
    assert_same(fetch(context.connection, sql), simulation.run())


@pytest.mark.parametrize(
    ("value", "computed"),
    [
        ("v", False),
        ("CAST('x' || v AS INTEGER)", False),
        ("CAST(v AS TINYINT) * 2::TINYINT", False),
        ("CAST('day ' || v AS DATE)", False),
        ("CASE WHEN v > 500 THEN error('no') ELSE v END", True),
    ],
    ids=["a column", "a cast", "arithmetic", "a date", "a call of error"],
)
def test_what_may_raise_is_computed_also_where_no_row_reads_it(large: FakeContext, value: str, computed: bool) -> None:
    plan = large.plan(f"SELECT x.v, u.w FROM (SELECT k, {value} AS v FROM t) AS x JOIN u ON x.k = u.k")
    first, _ = join_sides(plan)
    revised = measured(plan, first, 0, rows=0)
    scanned = {scan.source_id for o in graph(revised).operators for scan in o.scans}
    assert (len(scanned) == 2) is computed, describe(revised)


@pytest.mark.parametrize("name", ["one join", "three joins", "shared", "union"])
def test_switching_it_off_gives_the_same_rows(large: FakeContext, name: str) -> None:
    large.settings = PlanSettings(adaptive=False)
    plan = large.plan(CHAINS[name])
    assert plan.planner_state is None
    assert not any(o.start_after for o in graph(plan).operators)
    assert plan.revise({}, frozenset()) is plan
    assert_same(fetch(large.connection, CHAINS[name]), Simulation(large, plan).run())
