"""Windows over all rows at once, ``sum(x) OVER ()``, become an aggregate of all rows that every row is joined with.

An aggregate has two phases where a window would need all rows in one place. The rule stands before those that write
cheap expressions in place, so that a table is rather read twice than kept.
"""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, passed, rewrite, walk
from sabot_planner.logical.nodes import Aggregate, CteRef, Join, JoinKind, Project, RecursiveRef, Shared, Window
from sabot_planner.logical.window_frames import WINDOW_ONLY, frame_of
from sabot_planner.sql.dialect import call, data_type, function_call
from sabot_planner.sql.scalars import column, substitute

_FIRST_OF = {"first_value": "first", "last_value": "last"}

_ANY_ORDER = frozenset(
    {"count", "count_star", "sum", "min", "max", "avg", "mean", "median", "quantile_cont", "quantile_disc", "mad"}
    | {"stddev", "stddev_samp", "stddev_pop", "variance", "var_samp", "var_pop", "sem", "skewness", "kurtosis"}
    | {"bool_and", "bool_or", "bit_and", "bit_or", "bit_xor", "count_if", "countif", "approx_count_distinct"}
    | {"corr", "covar_samp", "covar_pop", "fsum", "favg", "sumkahan", "kahan_sum", "entropy", "histogram"}
)
"""Aggregates whose value does not depend on the order of their rows."""

_ALIKE = {"rank": ("1", "BIGINT"), "dense_rank": ("1", "BIGINT"), "percent_rank": ("0", "DOUBLE")}
"""Without an order all rows are peers: the first of them, in every row."""


def whole_windows(root: Node, names: PlanNames) -> Node:
    """The plan with every window over all rows turned into an aggregate that is joined back."""
    return rewrite(root, lambda node: _joined_back(node, names))


def _joined_back(node: Node, names: PlanNames) -> Node:
    if not isinstance(node, Window) or node.partition_by:
        return node
    constants = {i.name: c for i in node.items if (c := _constant(i.expression)) is not None}
    aggregates = tuple(Computed(i.name, a, i.type) for i in node.items if (a := _aggregate(i.expression)) is not None)
    if not constants and not aggregates:
        return node
    if any(isinstance(n, RecursiveRef) for n in walk(node.input)):
        # What a round computes cannot be shared outside of it.
        return node
    replaced = {*constants, *(a.name for a in aggregates)}
    rest = tuple(i for i in node.items if i.name not in replaced)
    below: Node = Window(node.input, (), rest) if rest else node.input
    if aggregates:
        below = _with_aggregates(below, aggregates, names)
    items = (Computed(n, constants[n] if n in constants else column(n), kind) for n, kind in node.schema.items())
    return Project(below, tuple(items))


def _with_aggregates(below: Node, aggregates: tuple[Computed, ...], names: PlanNames) -> Node:
    """``below`` with columns that are aggregates of all its rows."""
    shared = Shared(below, names.shared())
    rows, all_rows = (CteRef(shared, names.columns(len(shared.columns))) for _ in range(2))
    renamed = {old: column(new) for old, new in zip(shared.columns, all_rows.names, strict=True)}
    formed = tuple(Computed(a.name, substitute(a.expression, renamed), a.type) for a in aggregates)
    joined = Join(JoinKind.CROSS, rows, Aggregate(all_rows, (), formed), None)
    read = zip(shared.schema.items(), rows.names, strict=True)
    back = (Computed(old, column(new), kind) for (old, kind), new in read)
    return Project(joined, (*back, *passed(joined, (c.name for c in formed))))


def _constant(window: exp.Expression) -> exp.Expression | None:
    found = function_call(window)
    if found is None or window.args.get("order") is not None or window.args.get("spec") is not None:
        return None
    alike = _ALIKE.get(found[0])
    if alike is None or found[1] or window.args["this"].args.get("order") is not None:
        return None
    return exp.Cast(this=exp.Literal(this=alike[0], is_string=False), to=data_type(alike[1]))


def _aggregate(window: exp.Expression) -> exp.Expression | None:
    """The aggregate call that a window over all rows is, None where it is another one."""
    found, frame = function_call(window), frame_of(window)
    if found is None or frame is None or not frame.whole:
        return None
    name, inner, order = found[0], window.args["this"], window.args.get("order")
    if name in WINDOW_ONLY:
        first = _FIRST_OF.get(name)
        if first is None or order is not None or inner.args.get("nulls") or inner.args.get("order") is not None:
            return None
        return call(first, *found[1])
    if order is None or name in _ANY_ORDER or inner.args.get("order") is not None:
        return inner  # type: ignore[no-any-return]
    if inner.args.get("distinct"):
        return None
    return exp.Anonymous(**{**inner.args, "order": order})
