"""The README's commands and examples do what it says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.durable_hosts import state_directory

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


SHELL_LINES = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the data that the README's examples read, smaller than its name says."""
    folder = tmp_path_factory.mktemp("readme")
    data = folder / "data" / "tpch" / "sf0.1"
    generate = [BIN / "tpchgen-cli", "parquet", "-s", "0.01", "--output-dir", data]
    subprocess.run(generate, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    with state_directory(folder / "state"):
        yield folder


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_two_commands_are_the_first_two_blocks_and_jobs_of_tasks(tasks: ModuleType) -> None:
    assert SHELL_LINES[:2] == ["python3 tasks.py demo", "python3 tasks.py test"]
    for line in SHELL_LINES[:2]:
        with pytest.raises(SystemExit) as stopped:
            tasks.main([line.split()[-1], "--help"])
        assert stopped.value.code == 0


def test_ci_runs_the_second_command() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == f"exec {SHELL_LINES[1]}"


def test_the_demo_prints_the_shuffle_plan_and_the_rows(
    tasks: ModuleType, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks, "ROOT", workplace)
    monkeypatch.setattr(tasks, "BIN", BIN)
    assert tasks.demo() == 0
    out = capfd.readouterr().out
    assert "HASH" in out
    assert "MOZAMBIQUE" in out
    assert "revenue" in out


@pytest.mark.parametrize("word", ["SELECT 'a b'", "a b", "it's $x", "plain", 'x"y', "don't!", "'\\'", ""])
def test_commands_are_shown_as_a_shell_reads_them(tasks: ModuleType, word: str) -> None:
    assert shlex.split(tasks.quoted(word)) == [word]


def test_the_python_examples_run(workplace: Path) -> None:
    out = run([sys.executable, "-W", "error", "-c", "\n".join(blocks("python"))], workplace)
    assert "1-URGENT" in out
    assert "HASH" in out
    assert "AIR" in out


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if line.startswith("sabot-sql")])
def test_the_shell_examples_run(workplace: Path, line: str) -> None:
    program, *arguments = shlex.split(line)
    out = run([str(BIN / program), *arguments], workplace)
    assert len(out.splitlines()) >= 3


def test_the_notebook_example_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell_module = pytest.importorskip("IPython.core.interactiveshell")
    cells = blocks("ipython")
    assert len(cells) == 2
    monkeypatch.chdir(workplace)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    shell = shell_module.InteractiveShell.instance()
    try:
        for cell in cells:
            shell.run_cell(cell.rstrip()).raise_error()
        top = shell.user_ns["top"]
        assert top.columns == ["l_shipmode", "n"]
        assert len(top) == 7
    finally:
        shell_module.InteractiveShell.clear_instance()
