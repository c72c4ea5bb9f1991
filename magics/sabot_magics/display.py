"""What a cell shows: the rows, and the shuffle plan below them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from IPython.core.display_functions import display as _untyped_display

from sabot_magics.options import ExplainForm, Progress
from sabot_sql import Plan, Result
from sabot_sql.plan_view import UnhappyEnd

display: Callable[..., Any] = _untyped_display

_FIRST_AFTER_SECONDS = 0.5
_LEAST_GAP_SECONDS = 0.2
_OUTPUT_BYTES = 100_000
_DOCUMENT_BYTES = 60_000
_SHORT_SQL_CHARACTERS = 160

Bundle = dict[str, Any]
"""The same thing in several forms, by MIME type."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a result is displayed: how many rows, and whether with the plan in full."""

    limit: int
    profile: bool = False
    agents_wanted: bool = False
    """The user asked for several agents: where one answered, it is said why."""


def result_bundle(result: Result, look: Look) -> Bundle:
    """Rows and plan in one output: a table and a picture for a page, a box of text for a terminal."""
    plan = result.plan
    shown = look.profile or plan.mode != "single"
    picture = plan.html(opened=look.profile) if shown else ""
    html = result.to_html(look.limit, max_bytes=_OUTPUT_BYTES - len(picture.encode()))
    text = result.to_text(look.limit)
    if look.profile:
        text += f"\n\n{plan.text()}"
    elif look.agents_wanted and not shown and result.columns:
        text += f"\n{plan.why_single()}"
        picture = plan.why_single_html()
    return {"text/plain": text, "text/html": html + picture}


def kept_bundle(name: str, result: Result, *, profile: bool) -> Bundle:
    """One line for a result that was kept under a name; with ``profile`` its plan too."""
    text = f"{name}: {_size(result)}"
    if not profile:
        return {"text/plain": text}
    return {
        "text/plain": f"{text}\n\n{result.plan.text()}",
        "text/html": f"<div>{text}</div>{result.plan.html(opened=True)}",
    }


def done_bundle(result: Result) -> Bundle:
    """One line for a result that the user's code took."""
    return {"text/plain": f"{_size(result)} · {result.plan.status()}"}


def _size(result: Result) -> str:
    rows = f"{len(result):,} row{'' if len(result) == 1 else 's'}"
    return f"{rows} × {len(result.columns)} column{'' if len(result.columns) == 1 else 's'}"


def show_plan(plan: Plan, form: ExplainForm) -> None:
    """The plan alone, in one form; ``html`` leaves the choice between page and terminal to the notebook."""
    match form:
        case "text":
            print(plan.text())
        case "json":
            document = _short(plan.json())
            display({"application/json": document, "text/plain": json.dumps(document, indent=2)}, raw=True)
        case "svg":
            picture = plan.svg()
            forms = {"image/svg+xml": picture} if picture else {}
            display({**forms, "text/plain": plan.text()}, raw=True)
        case "html":
            display({"text/plain": plan.text(), "text/html": plan.html(opened=True)}, raw=True)


def _short(document: dict[str, Any]) -> dict[str, Any]:
    """``document``, with the beginnings only of its SQL where a notebook could not hold it; it then says so."""
    if len(json.dumps(document, indent=2)) <= _DOCUMENT_BYTES:
        return document

    def cut(value: object) -> object:
        return f"{value[:_SHORT_SQL_CHARACTERS]}…" if isinstance(value, str) else value

    stages = [{**stage, "sql": cut(stage.get("sql"))} for stage in document["stages"]]
    note = "SQL is cut; session.explain(…).json() has all of it"
    short = {"note": note, **document, "sql": cut(document["sql"]), "stages": stages}
    if len(json.dumps(short, indent=2)) <= _DOCUMENT_BYTES:
        return short
    note = f"{len(stages)} stages are too many to be shown; session.explain(…).json() has them"
    return {"note": note, **document, "sql": cut(document["sql"]), "stages": [], "edges": []}


class CellOutput:
    """The one output of a cell: first the plan while it runs, then what came of it in the same place.

    Plan snapshots are drawn after half a second, then at most five times a second: in a notebook as an output that is
    replaced, in a terminal as one line that is rewritten, elsewhere, in a log for one, not at all.
    """

    def __init__(self, progress: Progress, *, notebook: bool) -> None:
        self._notebook = notebook and progress == "auto"
        self._terminal = not self._notebook and progress != "off" and sys.stderr.isatty()
        self._next = time.monotonic() + _FIRST_AFTER_SECONDS
        self._handle: Any = None
        self._snapshot: Mapping[str, Any] = {}
        self._width = 0

    @property
    def wants_snapshots(self) -> bool:
        """Whether there is anywhere to draw them."""
        return self._notebook or self._terminal

    @property
    def drawn(self) -> bool:
        """Whether there is an output that :meth:`finish` would replace."""
        return self._handle is not None

    def draw(self, snapshot: Mapping[str, Any]) -> None:
        """Draw ``snapshot``, a plan JSON, unless the last one was drawn just now."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LEAST_GAP_SECONDS
        plan = Plan(snapshot)
        if self._terminal:
            line = plan.status()
            self._width = max(self._width, len(line))
            sys.stderr.write(f"\r{line.ljust(self._width)}")
            sys.stderr.flush()
            return
        self._snapshot = snapshot
        bundle = {"text/plain": plan.status(), "text/html": plan.html()}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def finish(self, bundle: Bundle | None) -> None:
        """Show ``bundle`` in place of the progress; None shows nothing."""
        self.clear()
        if self._handle is not None:
            self._handle.update(bundle or {"text/plain": "", "text/html": ""}, raw=True)
        elif bundle:
            display(bundle, raw=True)

    def fail(self, state: UnhappyEnd) -> None:
        """Leave a plan that was drawn as it last was, with how it ended."""
        self.clear()
        if self._handle is not None:
            plan = Plan(self._snapshot).ended(state)
            self._handle.update({"text/plain": plan.status(), "text/html": plan.html()}, raw=True)

    def clear(self) -> None:
        """Take back the line of a terminal."""
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            sys.stderr.flush()
            self._width = 0
