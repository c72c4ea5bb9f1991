"""IPython in a terminal: progress is one line that is rewritten, and it is gone when the rows or an error stand."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

PROMPT = re.compile(r"In \[\d+\]: ")
SLOW = "SELECT count(*) AS n FROM range(25000) a, range(25000) b WHERE a.range * b.range % 7 = 3"
ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7"


class Terminal:
    """An IPython that believes a person sits before it."""

    def __init__(self, folder: Path) -> None:
        command = [
            "-m",
            "IPython",
            "--no-banner",
            "--colors=NoColor",
            "--simple-prompt",
            "--HistoryManager.enabled=False",
        ]
        environment = os.environ | {"IPYTHONDIR": str(folder), "TERM": "xterm", "COLUMNS": "120"}
        self._process = pexpect.spawn(
            sys.executable, command, env=environment, cwd=folder, encoding="utf-8", timeout=60, dimensions=(40, 120)
        )
        self._process.expect(PROMPT)

    def begin(self, line: str) -> None:
        """Type a line."""
        self._process.sendline(line)

    def expect(self, words: str) -> None:
        """Wait until these words have been written, at some time."""
        self._process.expect_exact(words)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.sendintr()

    def seen(self) -> list[str]:
        """What was written up to the next prompt, as the lines that then stand on the screen."""
        self._process.expect(PROMPT)
        return [_rewritten(line) for line in str(self._process.before).split("\r\n")]

    def run(self, line: str) -> list[str]:
        """Type a line and wait for its end; the first line of what is seen is the typed one."""
        self.begin(line)
        return [seen for seen in self.seen()[1:] if seen]

    def close(self) -> None:
        """End it."""
        self._process.sendline("exit")
        self._process.expect(pexpect.EOF)
        self._process.close()


def _rewritten(line: str) -> str:
    """What a line looks like whose beginning was written again after each carriage return."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip()


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path_factory.mktemp("terminal"))
    assert terminal.run("%load_ext sabot_sql") == []
    yield terminal
    terminal.close()


def test_rows_stand_in_a_box(terminal: Terminal) -> None:
    seen = terminal.run("%sabot SELECT 42 AS answer, '$5 to $10' AS price")
    assert [line for line in seen if line.startswith("│")] == [
        "│ answer  │   price   │",
        "│ INTEGER │  VARCHAR  │",
        "│      42 │ $5 to $10 │",
    ]
    assert re.fullmatch(r"1 row × 2 columns · [\d.]+ m?s", seen[-1])


def test_plans_of_duckdb_are_trees(terminal: Terminal) -> None:
    seen = terminal.run("%sabot EXPLAIN SELECT 42")
    assert any(line.startswith("╭─ Projection") for line in seen)
    assert not any("\\n" in line for line in seen)


@pytest.mark.parametrize("agents", [1, 2])
def test_the_line_of_progress_goes_when_the_rows_come(terminal: Terminal, agents: int) -> None:
    terminal.run(f"%config SabotMagic.agents = {agents}")
    terminal.begin(f"%sabot {SLOW}")
    terminal.expect("running")
    seen = terminal.seen()
    assert not any("running" in line or "DuckDB says" in line for line in seen)
    assert any(line.startswith("1 row × 1 column") for line in seen)


@pytest.mark.parametrize("agents", [1, 2])
def test_ctrl_c_leaves_the_error_alone_on_its_line(terminal: Terminal, agents: int) -> None:
    terminal.run(f"%config SabotMagic.agents = {agents}")
    terminal.begin(f"%sabot {ENDLESS}")
    terminal.expect("running")
    terminal.interrupt()
    seen = [line for line in terminal.seen() if line]
    assert seen[-1] == "SabotSQLError [CANCELLED] interrupted; nothing of the query is left running"
    assert not any("running ·" in line or "DuckDB says" in line for line in seen)
    assert "│       1 │" in terminal.run("%sabot SELECT 1 AS one")


def test_a_mistake_points_at_its_place(terminal: Terminal) -> None:
    assert terminal.run("%sabot SELEC 42") == [
        'SabotSQLError [SYNTAX_ERROR] syntax error at or near "SELEC"',
        "  1 | SELEC 42",
        "    | ^^^^^   Line 1, Col: 1",
    ]
