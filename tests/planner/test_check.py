"""The checker stands alone: it must stop every broken plan, whatever pass of the planner broke it.

A good plan is broken in every way that changes one exchange; what the checker lets through must still give the rows of
plain DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlglot import exp

from sabot_planner import Placement, QueryPlan, ShuffleEdgeType
from sabot_planner.adapt.replan import AdaptivePlan
from sabot_planner.distribute.check import check
from sabot_planner.errors import InvalidGraph, PlannerError
from sabot_planner.fragments.stages import OpenEdges, cut
from sabot_planner.job.operators import OperatorType
from sabot_planner.logical.node import Node, replace_inputs, rewrite, walk
from sabot_planner.logical.nodes import Join, JoinKind
from sabot_planner.physical.nodes import CutRef, Exchange, HaloWindow, PartitionId, TaskScan
from sabot_planner.sql.scalars import column
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import Rows, difference
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast

QUERIES = {
    "inner join": "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k",
    "two keys": "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k AND t.n = u.n",
    "one column in two equalities": "SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k AND t.v = u.k GROUP BY t.k, t.n",
    "left join": "SELECT t.v, u.w FROM t LEFT JOIN u ON t.k = u.k AND u.w > 20",
    "right join": "SELECT t.v, u.w FROM t RIGHT JOIN u ON t.k = u.k AND t.v > 150",
    "full join": "SELECT t.v, u.w FROM t FULL JOIN u ON t.k = u.k",
    "semi join": "SELECT t.v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.w > t.v)",
    "anti join": "SELECT t.v FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.n AND u.w > t.v)",
    "NOT IN": "SELECT t.v FROM t WHERE t.n NOT IN (SELECT n FROM u WHERE n > 2)",
    "cross join": "SELECT t.v, small.name FROM t, small WHERE t.v > small.k * 40",
    "asof join": "SELECT e.v, l.v FROM early AS e ASOF JOIN late AS l ON e.k = l.k AND e.at >= l.at",
    "asof join over ranges": "SELECT e.v, l.v FROM early AS e ASOF LEFT JOIN late AS l ON e.at < l.at",
    "group by": "SELECT k, sum(v), avg(f) FROM t GROUP BY k",
    "group by rows": "SELECT k, median(f) FROM t GROUP BY k",
    "no keys": "SELECT sum(v), avg(f) FROM t",
    "distinct": "SELECT DISTINCT k, g FROM t",
    "count distinct": "SELECT k, count(DISTINCT g) FROM t GROUP BY k",
    "distinct on": "SELECT DISTINCT ON (k) k, v FROM t ORDER BY k, v DESC",
    "rollup": "SELECT k, g, sum(v) FROM t GROUP BY ROLLUP (k, g)",
    "window": "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v) FROM t",
    "global window": "SELECT v, row_number() OVER (ORDER BY v) FROM t",
    "moving window": "SELECT v, lag(v, 2) OVER (ORDER BY v), sum(v) OVER (ORDER BY v ROWS 3 PRECEDING) FROM t",
    "moving window over values": "SELECT v, sum(v) OVER (ORDER BY k RANGE 1 PRECEDING) FROM t",
    "window in source order": "SELECT v, row_number() OVER () FROM t",
    "window over all rows": "SELECT v, sum(v) OVER () FROM t",
    "order by": "SELECT v, k FROM t ORDER BY k, v DESC",
    "top": "SELECT v FROM t ORDER BY v DESC LIMIT 7 OFFSET 2",
    "limit": "SELECT count(*) FROM (SELECT * FROM t LIMIT 17)",
    "except": "SELECT k, g FROM t EXCEPT SELECT k, w FROM u",
    "intersect all": "SELECT k FROM t INTERSECT ALL SELECT k FROM u",
    "union all": "SELECT k, name FROM small UNION ALL (SELECT k, s FROM t ORDER BY v LIMIT 3)",
    "shared": "WITH c AS MATERIALIZED (SELECT k, sum(v) AS sv FROM t GROUP BY k)"
    " SELECT a.k, b.sv FROM c AS a JOIN c AS b ON a.sv = b.sv UNION ALL SELECT max(k), max(sv) FROM c",
    "reuse": "SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k",
    "recursive": "WITH RECURSIVE r(k) AS (SELECT 1 UNION SELECT u.w FROM r JOIN u ON u.k = r.k) SELECT k FROM r",
}
SETTINGS = {"hash": forced(3), "broadcast": forced(3, broadcast_bytes=1 << 20)}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", QUERIES)
def test_a_broken_exchange_never_gives_wrong_rows(context: FakeContext, name: str, settings: str) -> None:
    context.settings = SETTINGS[settings]
    plan = context.plan(QUERIES[name])
    expected = fetch(context.connection, QUERIES[name])
    slipped = []
    for what, broken in mutants(state(plan).root):
        try:
            check(broken)
            rows = run(context, plan, broken)
        except (PlannerError, InvalidGraph):
            continue
        if difference(expected, rows) is not None:
            slipped.append(what)
    assert not slipped, f"{slipped} let through in\n{describe(plan)}"


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", QUERIES)
def test_a_good_plan_passes(context: FakeContext, name: str, settings: str) -> None:
    context.settings = SETTINGS[settings]
    root = state(context.plan(QUERIES[name])).root
    check(root)
    assert any(isinstance(n, Exchange) for n in walk(root))


def test_rows_that_every_task_has_are_not_numbered_by_task(context: FakeContext) -> None:
    context.settings = SETTINGS["hash"]
    root = state(context.plan(QUERIES["window in source order"])).root
    local = next(n.reference.shared.input for n in walk(root) if isinstance(n, CutRef))
    assert any(isinstance(n, PartitionId) for n in walk(local))
    check(local)

    def whole(node: Node) -> Node:
        own = isinstance(node, TaskScan) and "v" in {column.name for column in node.scan.source.columns}
        return replace(node, sliced=False) if own else node

    with pytest.raises(PlannerError, match="rows that lie in one task each"):
        check(rewrite(local, whole))


@pytest.mark.parametrize("kind", [JoinKind.FULL, JoinKind.RIGHT, JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI])
def test_the_right_side_is_never_copied_where_its_unmatched_rows_come_out(context: FakeContext, kind: JoinKind) -> None:
    context.settings = SETTINGS["broadcast"]
    root = state(context.plan("SELECT small.name FROM t JOIN small ON t.k = small.k")).root
    joins = [n for n in walk(root) if isinstance(n, Join)]
    assert [n.edge_type for j in joins for n in (j.left, j.right) if isinstance(n, Exchange)] == ["broadcast"]
    copied = "right" if isinstance(joins[0].right, Exchange) else "left"
    broken = kind if copied == "right" else JoinKind.LEFT
    with pytest.raises(PlannerError, match=f"the {copied} side not copied"):
        check(rewrite(root, lambda n: replace(n, kind=broken) if isinstance(n, Join) else n))


def test_a_halo_is_copied_and_stays_within_its_range(context: FakeContext) -> None:
    root = state(context.plan(QUERIES["moving window"])).root
    (window,) = [n for n in walk(root) if isinstance(n, HaloWindow)]
    assert isinstance(window.halo, Exchange)
    for broken, why in (
        (replace(window, halo=window.halo.input), "its halo in every task"),
        (replace(window, range_name=window.rows.columns[0]), "windows within a range"),
    ):
        with pytest.raises(PlannerError, match=why):
            check(_replaced(root, window, broken))


def test_rows_of_the_sessions_memory_are_read_once(context: FakeContext) -> None:
    context.placements = {"t": Placement.SESSION}
    plan = context.plan("SELECT k, sum(v) FROM t GROUP BY k")
    check(state(plan).root)
    (scan,) = [o for o in plan.operator_graph.operators if o.placement is Placement.SESSION]
    assert (scan.parallelism, scan.operator_type) == (1, OperatorType.SOURCE)


# --- breaking plans


def mutants(root: Node) -> Iterator[tuple[str, Node]]:
    """Every plan that differs from ``root`` in one exchange."""
    for old in [n for n in everything(root) if isinstance(n, Exchange)]:
        for what, new in broken_exchanges(old):
            yield f"{old.edge_type} {' '.join(map(str, old.keys))}: {what}", _replaced(root, old, new)


def broken_exchanges(old: Exchange) -> Iterator[tuple[str, Node]]:
    yield "dropped", old.input
    if old.edge_type is not ShuffleEdgeType.BROADCAST:
        yield "broadcast", replace(old, edge_type=ShuffleEdgeType.BROADCAST, gather=False, keys=(), sort_keys=())
    if old.edge_type is not ShuffleEdgeType.REBALANCE or old.gather:
        yield (
            "dealt out",
            replace(old, edge_type=ShuffleEdgeType.REBALANCE, gather=False, keys=(), sort_keys=(), written_as=None),
        )
    if old.edge_type is ShuffleEdgeType.HASH:
        others = [c for c in old.columns if exp.Column(this=exp.Identifier(this=c)) not in old.keys]
        for other in others[:2]:
            yield f"hashed by {other} instead", replace(old, keys=(column(other),))
            yield f"hashed by {other} too", replace(old, keys=(*old.keys, column(other)))
        if len(old.keys) > 1:
            yield "hashed in another order", replace(old, keys=old.keys[::-1])
            yield "hashed by one key less", replace(old, keys=old.keys[1:])


def everything(root: Node) -> list[Node]:
    """The nodes of all stages, those of shared expressions too."""
    found = {id(n): n for n in walk(root)}
    for node in [n for n in found.values() if isinstance(n, CutRef)]:
        found |= {id(n): n for n in everything(node.reference.shared)}
    return list(found.values())


def _replaced(root: Node, old: Node, new: Node) -> Node:
    done: dict[int, Node] = {}

    def visit(node: Node) -> Node:
        if id(node) not in done:
            if node is old:
                done[id(node)] = new
            elif isinstance(node, CutRef):
                done[id(node)] = node.with_shared(visit(node.reference.shared))
            else:
                done[id(node)] = replace_inputs(node, tuple(visit(i) for i in node.inputs))
        return done[id(node)]

    return visit(root)


def state(plan: QueryPlan) -> AdaptivePlan:
    assert isinstance(plan.planner_state, AdaptivePlan), describe(plan)
    return plan.planner_state


def run(context: FakeContext, plan: QueryPlan, root: Node) -> Rows:
    graph = cut(root, state(plan).cut_context, OpenEdges())
    return Simulation(context, replace(plan, operator_graph=graph, planner_state=None), adaptive=False).run()
