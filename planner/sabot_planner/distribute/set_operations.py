"""Placing DISTINCT and set operations."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.partitioning import Arbitrary, Clustered, Hashed, Replicated, SinglePartition, satisfies
from sabot_planner.distribute.placed import Placed
from sabot_planner.logical.node import Node, replace_inputs
from sabot_planner.logical.nodes import Distinct, SetKind, SetOp
from sabot_planner.sql.scalars import column, column_name, key_name


def place_distinct(context: PlacementContext, node: Distinct, parallel: bool) -> Placed:
    """The DISTINCT placed: equal rows are brought together."""
    child = context.settled(context.place(node.input, parallel))
    names = tuple(key_name(e) for e in node.on)
    if satisfies(child.partitioning, Clustered(names)):
        return replace(child, node=replace_inputs(node, (child.node,)))
    if not context.hashable(node.on, node.input):
        gathered = context.gather_rows(child, "DISTINCT over values whose equality is not that of their hash")
        return Placed(replace_inputs(node, (gathered.node,)), SinglePartition())
    plain = not node.order and {column_name(e) for e in node.on} == set(node.columns)
    if plain:
        child = replace(child, node=replace_inputs(node, (child.node,)))
    moved = context.hash(child, node.on, "equal rows must meet")
    return replace(moved, node=replace_inputs(node, (moved.node,)))


def place_set_operation(context: PlacementContext, node: SetOp, parallel: bool) -> Placed:
    """The set operation placed: UNION ALL where its branches are, any other by the hash of all columns."""
    placed = [context.settled(context.place(b, parallel)) for b in node.branches]
    parts = [p.partitioning for p in placed]
    if all(isinstance(p, Replicated) for p in parts):
        return Placed(replace_inputs(node, tuple(p.node for p in placed)), Replicated())
    if all(isinstance(p, SinglePartition | Replicated) for p in parts):
        return Placed(replace_inputs(node, tuple(p.node for p in placed)), SinglePartition())
    if node.kind is SetKind.UNION_ALL:
        moved = [
            context.spread(p, "one branch is in one task, the other is not")
            if isinstance(p.partitioning, SinglePartition | Replicated)
            else p
            for p in placed
        ]
        return Placed(replace_inputs(node, tuple(p.node for p in moved)), Arbitrary())
    branches: list[Node] = []
    if all(context.hashable([column(c) for c in b.columns], b) for b in node.branches):
        branches = [context.hash(p, [column(c) for c in p.node.columns], "equal rows must meet").node for p in placed]
        keys = tuple(frozenset({name}) for name in node.names)
        return Placed(replace_inputs(node, tuple(branches)), Hashed(keys))
    branches = [context.gather_rows(p, "a set operation over values that cannot be hashed").node for p in placed]
    return Placed(replace_inputs(node, tuple(branches)), SinglePartition())
