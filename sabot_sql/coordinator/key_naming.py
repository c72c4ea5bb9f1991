"""Looks the keys of heavy hitters up while a query runs, in a thread of its own and for a bounded time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from sabot_sql.coordinator.messages import KeyNamed
from sabot_sql.protocol.task_spec import KeyQuestion

Find = Callable[[KeyQuestion, int], str | None]
"""Question, milliseconds that it may take → the key as people write it."""


class KeyNaming:
    """Answers every question of one query; all answers together take at most ``budget_ms``.

    What is asked when that is used up, or after :meth:`close`, has the answer that no key was found.
    """

    def __init__(self, find: Find, answer: Callable[[KeyNamed], None], budget_ms: int) -> None:
        self._find = find
        self._answer = answer
        self._left_ms = float(budget_ms)
        self._questions: queue.SimpleQueue[KeyQuestion | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self, question: KeyQuestion) -> None:
        """Look for the key; the answer comes from another thread."""
        self._questions.put(question)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sabot-keys", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Look for nothing any more, and wait for what is being looked for: at most as long as it may take."""
        self._closed.set()
        if self._thread is not None:
            self._questions.put(None)
            self._thread.join(max(0.0, self._left_ms) / 1e3 + 0.1)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            name = None
            if self._left_ms >= 1 and not self._closed.is_set():
                began = time.monotonic()
                name = self._find(question, int(self._left_ms))
                self._left_ms -= (time.monotonic() - began) * 1e3
            self._answer(KeyNamed(question.edge.edge_id, question.hash, name))
