"""Shared expressions that are read once, or cost no more than a reading, are written in place."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.logical.nodes import Computed, CteRef, Filter, Node, Project, Scan, Values, rewrite, walk
from sabot_planner.sql.scalars import column, substitute


def inline_ctes(root: Node) -> Node:
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
        items = tuple(Computed(n, column(c)) for n, c in zip(node.names, node.shared.columns, strict=True))
        copy = _fresh_copy(node.shared.input, f"x{node.names[0]}") if readings[node.shared.cte_id] > 1 else None
        if copy is None:
            return Project(node.shared.input, items)
        body, renamed = copy
        return Project(
            body, tuple(Computed(i.name, column(renamed[c])) for i, c in zip(items, node.shared.columns, strict=True))
        )

    return rewrite(root, inline)


def _cheap(node: Node) -> bool:
    return isinstance(node, Scan | Values) or (isinstance(node, Filter | Project) and _cheap(node.inputs[0]))


def _fresh_copy(node: Node, suffix: str) -> tuple[Node, dict[str, str]]:
    """A copy of a scan with filters and projections whose columns have names of their own."""
    match node:
        case Scan():
            renamed = {n: f"{n}{suffix}" for n in node.names}
            return Scan(node.source, tuple(renamed[n] for n in node.names), node.alias), renamed
        case Values():
            renamed = {n: f"{n}{suffix}" for n in node.names}
            return replace(node, names=tuple(renamed[n] for n in node.names)), renamed
        case Filter():
            body, renamed = _fresh_copy(node.input, suffix)
            mapping = {old: column(new) for old, new in renamed.items()}
            return Filter(body, substitute(node.predicate, mapping)), renamed
        case Project():
            body, inner = _fresh_copy(node.input, suffix)
            mapping = {old: column(new) for old, new in inner.items()}
            outer = {i.name: f"{i.name}{suffix}" for i in node.items}
            items = tuple(Computed(outer[i.name], substitute(i.expression, mapping)) for i in node.items)
            return Project(body, items), outer
        case _:
            raise AssertionError(f"{type(node).__name__} is not cheap to repeat")
