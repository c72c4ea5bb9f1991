"""Rewrites of the logical plan before it is distributed; each is a free function, ``RULES`` is their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlglot import exp

from sabot_planner.logical.nodes import (
    Aggregate,
    Computed,
    CteRef,
    Distinct,
    Filter,
    Join,
    JoinKind,
    Node,
    Project,
    Scan,
    Values,
    replace_inputs,
    rewrite,
    walk,
)
from sabot_planner.logical.rules.asof_joins import asof_in_two_steps
from sabot_planner.logical.rules.whole_windows import whole_windows
from sabot_planner.sql.dialect import to_sql
from sabot_planner.sql.scalars import column, column_name, conjunction, conjuncts, strip_parens, substitute


def mark_to_semi(root: Node) -> Node:
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
        return Project(join, (*(Computed(c, column(c)) for c in node.left.columns), Computed(name, known)))
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
            return Values(tuple(renamed[n] for n in node.names), node.rows), renamed
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


def distinct_in_two_levels(root: Node) -> Node:
    """Aggregates over DISTINCT values become aggregates over a DISTINCT: values meet by (group, value), then by group.

    Their states must not be combined: each task counts a value that others count too, 21 for 7.
    """
    return rewrite(root, _distinct_in_two_levels)


def _distinct_in_two_levels(node: Node) -> Node:
    if not isinstance(node, Aggregate) or node.grouping_sets is not None or not node.aggregates:
        return node
    calls = [a.expression for a in node.aggregates]
    plain = all(
        type(c) is exp.Anonymous
        and c.args.get("distinct")
        and len(c.args["expressions"]) == 1
        and not any(c.args.get(word) for word in ("filter", "order", "nulls", "export_state"))
        for c in calls
    )
    if not plain or len({to_sql(c.args["expressions"][0]) for c in calls}) != 1:
        return node
    value = Computed(f"{node.aggregates[0].name}d", calls[0].args["expressions"][0])
    keys = tuple(Computed(f"{k.name}d", k.expression) for k in node.keys)
    projected = Project(node.input, (*keys, value))
    deduplicated = Distinct(projected, tuple(column(name) for name in projected.columns))
    aggregates = tuple(
        Computed(a.name, exp.Anonymous(**{**a.expression.args, "distinct": None, "expressions": [column(value.name)]}))
        for a in node.aggregates
    )
    outer = tuple(Computed(k.name, column(d.name)) for k, d in zip(node.keys, keys, strict=True))
    return replace(node, input=deduplicated, keys=outer, aggregates=aggregates)


def apply_rules(root: Node) -> Node:
    """All rules, in order."""
    for rule in RULES:
        root = rule(root)
    return root


RULES: tuple[Callable[[Node], Node], ...] = (
    mark_to_semi,
    asof_in_two_steps,
    whole_windows,
    inline_ctes,
    distinct_in_two_levels,
)
