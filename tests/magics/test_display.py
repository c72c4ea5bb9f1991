"""Progress of a query that takes a while."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sabot_magics import display
from sabot_magics.display import CellOutput
from tests.magics.conftest import Recorder
from tests.plan_view import plans


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def running() -> dict[str, Any]:
    document = plans.q3() | {"state": "running", "elapsed_ms": 700.0}
    for stage in document["stages"][2:]:
        stage |= {"state": "waiting", "tasks": []}
    return document


def test_a_terminal_gets_one_line_that_is_taken_back(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    output = CellOutput("auto", notebook=False)
    assert output.wants_snapshots
    output.draw(running())
    assert terminal.getvalue() == ""
    clock[0] += 0.5
    output.draw(running())
    line = "4 agents (threads) · stage 3/5 · tasks 8/17 · 82 MB moved · 700 ms · running"
    assert terminal.getvalue() == f"\r{line}"
    clock[0] += 0.19
    output.draw(running())
    assert terminal.getvalue() == f"\r{line}"
    clock[0] += 1 / 64
    output.draw(running() | {"elapsed_ms": 900.0})
    output.finish(None)
    assert terminal.getvalue().split("\r")[1:] == [line, line.replace("700", "900"), " " * len(line), ""]


def test_a_notebook_gets_one_output_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], shell: InteractiveShell
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(shell, "display_pub", recorder)
    output = CellOutput("auto", notebook=True)
    for _ in range(128):
        clock[0] += 1 / 64
        output.draw(running())
    assert [bundle["updates"] for bundle in recorder.bundles] == [7]
    assert "<svg" in recorder.bundles[0]["data"]["text/html"]
    output.finish(None)
    assert recorder.bundles[0]["data"] == {"text/plain": "", "text/html": ""}
    output.finish({"text/plain": "rows"})
    assert [bundle["data"] for bundle in recorder.bundles] == [{"text/plain": "rows"}]


def test_what_failed_stays_as_it_last_was(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], shell: InteractiveShell
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(shell, "display_pub", recorder)
    output = CellOutput("auto", notebook=True)
    clock[0] += 1
    document = running()
    document["stages"][2]["state"] = "running"
    output.draw(document)
    assert ">running</text>" in recorder.bundles[0]["data"]["text/html"]
    output.fail("cancelled")
    assert recorder.bundles[0]["data"]["text/plain"].endswith("cancelled")
    html = recorder.bundles[0]["data"]["text/html"]
    assert ">running</text>" not in html
    assert ">cancelled</text>" in html
    quick = CellOutput("auto", notebook=True)
    quick.fail("failed")
    assert len(recorder.bundles) == 1


def test_logs_and_fast_queries_get_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not CellOutput("auto", notebook=False).wants_snapshots
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not CellOutput("off", notebook=True).wants_snapshots
    assert CellOutput("text", notebook=True).wants_snapshots
    output = CellOutput("auto", notebook=False)
    output.draw(running())
    output.finish(None)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
