"""Decide where rows must move: logical plan in, the same plan with ``Exchange`` nodes out.

Each operator states what it requires of its inputs, each placed sub-plan what it offers; where the two differ one
``Exchange`` is inserted. The walk is bottom-up, and every decision is taken once.
"""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.distribute.aggregate import place_aggregate
from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.join import place_join
from sabot_planner.distribute.order_and_limit import place_limit, place_sort
from sabot_planner.distribute.partitioning import Arbitrary, Ranged, Replicated, SinglePartition, from_afar, renamed
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.set_operations import place_distinct, place_set_operation
from sabot_planner.distribute.windows.place_window import place_window
from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import Placement
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, replace_inputs, walk
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.physical.nodes import TaskScan
from sabot_planner.sql.scalars import key_name


def place_node(context: PlacementContext, node: Node, parallel: bool) -> Placed:
    """The node and what is below it placed; without ``parallel`` in one task."""
    match node:
        case Scan():
            return _scan(context, node, parallel)
        case Values():
            return Placed(node, Replicated())
        case Filter() | LateralCall():
            child = context.place(node.inputs[0], parallel)
            return replace(child, node=replace_inputs(node, (child.node,)))
        case Project():
            return _project(context, node, parallel)
        case Join():
            return place_join(context, node, parallel)
        case Aggregate():
            return place_aggregate(context, node, parallel)
        case Window():
            return place_window(context, node, parallel)
        case Sort():
            return place_sort(context, node, parallel)
        case Limit():
            return place_limit(context, node, parallel)
        case LimitBy():
            rows = context.gather_in_order(node.input, parallel, "LIMIT by a value that the query computes")
            value = context.gather(context.place(node.values, parallel), "the value of LIMIT")
            return Placed(replace_inputs(node, (rows.node, value.node)), SinglePartition())
        case Distinct():
            return place_distinct(context, node, parallel)
        case Sample():
            return _in_one_task(context, node, parallel, "SAMPLE depends on the order of all rows")
        case SetOp():
            return place_set_operation(context, node, parallel)
        case CteRef():
            shared = context.place(node.shared, parallel)
            assert isinstance(shared.node, Shared)
            own = {c: {n} for c, n in zip(shared.node.columns, node.names, strict=True)}
            # What another stage computes is read from it, literals too: nothing shared is everywhere at no cost.
            part = from_afar(shared.partitioning, own)
            return Placed(CteRef(shared.node, node.names), part)
        case Shared():
            if node in context.in_order:
                child = context.gather_in_order(node.input, parallel, "a shared UNION ALL is read in its own order")
            else:
                child = context.settled(context.place(node.input, parallel))
            return replace(child, node=replace_inputs(node, (child.node,)))
        case RecursiveCte():
            return _recursive(context, node, parallel)
        case _:
            raise UnknownNode(node, "how to place it")


def _scan(context: PlacementContext, node: Scan, parallel: bool) -> Placed:
    source = node.source
    if source.placement is Placement.SESSION:
        return Placed(TaskScan(node, sliced=False), Arbitrary(), local=True)
    sliced = parallel and source.max_slices > 1
    split = context.splits.get(node.names[0]) if sliced else None
    if split is not None:
        name, ranges = split
        return Placed(TaskScan(node, sliced, ranges), Ranged(frozenset({name}), ranges))
    return Placed(TaskScan(node, sliced), Arbitrary() if sliced else SinglePartition())


def _project(context: PlacementContext, node: Project, parallel: bool) -> Placed:
    child = context.place(node.input, parallel)
    names: dict[str, set[str]] = {}
    for item in node.items:
        names.setdefault(key_name(item.expression), set()).add(item.name)
    part = renamed(child.partitioning, names)
    return replace(child, node=replace_inputs(node, (child.node,)), partitioning=part)


def _in_one_task(context: PlacementContext, node: Node, parallel: bool, reason: str) -> Placed:
    placed = [context.gather_in_order(i, parallel, reason) for i in node.inputs]
    return Placed(replace_inputs(node, tuple(p.node for p in placed)), SinglePartition())


def _recursive(context: PlacementContext, node: RecursiveCte, parallel: bool) -> Placed:
    anchor = context.gather_in_order(node.anchor, parallel, "a recursive query runs in one task")
    step = _around_reference(context, node.step, node.cte_id, parallel)
    return Placed(replace_inputs(node, (anchor.node, step)), SinglePartition())


def _around_reference(context: PlacementContext, node: Node, cte_id: str, parallel: bool) -> Node:
    """The step of a recursive query: what does not depend on the round is distributed and gathered."""
    depends = any(isinstance(n, RecursiveRef) and n.cte_id == cte_id for n in walk(node))
    if not depends:
        return context.gather_rows(context.place(node, parallel), "a recursive query runs in one task").node
    if isinstance(node, RecursiveRef):
        return node
    return replace_inputs(node, tuple(_around_reference(context, i, cte_id, parallel) for i in node.inputs))
