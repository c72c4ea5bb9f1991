"""Placing windows: whole partitions by HASH; without PARTITION BY range by range, where that is known to be right."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.partitioning import Clustered, Replicated, SinglePartition, satisfies
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.row_order import order_is_unions
from sabot_planner.distribute.windows.draft import ValueReach, WindowDraft
from sabot_planner.distribute.windows.halo_share import halo_share
from sabot_planner.distribute.windows.items import ItemTypes, add_item
from sabot_planner.distribute.windows.ranges import over_ranges
from sabot_planner.logical.node import Node, SortKey, replace_inputs
from sabot_planner.logical.nodes import Window
from sabot_planner.sql.dialect import function_call
from sabot_planner.sql.scalars import key_name

PARALLEL_ROWS = 200_000
"""From so many rows on sorting them in parallel is worth the stages that carry totals from range to range."""

_LARGEST_HALOS = 0.5
"""The halos of all ranges together may have so many times the rows that there are; beyond, one task sorts them all."""


def place_window(context: PlacementContext, node: Window, parallel: bool) -> Placed:
    """The window placed."""
    keys = node.partition_by
    if keys and context.hashable(keys, node.input):
        child = context.settled(context.place(node.input, parallel))
        if not satisfies(child.partitioning, Clustered(tuple(key_name(k) for k in keys))):
            child = context.hash(child, keys, "window partitions must be whole")
        return replace(child, node=replace_inputs(node, (child.node,)))
    draft = _draft(context, node) if not keys and parallel and worth_ranges(context, node.input) else None
    if draft is not None:
        child = context.place(node.input, parallel)
        if draft.order:
            child = context.settled(child)
        # Without an order the ranges are the tasks: of rows that every task has, each would number all.
        apart = not (child.local or isinstance(child.partitioning, Replicated) or order_is_unions(node.input))
        if (draft.order or apart) and not isinstance(child.partitioning, SinglePartition):
            return over_ranges(context, node, child, draft)
    child = context.gather_in_order(node.input, parallel, "a window without PARTITION BY needs all rows in order")
    return replace(child, node=replace_inputs(node, (child.node,)))


def worth_ranges(context: PlacementContext, *inputs: Node) -> bool:
    """Whether there are so many rows that they are better sorted by several tasks."""
    forced = context.settings.partitions is not None
    return forced or sum(map(context.estimator.rows, inputs)) >= PARALLEL_ROWS


def _draft(context: PlacementContext, node: Window) -> WindowDraft | None:
    """What all columns of the window need to go on from range to range, None where one of them cannot."""
    order = _order(node)
    draft = WindowDraft.of(context.names, order)
    key_kind = _kind(context, node, [k.expression for k in order])
    for item in node.items:
        found = function_call(item.expression)
        argument_kind = _kind(context, node, found[1] if found is not None else [])
        if not add_item(draft, item, ItemTypes(argument_kind, key_kind)):
            return None
    halos = [halo_share(context, node.input, r) for r in draft.reaches if isinstance(r, ValueReach)]
    return draft if max(halos, default=0.0) * context.width <= _LARGEST_HALOS else None


def _kind(context: PlacementContext, node: Window, expressions: list[exp.Expression]) -> str:
    """The kind of the first expression's type, empty where there is none."""
    return context.types_of(expressions[:1], node.input)[0].kind if expressions else ""


def _order(node: Window) -> tuple[SortKey, ...]:
    """The order that all columns of a window without PARTITION BY have."""
    order = node.items[0].expression.args.get("order")
    return tuple(
        SortKey(o.args["this"], bool(o.args.get("desc")), bool(o.args.get("nulls_first")))
        for o in (order.args["expressions"] if order is not None else ())
    )
