"""Aggregates over DISTINCT values become aggregates over a DISTINCT.

DuckDB 2.0 does the same before it exports a plan, but not for grouping sets: those are split first, and then need it.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.logical.expression_types import Named
from sabot_planner.logical.node import Computed
from sabot_planner.logical.nodes import Aggregate, Distinct, Project
from sabot_planner.sql.dialect import to_sql
from sabot_planner.sql.scalars import column


def distinct_in_two_levels(context: PlacementContext, node: Aggregate) -> Aggregate:
    """Aggregates over DISTINCT values become aggregates over a DISTINCT: values meet by (group, value), then by group.

    Their states must not be combined: each task counts a value that others count too, 21 for 7.
    """
    if node.grouping_sets is not None or not node.aggregates:
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
    fresh = context.names.column
    (value,) = context.computed([Named(fresh(), calls[0].args["expressions"][0])], node.input)
    keys = tuple(Computed(fresh(), k.expression, k.type) for k in node.keys)
    projected = Project(node.input, (*keys, value))
    deduplicated = Distinct(projected, tuple(column(name) for name in projected.columns))
    aggregates = tuple(
        Computed(
            a.name,
            exp.Anonymous(**{**a.expression.args, "distinct": None, "expressions": [column(value.name)]}),
            a.type,
        )
        for a in node.aggregates
    )
    outer = tuple(Computed(k.name, column(d.name), k.type) for k, d in zip(node.keys, keys, strict=True))
    return replace(node, input=deduplicated, keys=outer, aggregates=aggregates)
