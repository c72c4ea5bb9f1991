"""Where the order of rows comes from, as far as DuckDB documents that it is kept.

DuckDB keeps the order of a scan through SELECT, WHERE, LIMIT, OFFSET, UNION ALL, windows with an empty OVER clause,
common table expressions and table subqueries (its documentation, "Order Preservation"). The tasks of a stage read their
slices in order, so that one task after the other gives the order of the source. Only UNION ALL needs care: each task
holds a part of every branch, and read one after the other the tasks would mix the branches.
"""

from __future__ import annotations

from collections.abc import Iterator

from sabot_planner.distribute.two_phase import depends_on_order
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, passed, reached, replace_inputs, walk
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Filter,
    Join,
    JoinKind,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    Sample,
    SetKind,
    SetOp,
    Shared,
    Window,
)
from sabot_planner.sql.duck_type import UBIGINT
from sabot_planner.sql.scalars import column, integer


def ordered_by(node: Node) -> tuple[Node, ...]:
    """The inputs whose rows, one input after the other, give the order of the node's; none where it has its own."""
    if isinstance(node, Filter | Project | LateralCall | Shared):
        return (node.input,)
    if isinstance(node, CteRef):
        return (node.shared,)
    if isinstance(node, SetOp) and node.kind is SetKind.UNION_ALL:
        return node.branches
    return (node.left,) if isinstance(node, Join) and joins_one_row(node) else ()


def joins_one_row(node: Join) -> bool:
    """Whether the join adds the one row of an aggregate to every row, as a window over all rows does."""
    return node.kind is JoinKind.CROSS and isinstance(node.right, Aggregate) and not node.right.keys


def order_is_unions(node: Node) -> bool:
    """Whether the order of the node's rows is that of a UNION ALL's branches."""
    while not isinstance(node, SetOp):
        below = ordered_by(node)
        if not below:
            return False
        (node,) = below
    return node.kind is SetKind.UNION_ALL


def to_keep_in_order(root: Node) -> frozenset[Node]:
    """What would lose an order that is shown, by the result or by a node above.

    These are shared expressions of a UNION ALL, windows over all rows where their rows would be dealt to tasks, and
    such windows in a branch of a UNION ALL, whose stage may read a table of the session beside them.
    """
    shown = [root, *(inner for node in walk(root) for inner in _shows_order_of(node))]
    nodes = reached(shown, ordered_by)
    unions = [node for node in nodes if isinstance(node, SetOp)]
    windows: set[Node] = {node for node in reached(unions, ordered_by) if isinstance(node, Window)}
    return frozenset(windows) | frozenset(
        node
        for node in nodes
        if (isinstance(node, Shared) and order_is_unions(node.input))
        or (isinstance(node, Join) and joins_one_row(node))
    )


def _shows_order_of(node: Node) -> tuple[Node, ...]:
    """The inputs the order of whose rows decides what the node gives."""
    if isinstance(node, Limit | LimitBy | Sample):
        return (node.input,)
    if isinstance(node, Window):
        return () if node.partition_by else (node.input,)
    if isinstance(node, Aggregate):
        return (node.input,) if not node.keys and any(map(depends_on_order, node.aggregates)) else ()
    if isinstance(node, RecursiveCte):
        return (node.anchor,)
    return node.inputs if isinstance(node, Join) and node.kind is JoinKind.POSITIONAL else ()


def branches_of(node: Node) -> tuple[Node, ...] | None:
    """The branches whose rows, one branch after the other, give the order of ``node``; None where that is not all.

    Nothing but filters, projections and calls by row stands above them.
    """
    if isinstance(node, SetOp) and node.kind is SetKind.UNION_ALL:
        found: list[Node] = []
        for branch in node.branches:
            inner = branches_of(branch) if order_is_unions(branch) else (branch,)
            if inner is None:
                return None
            found += inner
        return tuple(found)
    return branches_of(node.input) if isinstance(node, Filter | Project | LateralCall) else None


def numbered_branches(node: Node, number: str, values: Iterator[int], names: PlanNames) -> Node:
    """``node`` with a last column ``number`` that says of which branch a row is, by the next of ``values`` for each."""
    if isinstance(node, SetOp):
        branches = []
        for branch in node.branches:
            own = names.column()
            if order_is_unions(branch):
                branches.append(numbered_branches(branch, own, values, names))
            else:
                value = Computed(own, integer(next(values), "UBIGINT"), UBIGINT)
                branches.append(Project(branch, (*passed(branch), value)))
        return SetOp(node.kind, tuple(branches), (*node.names, number))
    assert isinstance(node, Filter | Project | LateralCall)
    below = numbered_branches(node.input, names.column(), values, names)
    carried = Computed(number, column(below.columns[-1]), UBIGINT)
    if isinstance(node, Project):
        return Project(below, (*node.items, carried))
    return Project(replace_inputs(node, (below,)), (*passed(node), carried))
