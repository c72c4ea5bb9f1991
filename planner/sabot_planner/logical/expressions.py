"""The scalar expressions of a logical node, and what can be told of a sub-plan from its functions."""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.nodes import (
    Aggregate,
    Distinct,
    Filter,
    Join,
    LateralCall,
    Limit,
    Node,
    Project,
    RecursiveCte,
    Sort,
    Values,
    Window,
)
from sabot_planner.sql.dialect import function_call
from sabot_planner.sql.scalars import column_name, nodes

RAISING = "error"
"""The function that does nothing but end the query."""


def expressions_of(node: Node) -> list[exp.Expression]:
    """The expressions that the node itself computes, in no order."""
    match node:
        case Filter():
            return [node.predicate]
        case Values():
            return [expression for row in node.rows for expression in row]
        case Distinct():
            return [*node.on, *(k.expression for k in node.order)]
        case Project():
            return [i.expression for i in node.items]
        case Aggregate():
            return [c.expression for c in node.keys + node.aggregates]
        case Window():
            return [*node.partition_by, *(i.expression for i in node.items)]
        case LateralCall():
            return [node.function]
        case Join():
            return [node.condition] if node.condition is not None else []
        case Sort():
            return [k.expression for k in node.keys]
        case LimitBy():
            return [clause for clause in (node.limit, node.offset) if clause is not None]
        case RecursiveCte():
            return [k.expression for k in node.keys]
        case Limit():
            return [node.percent] if node.percent is not None else []
        case _:
            return []


def functions_of(expression: exp.Expression) -> Iterator[str]:
    """Lower-case names of the functions that the expression calls."""
    for inner in nodes(expression):
        found = function_call(inner)
        if found is not None:
            yield found[0]


def is_narrowing(node: Project) -> bool:
    """A projection that only drops or reorders columns."""
    return all(column_name(item.expression) == item.name for item in node.items)
