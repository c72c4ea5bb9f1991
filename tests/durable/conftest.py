"""A state directory of each test's own, whose durable host ends with the test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    """A state directory for this test alone, whose host it may treat as it likes."""
    with _state(tmp_path / "state") as found:
        yield found


@pytest.fixture(scope="module")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDirectory]:
    """A state directory whose one host serves all tests of a module that only ask it."""
    with _state(tmp_path_factory.mktemp("shared") / "state") as found:
        yield found


@pytest.fixture
def session() -> Iterator[sabot_sql.Session]:
    """Two thread agents."""
    with sabot_sql.connect(agents=2, memory_limit="2GiB") as session:
        yield session


@contextmanager
def _state(directory: Path) -> Iterator[StateDirectory]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_STATE_DIR", str(directory))
        yield StateDirectory.chosen()
        found = hosts_of(directory)
        for process in found:
            with suppress(psutil.Error):
                os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(found, timeout=10)
