"""Placing ORDER BY and LIMIT."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.partitioning import Arbitrary, OneTask, SinglePartition, Sorted, satisfies
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.row_order import order_is_unions
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.node import replace_inputs
from sabot_planner.logical.nodes import Limit, SetKind, SetOp, Sort

TOP_N_ROWS = 100_000
"""Up to so many rows ORDER BY … LIMIT is cheaper as a top-N per task than as a range shuffle."""


def place_sort(context: PlacementContext, node: Sort, parallel: bool) -> Placed:
    """The sort placed: ranges of its keys, or the first rows of each task where few are wanted."""
    child = context.settled(context.place(node.input, parallel))
    if satisfies(child.partitioning, OneTask()):
        return replace(child, node=replace_inputs(node, (child.node,)), partitioning=SinglePartition())
    if node.limit is not None and node.limit + node.offset <= TOP_N_ROWS:
        first = Sort(child.node, node.keys, node.limit + node.offset, 0)
        gathered = context.gather(Placed(first, Arbitrary()), f"top {node.limit + node.offset} of each task")
        return Placed(replace(node, input=gathered.node), SinglePartition())
    exchange = context.exchange(child, ShuffleEdgeType.RANGE, sort=node, reason="global order")
    ordered = Placed(Sort(exchange, node.keys), Sorted())
    if node.limit is None and not node.offset:
        return ordered
    return _limited(context, ordered, Limit(node.input, node.limit, node.offset))


def place_limit(context: PlacementContext, node: Limit, parallel: bool) -> Placed:
    """The limit placed: the first rows of each task, and of those the first."""
    if node.percent is not None:
        gathered = context.gather_in_order(node.input, parallel, "LIMIT by percent needs the number of all rows")
        return Placed(replace(node, input=gathered.node), SinglePartition())
    child = node.input
    if isinstance(child, SetOp) and child.kind is SetKind.UNION_ALL and node.limit is not None:
        # Each branch gives its first rows, in one task; together they hold the first rows of all.
        first = tuple(Limit(b, node.limit + node.offset, 0) for b in child.branches)
        return _limited(context, context.place(replace_inputs(child, first), parallel), replace(node, input=child))
    if order_is_unions(child):
        return _limited(context, context.gather_in_order(child, parallel, "the first rows, in order"), node)
    return _limited(context, context.place(node.input, parallel), node)


def _limited(context: PlacementContext, child: Placed, node: Limit) -> Placed:
    if satisfies(child.partitioning, OneTask()) and not child.local:
        return replace(child, node=replace(node, input=child.node), partitioning=SinglePartition())
    if node.limit is not None:
        child = replace(child, node=Limit(child.node, node.limit + node.offset, 0))
    gathered = context.gather(child, "the first rows, in order")
    return Placed(replace(node, input=gathered.node), SinglePartition())
