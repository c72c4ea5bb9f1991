"""Errors of the planner.

``PlannerError``
├── ``InvalidGraph``      an operator graph that cannot be run as it is
├── ``UnknownColumn``     a node reads a column that its inputs lack: a defect of the planner
├── ``UnknownNode``       a pass met a kind of node that it was not written for: a defect of the planner
└── ``Undistributable``   a query (or part of one) that must stay on one agent; its text is the reason shown in the plan
"""

from __future__ import annotations

from collections.abc import Iterable


class PlannerError(Exception):
    """Base of everything that the planner raises."""


class InvalidGraph(PlannerError):
    """An operator graph names something that does not exist, twice, or in a circle."""


class UnknownNode(PlannerError):
    """A pass over the plan met a kind of node that it does not know, and does not guess what to do with."""

    def __init__(self, node: object, wanted: str) -> None:
        super().__init__(f"nobody knows {wanted} of a {type(node).__name__}")


class UnknownColumn(PlannerError):
    """A part of a plan reads a column that none of its inputs has."""

    def __init__(self, reader: str, missing: Iterable[str], existing: Iterable[str]) -> None:
        there = ", ".join(existing) or "none"
        super().__init__(f"the plan's {reader} reads {', '.join(missing)}; the columns there are: {there}")


class Undistributable(PlannerError):
    """The query cannot be split; ``str(error)`` is the reason that the plan shows."""
