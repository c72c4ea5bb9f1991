"""What runs can be seen by its own user from another process, and by nobody else."""

from __future__ import annotations

import gc
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sabot_sql
from sabot_sql.cli import main
from sabot_sql.errors import QueryCancelled
from sabot_sql.table_view import text_width
from sabot_sql.top import readers
from sabot_sql.top.lines import fit, lines
from sabot_sql.top.publisher import Publisher
from sabot_sql.top.runtime_directory import runtime_directory
from tests.plan_view.plans import edge, plan, stage, tasks

FOREVER = "SELECT count(*) AS n FROM range(10_000_000) a, range(10_000_000) b WHERE a.range + b.range = -1"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run" / "sabot-sql"


@contextmanager
def running(session: sabot_sql.Session, sql: str = FOREVER) -> Iterator[None]:
    """A query that runs until this is closed."""
    begun = threading.Event()

    def observer(document: Mapping[str, Any]) -> None:
        tasks = [task["state"] for stage in document["stages"] for task in stage["tasks"]]
        if document["state"] == "running" and ("running" in tasks or document["mode"] == "single"):
            begun.set()

    def run() -> None:
        with pytest.raises(QueryCancelled):
            session.query(sql, observer=observer)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        session.cancel()
        thread.join(60)
    assert not thread.is_alive()


def seen(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert main(["top", *options]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_query_is_seen_with_its_stages_edges_and_agents(
    isolation: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.parquet"
    with sabot_sql.connect(agents=2, isolation=isolation, memory_limit="2GiB") as session:
        session.execute(f"COPY (SELECT range AS i FROM range(100_000)) TO '{file}'")
        assert "1 session · 0 running" in seen(capsys, "--once")
        sql = f"SELECT i % 3 AS k, count(*) FROM '{file}', range(10_000_000) b WHERE i + b.range <> -1 GROUP BY k"
        with running(session, sql):
            out = seen(capsys, "--once")
            assert "1 session · 1 running" in out
            assert f"process {os.getpid()}" in out
            assert "SELECT i % 3 AS k" in out
            assert "2 agents" in out
            assert "HASH" in out
            assert "rows that move" in out
            (told,) = json.loads(seen(capsys, "--json"))["sessions"]
        (query,) = told["queries"]
        assert (query["state"], query["mode"]) == ("running", "distributed")
        agents = {agent["agent"] for agent in told["agents"]}
        assert agents == ({"session", "agent-1", "agent-2"} if isolation == "process" else {"session"})
        assert all(agent["budget_bytes"] > 0 for agent in told["agents"])
    assert "0 sessions · 0 running" in seen(capsys, "--once")


def test_a_query_on_one_agent_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with sabot_sql.connect(agents=1) as session, running(session):
        out = seen(capsys)
        assert FOREVER[:40] in out
        assert "one agent" in out


def test_only_this_user_may_ask(place: Path) -> None:
    with sabot_sql.connect(agents=1):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        (path,) = place.iterdir()
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(place.iterdir()) == []


def test_a_session_that_is_forgotten_takes_its_socket_along(place: Path) -> None:
    session = sabot_sql.connect(agents=1)
    assert len(readers.sessions()) == 1
    del session
    gc.collect()
    assert list(place.iterdir()) == []


def test_a_directory_that_others_may_enter_is_not_used(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.mkdir(mode=0o755)
    with sabot_sql.connect(agents=1) as session:
        assert session.query("SELECT 42").fetchall() == [(42,)], "it works, unseen"
        assert list(place.iterdir()) == []
        assert main(["top", "--once"]) == 1
    assert f"chmod 700 {place}" in capsys.readouterr().err


def test_a_link_in_place_of_the_directory_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    with sabot_sql.connect(agents=1):
        assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_runtime_directory_it_is_among_the_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (None, "relative", "/not/there"):
        monkeypatch.delenv("XDG_RUNTIME_DIR") if given is None else monkeypatch.setenv("XDG_RUNTIME_DIR", given)
        assert runtime_directory().name == f"sabot-sql-{os.getuid()}"


def test_what_a_killed_process_left_is_removed(place: Path) -> None:
    code = "import os, signal, sabot_sql; s = sabot_sql.connect(agents=1); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert len(list(place.iterdir())) == 1
    assert readers.sessions() == []
    assert list(place.iterdir()) == []


def test_a_process_that_stands_still_is_said_not_to_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(readers, "_ANSWER_SECONDS", 0.1)
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(place / "4711-abc.sock"))
        mute.listen()
        assert "process 4711 · it does not answer" in seen(capsys, "--once")


def test_an_error_while_it_tells_leaves_the_next_an_answer(place: Path) -> None:
    answers: list[dict[str, Any]] = [{"process": 1}, {"process": object()}]
    published = Publisher(answers.pop)
    assert "error" in readers.sessions()[0]
    assert readers.sessions() == [{"process": 1}]
    published.close()
    published.close()
    assert list(place.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_leaves_the_socket_alone(place: Path) -> None:
    with sabot_sql.connect(agents=1) as session:
        child = os.fork()
        if not child:
            session._release()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(readers.sessions()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--interval", "0"], "from 0.1 to 3600 seconds"),
        (["--interval", "nan"], "from 0.1 to 3600 seconds"),
        (["--token-file", "t"], "--token-file is for --connect"),
        (["--connect", "t.db"], "t.db"),
        (["--connect", "local://"], "names no agent services"),
        (["--connect", "ray"], "names no agent services"),
    ],
)
def test_wrong_options_are_refused(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", *options]) == 1
    assert words in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- drawing


def test_skew_spill_and_states_are_drawn() -> None:
    skewed = edge("e", "HASH", "a", "b", 10_000, keys=["user_id"], partitions=4)
    skewed |= {"partition_bytes": [100_000, 100_000, 100_000, 900_000], "heavy": [{"key": "user_id = 7", "rows": 9}]}
    document = plan(
        [stage("a", "scan t", "SOURCE", 10_000, tasks=tasks("a", 4, 10_000, 20, spilled_bytes=2_000_000))], [skewed]
    )
    agent = {"agent": "agent-1", "pool_bytes": 5_000_000, "budget_bytes": 9_000_000, "spilled_bytes": 8_000_000}
    drawn = lines([{"process": 1, "queries": [document], "agents": [agent]}], [], 200)
    whole = "\n".join(drawn)
    assert "✓ a scan t · 4 tasks · 10,000 rows · 8 MB spilled" in whole
    assert "→ b: HASH (user_id) · 10,000 rows" in whole
    assert "▲ skew: 9.0× the median in partition 3, hot key user_id = 7" in whole
    assert "agent-1: rows that move 5 MB of 9 MB · 8 MB spilled so far" in whole


def test_nothing_that_is_shown_steers_the_terminal() -> None:
    evil = "\x1b[2J\x07\u202e\n"
    document = plan([stage("a", evil, evil, 1)], [edge("e", "HASH", "a", evil, 1, keys=[evil])], sql=evil, reason=evil)
    sessions = [
        {"process": 1, "program": evil, "database": evil, "queries": [document], "agents": [{"agent": evil}]},
        {"process": 2, "error": evil},
    ]
    services = [{"address": evil, "state": evil, "sessions": [{"agent": evil}]}, {"address": evil, "error": evil}]
    for line in lines(sessions, services, 500):
        assert line.isprintable(), line


@pytest.mark.parametrize("width", [1, 2, 20, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    wide = "日本語" * 30
    found = lines([{"process": 1, "queries": [plan([stage("a", wide, "x", 1)], [], sql=wide)]}], [], width)
    assert max(map(text_width, found)) <= width
    assert fit("short", 5) == "short"


def test_a_plan_of_another_version_spoils_nothing_else() -> None:
    found = lines([{"process": 1, "queries": [{"version": 9}, plan([stage("a", "x", "y", 1)], [])]}], [], 200)
    assert any("cannot be read" in line for line in found)
    assert any("q-7f3a" in line for line in found)


# ------------------------------------------------------------------------------------------------------------ terminal


class Terminal:
    """``sabot-sql top`` in a terminal of its own."""

    def __init__(self, *options: str) -> None:
        self.own, self.theirs = pty.openpty()
        self.modes = self.modes_now()
        ends = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        command = [sys.executable, "-m", "sabot_sql.cli", "top", "--interval", "0.1", *options]
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(command, **ends, start_new_session=True, env=environment)
        self.shown = b""

    def modes_now(self) -> str:
        return subprocess.run(["stty", "-g"], stdin=self.theirs, capture_output=True, text=True, check=True).stdout

    def await_text(self, text: str) -> None:
        give_up = time.monotonic() + 60
        while text.encode() not in self.shown:
            assert time.monotonic() < give_up, self.shown
            if select.select([self.own], [], [], 1)[0]:
                self.shown += os.read(self.own, 65536)

    def ended(self) -> int:
        self.await_text("\x1b[?1049l")
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(60)
        os.close(self.own)
        os.close(self.theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal()
    yield found
    found.close()


@pytest.mark.parametrize("way", ["q", "ctrl-c", "SIGTERM"])
def test_the_terminal_is_given_back(terminal: Terminal, way: str) -> None:
    terminal.await_text("sabot-sql top · 0 sessions · 0 running")
    with sabot_sql.connect(agents=1):
        terminal.await_text("1 session · 0 running")
    terminal.await_text("0 sessions")
    if way == "q":
        os.write(terminal.own, b"xq")
    else:
        os.killpg(terminal.process.pid, signal.SIGINT if way == "ctrl-c" else signal.SIGTERM)
    assert terminal.ended() == (143 if way == "SIGTERM" else 0)
    assert terminal.shown.endswith(b"\x1b[?25h\x1b[?1049l")
    assert terminal.modes_now() == terminal.modes
