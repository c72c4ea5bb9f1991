"""A sub-plan on its way to a distributed plan."""

from __future__ import annotations

from dataclasses import dataclass

from sabot_planner.distribute.partitioning import Partitioning
from sabot_planner.logical.node import Node


@dataclass(frozen=True, slots=True)
class Placed:
    """A sub-plan with its exchanges, and where its rows are. ``local``: they are in the session's own process."""

    node: Node
    partitioning: Partitioning
    local: bool = False
