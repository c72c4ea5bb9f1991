"""Durable hosts that tests start, and the state directories that they serve."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

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


@contextmanager
def state_directory(directory: Path) -> Iterator[StateDirectory]:
    """While it is open this process and its children use that state directory; its hosts end with it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_STATE_DIR", str(directory))
        yield StateDirectory.chosen()
        found = hosts_of(directory)
        for process in found:
            with suppress(psutil.Error):
                os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(found, timeout=10)
