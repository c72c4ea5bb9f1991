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


def show_result(result: Result, limit: int, *, profile: bool) -> None:
    """Rows and plan in one output: a table and a picture for a page, a box of text for a terminal."""
    text = result.to_text(limit)
    if profile:
        text += f"\n\n{result.plan.text()}"
    html = result.to_html(limit) + result.plan.html(opened=profile)
    _publish({"text/plain": text, "text/html": html})


def show_kept(name: str, result: Result, *, profile: bool) -> None:
    """One line for a result that was kept under a name; with ``profile`` its plan too."""
    rows = f"{len(result):,} row{'' if len(result) == 1 else 's'}"
    text = f"{name}: {rows} × {len(result.columns)} column{'' if len(result.columns) == 1 else 's'}"
    if profile:
        _publish({"text/plain": f"{text}\n\n{result.plan.text()}", "text/html": text + result.plan.html(opened=True)})
    else:
        _publish({"text/plain": text})


def show_plan(plan: Plan, form: ExplainForm) -> None:
    """The plan alone, in one form; ``html`` leaves the choice between page and terminal to the notebook."""
    match form:
        case "text":
            print(plan.text())
        case "json":
            document = plan.json()
            _publish({"application/json": document, "text/plain": json.dumps(document, indent=2)})
        case "svg":
            _publish({"image/svg+xml": plan.svg(), "text/plain": plan.text()})
        case "html":
            _publish({"text/plain": plan.text(), "text/html": plan.html(opened=True)})


def _publish(bundle: Mapping[str, Any]) -> None:
    display(dict(bundle), raw=True)


class ProgressLine:
    """Draws plan snapshots while a query runs: nothing at first, then at most five times a second.

    A notebook gets an output of its own that is taken back at the end; a terminal one line that is rewritten;
    anything else, a log file for one, nothing.
    """

    def __init__(self, mode: Progress, *, notebook: bool) -> None:
        self._mode = mode
        self._notebook = notebook and mode == "auto"
        self._terminal = not self._notebook and mode != "off" and sys.stderr.isatty()
        self._next = time.monotonic() + _FIRST_AFTER_SECONDS
        self._handle: Any = None
        self._width = 0

    @property
    def wanted(self) -> bool:
        """Whether there is anywhere to draw."""
        return self._notebook or self._terminal

    def __call__(self, snapshot: Mapping[str, Any]) -> None:
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
        elif self._handle is None:
            self._handle = display(_bundle(plan), raw=True, display_id=True)
        else:
            self._handle.update(_bundle(plan), raw=True)

    def close(self) -> None:
        """Take back what was drawn."""
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            sys.stderr.flush()
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)


def _bundle(plan: Plan) -> dict[str, str]:
    return {"text/plain": plan.status(), "text/html": plan.html()}
