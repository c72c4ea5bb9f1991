"""Whether a sub-plan may end the query with an error of its own."""

from __future__ import annotations

from sabot_planner.logical.expressions import RAISING, functions_of
from sabot_planner.logical.node import Node, walk
from sabot_planner.physical.nodes import CutRef


def may_raise(node: Node) -> bool:
    """Whether something in the sub-plan calls ``error()``, so that leaving it out could hide what DuckDB reports."""
    for inner in walk(node):
        if isinstance(inner, CutRef) and may_raise(inner.reference.shared):
            return True
        if any(RAISING in functions_of(expression) for expression in inner.expressions):
            return True
    return False
