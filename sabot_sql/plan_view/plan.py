"""``Plan``: the plan JSON and all the ways to look at it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from sabot_sql.arguments import flag, mapping, whole
from sabot_sql.plan_view.model import PlanModel, read_plan
from sabot_sql.printable import printable


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

    def json(self) -> dict[str, Any]:
        """The plan JSON, a copy."""
        return copy.deepcopy(self._document)

    def text(self, *, width: int = 100) -> str:
        """A tree of boxes for terminals, in lines of at most ``width`` characters where the depth allows."""
        from sabot_sql.plan_view.text import text

        return printable(text(self._model, width=whole("width", width, least=1)), keep="\n")

    def svg(self) -> str:
        """The picture as an SVG file of its own; empty for a query that was not distributed."""
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
