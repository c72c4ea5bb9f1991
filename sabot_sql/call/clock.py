"""Where the time of a query goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum


class Phase(StrEnum):
    """What a query is doing; the values are the names that the plan JSON has."""

    PLANNING = "planning_ms"
    STARTING = "startup_ms"
    RUNNING = "running_ms"
    HANDING_OVER = "handover_ms"


class Clock:
    """The one clock of a query: at every moment it is in exactly one phase, so that the phases add up to the whole."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        self._began = now_seconds()
        self._ended: dict[Phase, float] = dict.fromkeys(Phase, 0.0)
        self._current = (Phase.PLANNING, self._began)

    @property
    def phase(self) -> Phase:
        """What it is doing now."""
        return self._current[0]

    def elapsed_ms(self) -> float:
        """Milliseconds since it began."""
        return (self._now_seconds() - self._began) * 1e3

    def enter(self, phase: Phase) -> None:
        """The phase so far ends and ``phase`` begins."""
        now = self._now_seconds()
        before, since = self._current
        self._ended[before] += now - since
        self._current = (phase, now)

    @contextmanager
    def spending(self, phase: Phase) -> Iterator[None]:
        """``phase`` while this is open, afterwards what it was before."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of each phase so far."""
        current, since = self._current
        running = {current: self._now_seconds() - since}
        return {phase.value: (spent + running.get(phase, 0.0)) * 1e3 for phase, spent in self._ended.items()}
