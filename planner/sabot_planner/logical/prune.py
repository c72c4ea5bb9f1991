"""Drop columns that nothing above reads, so that an exchange moves only what is needed."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from sabot_planner.errors import UnknownNode
from sabot_planner.logical.expressions import RAISING, functions_of, is_narrowing
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Computed, Node, passed, replace_inputs, walk
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
    SetKind,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.sql.scalars import columns_of


def prune(root: Node) -> Node:
    """The plan without unread columns; the root keeps all of its own."""
    needs: dict[Node, set[str]] = {root: set(root.columns)}
    order = walk(root)
    for node in reversed(order):  # readers come before what they read
        needed = needs.setdefault(node, set())
        for child, names in _asked(node, needed):
            needs.setdefault(child, set()).update(names)
    done: dict[Node, Node] = {}
    for node in order:
        inputs = tuple(_narrowed(done[child], needs[child], node) for child in node.inputs)
        done[node] = _pruned(node, inputs, needs[node])
    return done[root]


def _asked(node: Node, needed: set[str]) -> list[tuple[Node, set[str]]]:
    """What a node asks of each input when ``needed`` is asked of it."""
    match node:
        case Filter():
            return [(node.input, needed | columns_of(node.predicate))]
        case Project():
            kept = _kept_items(node, needed)
            return [(node.input, set(columns_of(*(i.expression for i in kept))))]
        case LateralCall():
            return [(node.input, (needed | columns_of(node.function)) - set(node.names))]
        case Join():
            asked = (needed | columns_of(node.condition)) - {node.marker}
            left, right = set(node.left.columns), set(node.right.columns)
            return [(node.left, {n for n in asked if n in left}), (node.right, {n for n in asked if n in right})]
        case Aggregate():
            kept = node.keys + _kept_aggregates(node, needed)
            return [(node.input, set(columns_of(*(i.expression for i in kept))))]
        case Window():
            own = {i.name for i in node.items}
            kept = tuple(i for i in node.items if i.name in needed)
            read = columns_of(*node.partition_by, *(i.expression for i in kept)) if kept else frozenset()
            return [(node.input, (needed - own) | read)]
        case Sort():
            return [(node.input, needed | columns_of(*(k.expression for k in node.keys)))]
        case LimitBy():
            return [(node.input, needed), (node.values, set(columns_of(node.limit, node.offset)))]
        case Distinct():
            return [(node.input, needed | columns_of(*node.on, *(k.expression for k in node.order)))]
        case SetOp() if node.kind is SetKind.UNION_ALL:
            positions = _positions(node, needed)
            return [(b, {b.columns[i] for i in positions}) for b in node.branches]
        case CteRef():
            index = dict(zip(node.names, node.shared.columns, strict=True))
            return [(node.shared, {index[n] for n in needed})]
        case Shared():
            return [(node.input, needed)]
        case SetOp() | RecursiveCte():
            return [(child, set(child.columns)) for child in node.inputs]
        case Scan() | Values() | Limit() | Sample() | RecursiveRef():
            return [(child, needed & set(child.columns)) for child in node.inputs]
        case _:
            raise UnknownNode(node, "which columns it asks for")


def _positions(node: SetOp, needed: set[str]) -> list[int]:
    positions = [i for i, name in enumerate(node.names) if name in needed]
    return positions or [0]


def _kept_items(node: Project, needed: set[str]) -> tuple[Computed, ...]:
    kept = tuple(i for i in node.items if i.name in needed or _sets_rows(i.expression))
    return kept or node.items[:1]


def _sets_rows(expression: exp.Expression) -> bool:
    # An unread unnest still decides how many rows there are, an unread error() whether there are any.
    return any(name in ("unnest", RAISING) for name in functions_of(expression))


def _kept_aggregates(node: Aggregate, needed: set[str]) -> tuple[Computed, ...]:
    kept = tuple(a for a in node.aggregates if a.name in needed)
    return kept if kept or node.keys else node.aggregates[:1]


_MAY_MOVE = (Aggregate, Distinct, Join, LateralCall, Limit, LimitBy, Sample, Shared, Sort, Window)
"""Nodes whose input may have to move, and then with no column more than they read."""


def _narrowed(child: Node, needed: set[str], reader: Node) -> Node:
    """The child behind a projection to what is needed, where it still shows more and the reader would carry it."""
    if isinstance(reader, SetOp | RecursiveCte | CteRef):
        # Their columns are matched by position.
        if isinstance(reader, SetOp) and reader.kind is SetKind.UNION_ALL and set(child.columns) != needed:
            return _only(child, needed)
        return child
    if not isinstance(reader, _MAY_MOVE) or set(child.columns) <= needed:
        return child
    return _only(child, needed)


def _only(child: Node, needed: set[str]) -> Node:
    names = [n for n in child.columns if n in needed] or [child.columns[0]]
    if len(names) == len(child.columns):
        return child
    items = passed(child, names)
    if isinstance(child, Project) and is_narrowing(child):
        return Project(child.input, items)
    return Project(child, items)


def _pruned(node: Node, inputs: tuple[Node, ...], needed: set[str]) -> Node:
    match node:
        case Project():
            return replace(node, input=inputs[0], items=_kept_items(node, needed))
        case Aggregate():
            groupings = tuple(g for g in node.groupings if g.name in needed)
            return replace(node, input=inputs[0], aggregates=_kept_aggregates(node, needed), groupings=groupings)
        case Window():
            kept = tuple(i for i in node.items if i.name in needed)
            return replace(node, input=inputs[0], items=kept) if kept else inputs[0]
        case SetOp() if node.kind is SetKind.UNION_ALL:
            positions = _positions(node, needed)
            return replace(node, branches=inputs, names=tuple(node.names[i] for i in positions))
        case CteRef():
            shared = inputs[0]
            assert isinstance(shared, Shared)
            index = dict(zip(node.shared.columns, node.names, strict=True))
            return CteRef(shared, tuple(index[c] for c in shared.columns))
        case (
            Scan()
            | Values()
            | Filter()
            | LateralCall()
            | Join()
            | Sort()
            | Limit()
            | LimitBy()
            | Sample()
            | Distinct()
            | SetOp()
            | Shared()
            | RecursiveCte()
            | RecursiveRef()
        ):
            return replace_inputs(node, inputs)
        case _:
            raise UnknownNode(node, "what can be left out")
