"""What the checker demands, and how it says that it was not met."""

from __future__ import annotations

from sabot_planner.distribute.partitioning import Replicated, SinglePartition
from sabot_planner.errors import PlannerError
from sabot_planner.logical.node import Node

WHOLE = (SinglePartition, Replicated)
"""Partitionings of which a task of the stage has all rows."""


def demand(holds: bool, node: Node, wanted: str) -> None:
    """Refuse the plan where the node's demand does not hold.

    Raises:
        PlannerError: it does not.
    """
    if not holds:
        raise PlannerError(f"the plan's {type(node).__name__} needs {wanted}")
