"""A fork touches nothing of its parent's, and works on a session of its own or is told why not."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PARENT = """
import gc, multiprocessing, os, signal, subprocess, sys, threading, time
from pathlib import Path
import pyarrow as pa
import sabot_sql

directory = Path(sys.argv[1])

def wait(child):
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise SystemExit("the child hangs")

def agent_pids(session):
    return [getattr(agent, "process_id", agent.agent_id) for agent in session._pools._pool.agents]

def main():
    options = dict(isolation="{isolation}", memory_limit="512MiB", threads=1, spill_directory=directory)
    session = sabot_sql.connect(agents=2, **options)
    session.register("t", pa.table({{"a": range(1000)}}))
    small = session.query("SELECT sum(a) AS s FROM t")
    large = session.query("SELECT i, i::VARCHAR AS s, i * 7 AS x FROM range(5_000_000) t(i)")
    assert large.stats["on_disk"], "the result is meant to lie in a file"
    agents = agent_pids(session)
    # What agents spilled goes by itself, once a query is released.
    files = [path for path in directory.rglob("*") if path.is_dir() or path.name.startswith("result")]
    assert files

{body}

    assert agent_pids(session) == agents, "agents died"
    assert all(agent.alive for agent in session._pools._pool.agents)
    assert set(files) <= set(directory.rglob("*")), f"gone: {{set(files) - set(directory.rglob('*'))}}"
    assert large.fetchmany(2)[1][0] == 1
    assert session.query("SELECT sum(a) FROM t").fetchall() == [(499500,)]
    assert agent_pids(session) == agents
    session.close()
    assert list(directory.iterdir()) == []
    print("fine")

if __name__ == "__main__":
    main()
"""

EXIT = """
child = os.fork()
if child == 0:
    sys.exit(0)  # with all of its finalizers
assert wait(child) == 0
"""

COLLECT = """
child = os.fork()
if child == 0:
    del session, small, large
    gc.collect()
    sys.exit(0)
assert wait(child) == 0
"""

CLOSE = """
child = os.fork()
if child == 0:
    session.close()
    assert session.closed
    sys.exit(0)
assert wait(child) == 0
"""

USE = """
child = os.fork()
if child == 0:
    code = 1
    for use in (
        lambda: session.query("SELECT 1"),
        lambda: session.explain("SELECT 1"),
        lambda: session.register("u", pa.table({"a": [1]})),
    ):
        try:
            use()
        except sabot_sql.SessionClosed as error:
            assert error.code == "FORKED", error
        else:
            os._exit(2)
    assert small.fetchall() == [(499500,)]
    assert len(large.fetchall()) == 5_000_000
    sys.exit(0)
assert wait(child) == 0
"""

OWN = """
shared = sabot_sql.query("SELECT 1").fetchall()
child = os.fork()
if child == 0:
    assert sabot_sql.query("SELECT 42").fetchall() == [(42,)]
    for isolation in ("thread", "process"):
        with sabot_sql.connect(agents=2, isolation=isolation, memory_limit="512MiB", spill_directory=directory) as own:
            assert own.query("SELECT count(*) FROM range(100_000)").fetchall() == [(100_000,)]
    sys.exit(0)
assert wait(child) == 0
assert sabot_sql.query("SELECT 43").fetchall() == [(43,)]
"""

WHILE_IT_RUNS = """
started = threading.Event()
cancelled = []
def run():
    try:
        session.query("SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3", observer=lambda _: started.set())
    except sabot_sql.QueryCancelled:
        cancelled.append(True)
running = threading.Thread(target=run)
running.start()
assert started.wait(20)
child = os.fork()
if child == 0:
    sys.exit(0)
assert wait(child) == 0
assert session.running()
session.cancel()
running.join(20)
assert cancelled
"""

POOL = """
with multiprocessing.get_context("fork").Pool(2) as workers:
    assert workers.map(square, [1, 2, 3]) == [1, 4, 9]
    assert workers.map(ask, [5, 6]) == [5, 6]
"""

SUBPROCESS = """
subprocess.run([sys.executable, "-c", "pass"], check=True)
subprocess.run(["true"], check=True, preexec_fn=lambda: None)
"""

FUNCTIONS = """
def square(x):
    return x * x

def ask(x):
    import sabot_sql
    return sabot_sql.query("SELECT $x", {"x": x}).fetchall()[0][0]

def main():"""


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("body", ["EXIT", "COLLECT", "CLOSE", "USE", "OWN", "WHILE_IT_RUNS", "POOL", "SUBPROCESS"])
def test_a_fork_leaves_its_parent_alone(body: str, isolation: str, tmp_path: Path) -> None:
    text = PARENT.format(isolation=isolation, body=textwrap.indent(globals()[body].strip(), "    "))
    script = tmp_path / "parent.py"
    script.write_text(text.replace("\ndef main():", FUNCTIONS, 1))
    directory = tmp_path / "scratch"
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(directory)], capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", ""), done.stderr


def test_agents_end_with_their_session_although_a_fork_lives_on(tmp_path: Path) -> None:
    """The fork has copies of the sockets whose end tells the agents."""
    script = """
import os, sys, time
import sabot_sql
session = sabot_sql.connect(agents=2, isolation="process", memory_limit="512MiB", threads=1)
session.query("SELECT count(*) FROM range(1000)")
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(30)
    os._exit(0)
print(child, *(agent.process_id for agent in session._pools._pool.agents), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child, *agents = (int(word) for word in parent.stdout.readline().split())
        parent.kill()
        parent.wait(5)
    try:
        assert len(agents) == 2
        assert all(ended_soon(agent) for agent in agents)
    finally:
        os.kill(child, 9)


def ended_soon(process_id: int) -> bool:
    import time

    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            if "(zombie)" in Path(f"/proc/{process_id}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def square(x: int) -> int:
    return x * x


def ask(x: int) -> int:
    import sabot_sql

    value: int = sabot_sql.query("SELECT $x", {"x": x}).fetchall()[0][0]
    return value


def test_a_pool_of_spawned_processes() -> None:
    import sabot_sql

    with sabot_sql.connect(agents=2, memory_limit="512MiB") as session:
        assert session.query("SELECT count(*) FROM range(1000)").fetchall() == [(1000,)]
        with multiprocessing.get_context("spawn").Pool(2) as workers:
            assert workers.map(square, [1, 2, 3]) == [1, 4, 9]
            assert workers.map(ask, [5, 6]) == [5, 6]
        assert session.query("SELECT count(*) FROM range(1000)").fetchall() == [(1000,)]
