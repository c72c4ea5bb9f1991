"""A state directory of each test's own, whose durable host ends with the test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import sabot_sql
from sabot_sql.detached.state_directory import StateDirectory


def hosts_of(directory: Path) -> list[psutil.Process]:
    """The durable hosts of a state directory, and what they have started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if "sabot_sql.durable" in words and str(directory) in words:
                found += [process, *process.children(recursive=True)]
    return found


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDirectory]:
    """The state directory of this test, which submits to it."""
    directory = tmp_path / "state"
    monkeypatch.setenv("SABOT_STATE_DIR", str(directory))
    yield StateDirectory.chosen()
    found = hosts_of(directory)
    for process in found:
        with suppress(psutil.Error):
            os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(found, timeout=10)


@pytest.fixture
def session() -> Iterator[sabot_sql.Session]:
    """Two thread agents."""
    with sabot_sql.connect(agents=2, memory_limit="2GiB") as session:
        yield session
