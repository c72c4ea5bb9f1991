"""What can be told of a node from the functions in its expressions."""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from sabot_planner.logical.nodes import Project
from sabot_planner.sql.dialect import function_call
from sabot_planner.sql.expression_tree import nodes
from sabot_planner.sql.scalars import column_name

RAISING = "error"
"""The function that does nothing but end the query."""


def functions_of(expression: exp.Expression) -> Iterator[str]:
    """Lower-case names of the functions that the expression calls."""
    for inner in nodes(expression):
        found = function_call(inner)
        if found is not None:
            yield found[0]


def is_narrowing(node: Project) -> bool:
    """A projection that only drops or reorders columns."""
    return all(column_name(item.expression) == item.name for item in node.items)
