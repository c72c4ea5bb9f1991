"""A real IPython shell with the extension loaded."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import sabot_sql


class Recorder(DisplayPublisher):
    """Keeps what is displayed, as a notebook would."""

    bundles: list[dict[str, Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bundles = []

    def publish(self, data: dict[str, Any], metadata: Any = None, **options: Any) -> None:
        transient = options.get("transient") or {}
        if options.get("update"):
            shown = next(b for b in self.bundles if b["display_id"] == transient["display_id"])
            shown["data"] = data
            shown["updates"] += 1
        else:
            self.bundles.append({"data": data, "display_id": transient.get("display_id"), "updates": 0})


@dataclass
class Ran:
    """What one cell did."""

    displays: list[dict[str, Any]]
    out: str
    err: str
    error: BaseException | None
    updates: list[int] = field(default_factory=list)

    @property
    def html(self) -> str:
        return "".join(bundle.get("text/html", "") for bundle in self.displays)

    @property
    def text(self) -> str:
        return "\n".join(bundle.get("text/plain", "") for bundle in self.displays)

    @property
    def rows(self) -> list[list[str]]:
        """The values in the box of text."""
        lines = [line for line in self.text.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines[2:]]


class Notebook:
    """Runs cells on a shell and tells what came of them."""

    def __init__(self, shell: InteractiveShell, recorder: Recorder) -> None:
        self.shell = shell
        self._recorder = recorder

    @property
    def names(self) -> dict[str, Any]:
        return self.shell.user_ns

    def run(self, cell: str) -> Ran:
        self._recorder.bundles.clear()
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            result = self.shell.run_cell(cell)
        shown = self._recorder.bundles
        return Ran(
            [bundle["data"] for bundle in shown],
            out.getvalue(),
            err.getvalue(),
            result.error_before_exec or result.error_in_exec,
            [bundle["updates"] for bundle in shown],
        )

    def sabot(self, sql: str, options: str = "") -> Ran:
        """Run a ``%%sabot`` cell that must succeed."""
        ran = self.run(f"%%sabot {options}\n{sql}")
        assert ran.error is None, ran.out
        return ran


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    folder = tmp_path_factory.mktemp("ipython")
    config = Config()
    config.InteractiveShell.history_load_length = 0
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder))
        # The shell puts a module of its own in its place, from which processes cannot be spawned.
        patch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        yield InteractiveShell.instance(config=config)
        InteractiveShell.clear_instance()


@pytest.fixture
def notebook(shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    monkeypatch.setattr(shell, "display_pub", recorder)
    # What a kernel has: a page for what is displayed, and for the value that a cell ends with.
    monkeypatch.setattr(shell, "kernel", None, raising=False)
    monkeypatch.setattr(shell.displayhook, "write_output_prompt", lambda: None)
    monkeypatch.setattr(shell.displayhook, "finish_displayhook", lambda: None)
    monkeypatch.setattr(shell.displayhook, "write_format_data", recorder.publish)
    shell.reset(new_session=False)
    notebook = Notebook(shell, recorder)
    assert notebook.run("%load_ext sabot_sql").error is None
    yield notebook
    assert notebook.run("%unload_ext sabot_sql").error is None
    sabot_sql.default_session().close()
