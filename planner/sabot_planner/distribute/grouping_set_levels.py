"""The first phase of grouping sets in two levels: groups of all keys, and the sets over those.

Each row then enters one hash table, and not one per set. DuckDB does the same for grouping sets of its own (its
optimiser's rewrite into CTEs), but not where an aggregate is exported as a state.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from sabot_planner.distribute.two_phase import merged
from sabot_planner.logical.node import Computed
from sabot_planner.physical.nodes import PartialAggregate
from sabot_planner.sql.scalars import column, column_name, substitute


def in_levels(node: PartialAggregate) -> PartialAggregate:
    """The aggregate over one of all keys, where a set has all of them anyway; else the aggregate itself.

    The inner groups have the names of the outer ones, which is for SQL text alone: a plan needs names of their own.
    """
    sets = node.grouping_sets or ()
    names = [column_name(k.expression) for k in node.keys]
    alike = None in names or len(set(names)) < len(names)
    if len(sets) < 2 or alike or not any(len(set(one)) == len(names) for one in sets):
        return node
    again = [merged(a) for a in node.aggregates]
    aggregates = tuple(
        Computed(a.name, m, a.type) for a, m in zip(node.aggregates, again, strict=True) if m is not None
    )
    if len(aggregates) < len(again):
        return node
    groups = replace(node, grouping_sets=None, groupings=())
    renamed: dict[str, exp.Expression] = {n: column(k.name) for n, k in zip(names, node.keys, strict=True) if n}
    return replace(
        node,
        input=groups,
        keys=tuple(Computed(k.name, column(k.name), k.type) for k in node.keys),
        aggregates=aggregates,
        groupings=tuple(Computed(g.name, substitute(g.expression, renamed), g.type) for g in node.groupings),
    )
