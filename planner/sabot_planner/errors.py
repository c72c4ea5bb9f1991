"""Errors of the planner.

``PlannerError``
├── ``InvalidJobGraph``   a job graph that cannot be run as it is
└── ``Undistributable``   a query (or part of one) that must stay on one agent; its text is the reason shown in the plan
"""

from __future__ import annotations


class PlannerError(Exception):
    """Base of everything that the planner raises."""


class InvalidJobGraph(PlannerError):
    """A job graph names something that does not exist, twice, or in a circle."""


class Undistributable(PlannerError):
    """The query cannot be split; ``str(error)`` is the reason that the plan shows."""
