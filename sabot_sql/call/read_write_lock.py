"""Keeps statements that change something out of queries that are running."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHECK_SECONDS = 0.05


class ReadWriteLock:
    """Any number of distributed queries, or one statement that may change what they read.

    The tasks of one query read at different moments, each a state of its own: a change in between would give an answer
    that was never true. ``check`` is called while waiting and raises when the query should not wait any longer.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers = 0
        self._writer = False

    @contextmanager
    def reading(self, check: Callable[[], None]) -> Iterator[None]:
        """While this is open nothing is changed."""
        self._wait(check, lambda: not self._writer)
        self._readers += 1
        self._condition.release()
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def writing(self, check: Callable[[], None]) -> Iterator[None]:
        """While this is open nothing is read by tasks."""
        self._wait(check, lambda: not self._writer and not self._readers)
        self._writer = True
        self._condition.release()
        try:
            yield
        finally:
            with self._condition:
                self._writer = False
                self._condition.notify_all()

    def _wait(self, check: Callable[[], None], free: Callable[[], bool]) -> None:
        """Return holding the condition's lock once ``free`` is true."""
        self._condition.acquire()
        try:
            while not free():
                self._condition.wait(_CHECK_SECONDS)
                check()
        except BaseException:
            self._condition.release()
            raise
