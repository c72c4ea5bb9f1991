"""Where the results of a session live: memory that all of them share, then files."""

from __future__ import annotations

import threading
import weakref

from sabot_sql.scratch import Scratch

_SMALL_BYTES = 1 << 16
"""So little is not worth a file, however full the memory is."""


class HeldBytes:
    """How much memory one result has; it counts for as long as somebody has the result."""

    def __init__(self) -> None:
        self.size_bytes = 0


class ResultRoom:
    """Says when a result must go to a file, which is made in ``scratch``."""

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self._lock = threading.Lock()
        # Nothing has to be given back: what a forgotten result held is not found here any more.
        self._held: weakref.WeakSet[HeldBytes] = weakref.WeakSet()

    def enter(self) -> HeldBytes:
        """A result begins that has nothing in memory yet."""
        held = HeldBytes()
        with self._lock:
            self._held.add(held)
        return held

    def is_too_much(self, held: HeldBytes, budget_bytes: int) -> bool:
        """Whether ``held`` is not small, and all results together have more than ``budget_bytes``."""
        if held.size_bytes <= min(_SMALL_BYTES, budget_bytes):
            return False
        if held.size_bytes > budget_bytes:
            return True
        with self._lock:
            return sum(other.size_bytes for other in self._held) > budget_bytes
