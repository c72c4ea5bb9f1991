"""MARK joins whose marker is only filtered by become SEMI or ANTI joins."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, passed, replace_inputs, rewrite
from sabot_planner.logical.nodes import Filter, Join, JoinKind, Project
from sabot_planner.sql.duck_type import BOOLEAN
from sabot_planner.sql.scalars import column_name, conjunction, conjuncts, strip_parens


def mark_to_semi(root: Node, names: PlanNames) -> Node:
    """A filter on the marker of a MARK join turns the join into SEMI or ANTI, which can be hashed.

    ``WHERE marker`` drops FALSE and NULL alike, as SEMI does. ``WHERE NOT marker`` is ANTI only where the marker is
    never NULL, which is when every equality is null-safe; otherwise one NULL on the right must silence every row:

        x NOT IN (1, NULL)   is NULL for x = 2, so no row    but ANTI would keep the row
    """
    return rewrite(root, _mark_to_semi)


def _mark_to_semi(node: Node) -> Node:
    if not isinstance(node, Filter):
        return node
    terms = conjuncts(node.predicate)
    for i, term in enumerate(terms):
        term = strip_parens(term)
        negated = type(term) is exp.Not
        name = column_name(strip_parens(term.args["this"]) if negated else term)
        if name is None:
            continue
        replaced = _replace_mark(node.input, name, negated)
        if replaced is not None:
            rest = conjunction(terms[:i] + terms[i + 1 :])
            return _mark_to_semi(Filter(replaced, rest)) if rest is not None else replaced
    return node


def _replace_mark(node: Node, name: str, negated: bool) -> Node | None:
    """``node`` with the MARK join that it shows as ``name`` turned into SEMI or ANTI; None where there is none."""
    if isinstance(node, Join) and node.kind is JoinKind.MARK and node.marker == name:
        if negated and not all(type(t) is exp.NullSafeEQ for t in conjuncts(node.condition)):
            return None
        kind = JoinKind.ANTI if negated else JoinKind.SEMI
        join = Join(kind, node.left, node.right, node.condition)
        known = exp.Boolean(this=not negated)
        return Project(join, (*passed(node.left), Computed(name, known, BOOLEAN)))
    if isinstance(node, Project):
        for item in node.items:
            inner = column_name(item.expression)
            if item.name == name and inner is not None:
                replaced = _replace_mark(node.input, inner, negated)
                return replace_inputs(node, (replaced,)) if replaced is not None else None
    if isinstance(node, Filter):
        replaced = _replace_mark(node.input, name, negated)
        return replace_inputs(node, (replaced,)) if replaced is not None else None
    return None
