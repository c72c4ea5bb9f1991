"""How many tasks look for the first rows of a filtered scan.

They run in the order of the source, and those after the first ones with enough rows are not started. Smaller tasks find
that out sooner.
"""

from __future__ import annotations

from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import Filter, LateralCall, Limit, Project
from sabot_planner.physical.nodes import TaskScan

_TASK_ROWS = 250_000
"""Rows that are worth a task of their own: about two row groups."""
_MOST_TIMES = 8


def searching_tasks(limit: Limit, width: int) -> int:
    """Tasks for the stage of ``limit``: ``width``, or more where a filter may make it read far."""
    node: Node = limit.input
    filtered = False
    while isinstance(node, Filter | Project | LateralCall):
        filtered |= isinstance(node, Filter)
        node = node.inputs[0]
    if not filtered or not isinstance(node, TaskScan) or node.split is not None or node.scan.source.rows is None:
        return width
    return max(width, min(node.scan.source.rows // _TASK_ROWS, width * _MOST_TIMES))
