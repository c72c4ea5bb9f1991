"""What a cell shows: the rows, and the shuffle plan below them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from IPython.core.display_functions import display as _untyped_display

from sabot_magics.options import ExplainForm, Progress
from sabot_sql import Plan, Result

display: Callable[..., Any] = _untyped_display

_FIRST_AFTER_SECONDS = 0.5
_LEAST_GAP_SECONDS = 0.2

Bundle = dict[str, Any]
"""The same thing in several forms, by MIME type."""


def result_bundle(result: Result, limit: int, *, profile: bool) -> Bundle:
    """Rows and plan in one output: a table and a picture for a page, a box of text for a terminal."""
    bundle = {"text/plain": result.to_text(limit), "text/html": result.to_html(limit)}
    # CREATE, SET and the like have no rows, and no plan that is worth a look.
    if result.columns or profile:
        bundle["text/html"] += result.plan.html(opened=profile)
    if profile:
        bundle["text/plain"] += f"\n\n{result.plan.text()}"
    return bundle


def kept_bundle(name: str, result: Result, *, profile: bool) -> Bundle:
    """One line for a result that was kept under a name; with ``profile`` its plan too."""
    rows = f"{len(result):,} row{'' if len(result) == 1 else 's'}"
    text = f"{name}: {rows} × {len(result.columns)} column{'' if len(result.columns) == 1 else 's'}"
    if not profile:
        return {"text/plain": text}
    return {
        "text/plain": f"{text}\n\n{result.plan.text()}",
        "text/html": f"<div>{text}</div>{result.plan.html(opened=True)}",
    }


def show_plan(plan: Plan, form: ExplainForm) -> None:
    """The plan alone, in one form; ``html`` leaves the choice between page and terminal to the notebook."""
    match form:
        case "text":
            print(plan.text())
        case "json":
            document = plan.json()
            display({"application/json": document, "text/plain": json.dumps(document, indent=2)}, raw=True)
        case "svg":
            display({"image/svg+xml": plan.svg(), "text/plain": plan.text()}, raw=True)
        case "html":
            display({"text/plain": plan.text(), "text/html": plan.html(opened=True)}, raw=True)


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
        self._clear_line()
        if self._handle is not None:
            self._handle.update(bundle or {"text/plain": "", "text/html": ""}, raw=True)
        elif bundle:
            display(bundle, raw=True)

    def fail(self, state: str) -> None:
        """Leave a plan that was drawn as it last was, with its final state, ``failed`` or ``cancelled``."""
        self._clear_line()
        if self._handle is not None:
            stages = [
                {**stage, "state": state} if stage.get("state") == "running" else stage
                for stage in self._snapshot.get("stages", ())
            ]
            plan = Plan({**self._snapshot, "state": state, "stages": stages})
            self._handle.update({"text/plain": plan.status(), "text/html": plan.html()}, raw=True)

    def _clear_line(self) -> None:
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            sys.stderr.flush()
