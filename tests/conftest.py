"""Fixtures that every test may use; what they build is in :mod:`tests.support`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell starts background jobs deaf to Ctrl-C; a terminal and Jupyter, whose interrupts are tested, do not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
