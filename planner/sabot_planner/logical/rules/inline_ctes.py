"""Shared expressions that are read once, or cost no more than a reading, are written in place."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, rewrite, walk
from sabot_planner.logical.nodes import CteRef, Filter, Project, Scan, Values
from sabot_planner.sql.scalars import column, substitute


def inline_ctes(root: Node, names: PlanNames) -> Node:
    """Write an expression in place that is read once, or that costs no more to compute than to read back."""
    readings: dict[str, int] = {}
    for node in walk(root):
        if isinstance(node, CteRef):
            readings[node.shared.cte_id] = readings.get(node.shared.cte_id, 0) + 1

    def inline(node: Node) -> Node:
        if not isinstance(node, CteRef):
            return node
        if readings[node.shared.cte_id] > 1 and not _cheap(node.shared.input):
            return node
        shared = node.shared
        body, own = shared.input, {name: name for name in shared.columns}
        if readings[shared.cte_id] > 1:
            body, own = _fresh_copy(shared.input, names)
        read = zip(node.names, shared.schema.items(), strict=True)
        return Project(body, tuple(Computed(name, column(own[old]), kind) for name, (old, kind) in read))

    return rewrite(root, inline)


def _cheap(node: Node) -> bool:
    return isinstance(node, Scan | Values) or (isinstance(node, Filter | Project) and _cheap(node.inputs[0]))


def _fresh_copy(node: Node, names: PlanNames) -> tuple[Node, dict[str, str]]:
    """A copy of a scan with filters and projections whose columns have names of their own."""
    match node:
        case Scan() | Values():
            fresh = names.columns(len(node.names))
            return replace(node, names=fresh), dict(zip(node.names, fresh, strict=True))
        case Filter():
            body, own = _fresh_copy(node.input, names)
            return Filter(body, substitute(node.predicate, {old: column(new) for old, new in own.items()})), own
        case Project():
            body, inner = _fresh_copy(node.input, names)
            mapping = {old: column(new) for old, new in inner.items()}
            items = tuple(Computed(names.column(), substitute(i.expression, mapping), i.type) for i in node.items)
            return Project(body, items), {old.name: new.name for old, new in zip(node.items, items, strict=True)}
        case _:
            raise AssertionError(f"{type(node).__name__} is not cheap to repeat")
