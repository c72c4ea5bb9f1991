"""``Plan``: the plan JSON and all the ways to look at it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from html import escape
from typing import Any, Literal

from sabot_sql.arguments import flag, mapping, whole
from sabot_sql.plan_view.model import PlanModel, read_plan
from sabot_sql.printable import printable

UnhappyEnd = Literal["failed", "cancelled", "timed_out"]
"""How a query ended without a result."""


class Plan:
    """The shuffle plan of one query, before it ran, while it runs or afterwards.

    It is made of the plan JSON alone, so a saved one can be looked at anywhere: ``Plan(json.load(file)).svg()``.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = copy.deepcopy(dict(mapping("document", document)))

    @cached_property
    def _model(self) -> PlanModel:
        return read_plan(self._document)

    @property
    def mode(self) -> str:
        """``distributed``, ``partly`` or ``single``."""
        return self._model.mode

    @property
    def reason(self) -> str:
        """Why it has that mode."""
        return self._model.reason

    @property
    def shuffles(self) -> int:
        """Number of edges that move rows between tasks."""
        return self._model.shuffles

    @property
    def moved_bytes(self) -> int:
        """Bytes written to those edges."""
        return self._model.moved_bytes

    def status(self) -> str:
        """One line about the whole: agents, stages, shuffles, time, bytes; while it runs, what has finished."""
        from sabot_sql.plan_view.words import status_text

        return printable(status_text(self._model))

    def why_single(self) -> str:
        """``one agent: …``, the reason why a query did not run on several; empty where it did."""
        if self.mode != "single":
            return ""
        from sabot_sql.plan_view.words import clip

        return clip(self.reason if self.reason.startswith("one agent") else f"one agent: {self.reason}", 200)

    def why_single_html(self) -> str:
        """The same as HTML."""
        from sabot_sql.plan_view.plain_text import NO_MATH, faint

        style = f"{faint(80)};font-size:.9em;margin:2px"
        return f'<div class="{NO_MATH}" style="{style}">{escape(self.why_single())}</div>'

    def ended(self, state: UnhappyEnd) -> Plan:
        """The plan as it was when its query ended without a result."""
        return Plan({**self._document, "state": state})

    def json(self) -> dict[str, Any]:
        """The plan JSON, a copy."""
        return copy.deepcopy(self._document)

    def text(self, *, width: int = 100) -> str:
        """A tree of boxes for terminals, in lines of at most ``width`` characters where the depth allows."""
        from sabot_sql.plan_view.text import text

        return printable(text(self._model, width=whole("width", width, least=1)), keep="\n")

    def svg(self) -> str:
        """The picture as an SVG file of its own: the stages, or DuckDB's operators for a query of one agent."""
        from sabot_sql.plan_view.svg import svg

        return svg(self._model)

    def html(self, *, opened: bool = False) -> str:
        """The picture with a table tree of all details below, at most 60 kB; ``opened`` unfolds the table."""
        from sabot_sql.plan_view.html import html

        return html(self._model, opened=flag("opened", opened))

    def dot(self) -> str:
        """The graph in Graphviz's language."""
        from sabot_sql.plan_view.dot import dot

        return dot(self._model)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        model = self._model
        return f"<Plan {model.mode}: {len(model.stages)} stages, {model.shuffles} shuffles, {model.state or 'planned'}>"

    def _repr_html_(self) -> str:
        return self.html()
