"""Processes that a test looks for, and what it waits for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for an event that nothing else tells of."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it does not come to hold"
        time.sleep(0.02)


def agent_services(of: int | None = None) -> list[psutil.Process]:
    """The agents that process ``of``, by default this one, and its children have started, however deep."""
    return [process for process in psutil.Process(of).children(recursive=True) if _is_agent(process)]


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; whoever started it may not have noticed."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _is_agent(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "--with-parent" in process.cmdline() and runs(process)
    return False
