"""The shuffle plan of one query as people see it: text, HTML, SVG, Graphviz, all from the plan JSON alone."""

from __future__ import annotations

from sabot_sql.plan_view.plan import Plan, UnhappyEnd

__all__ = ["Plan", "UnhappyEnd"]
