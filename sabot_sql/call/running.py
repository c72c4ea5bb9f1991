"""A query while it runs: who may stop it, and how long it may take."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from sabot_sql.arguments import seconds
from sabot_sql.call.clock import Clock
from sabot_sql.errors import QueryCancelled
from sabot_sql.stoppable import stopped_by

if TYPE_CHECKING:
    from sabot_sql.catalog.connection import Connection

_T = TypeVar("_T")

_INTERRUPT_SECONDS = 0.05
_GIVE_UP_SECONDS = 0.8
"""How long a query that was stopped is waited for; after that its thread is left to end by itself."""


class Interrupted(Protocol):
    """What runs a statement and can be told to stop: a connection, a cursor."""

    def interrupt(self) -> None:
        """Stop what runs; callable from any thread."""
        ...


class RunningQuery:
    """Runs the work of one query in a thread and stops it on cancel, at its deadline and on Ctrl-C.

    Whoever waits is answered within a second. Work that does not stop by then, because it is inside foreign code, goes
    on alone: it is interrupted until it ends, and nobody gets its result. It is also the cancellation that the
    coordinator looks at.
    """

    def __init__(self, query_id: str, timeout_seconds: float | None) -> None:
        self.query_id = query_id
        self.timeout_seconds = None if timeout_seconds is None else seconds("timeout", timeout_seconds)
        self.too_late: str | None = None
        """What it ran past, once it did."""
        self._limit_ms: float | None = None
        self._limit_ends_ms = math.inf
        self.clock = Clock()
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._interrupted: Interrupted | None = None
        self._interrupting = threading.Lock()

    @property
    def cancelled(self) -> bool:
        """Whether it should stop."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask it to stop."""
        self._cancelled.set()

    def check(self) -> None:
        """Stop here if it was asked to.

        Raises:
            QueryCancelled: it was.
        """
        if self.cancelled:
            raise QueryCancelled("the query was cancelled")

    def elapsed_ms(self) -> float:
        """Milliseconds since it began."""
        return self.clock.elapsed_ms()

    def left_ms(self) -> int | None:
        """Milliseconds until its deadline."""
        ends_ms = self._ends_ms()
        return None if ends_ms == math.inf else max(1, int(ends_ms - self.elapsed_ms()))

    @contextmanager
    def limited(self, limit_ms: int) -> Iterator[None]:
        """While it is open, it may run for so long and no longer; 0 is no limit."""
        self._limit_ms = limit_ms
        self._limit_ends_ms = self.elapsed_ms() + limit_ms if limit_ms else math.inf
        try:
            yield
        finally:
            self._limit_ends_ms = math.inf

    def _ends_ms(self) -> float:
        timeout_ms = math.inf if self.timeout_seconds is None else self.timeout_seconds * 1e3
        return min(timeout_ms, self._limit_ends_ms)

    @contextmanager
    def interrupting(self, connection: Connection) -> Iterator[None]:
        """While it is open, cancelling interrupts what ``connection`` runs; other queries wait outside."""
        with self.holding(connection), self.interrupts(connection):
            yield

    @contextmanager
    def asking(self, connection: Connection) -> Iterator[None]:
        """As :meth:`interrupting`, for questions; whatever fails of one once the query was stopped is the stop itself.

        Raises:
            QueryCancelled: it was.
        """
        with self.interrupting(connection):
            try:
                yield
            except Exception:
                self.check()
                raise

    @contextmanager
    def interrupts(self, runner: Interrupted) -> Iterator[None]:
        """While it is open, cancelling interrupts what ``runner`` runs, which nobody else uses meanwhile."""
        self._interrupted = runner
        try:
            yield
        finally:
            with self._interrupting:  # an interrupt that is on its way must not hit the next one's statement
                self._interrupted = None

    @contextmanager
    def holding(self, connection: Connection) -> Iterator[None]:
        """Hold the connection's lock; while another query has it, this one can still be cancelled.

        Raises:
            QueryCancelled: it was, before the lock was free.
        """
        while not connection.lock.acquire(timeout=_INTERRUPT_SECONDS):
            self.check()
        try:
            self.check()
            yield
        finally:
            connection.lock.release()

    def run(self, work: Callable[[], _T]) -> _T:
        """The value of ``work``, run in another thread.

        Raises:
            QueryCancelled: it was cancelled, also by its deadline (``too_late`` tells).
            KeyboardInterrupt: Ctrl-C, whatever the work does then.
        """
        outcome: list[_T] = []
        failure: list[BaseException] = []

        def target() -> None:
            try:
                with stopped_by(self.check):
                    outcome.append(work())
            except BaseException as error:  # noqa: BLE001  it is raised again in the thread that waits
                failure.append(error)
            finally:
                self._ended.set()

        try:
            threading.Thread(target=target, name=f"sabot-{self.query_id}", daemon=True).start()
            self._wait()
        except BaseException:
            self.cancel()
            self._stop()
            raise
        if not self._ended.is_set():
            raise QueryCancelled("the query was cancelled", hint="what it waits for does not stop: it is left to end")
        if failure:
            try:
                raise failure[0]
            finally:
                failure.clear()  # the traceback refers to this frame: do not keep both alive
        return outcome[0]

    def _wait(self) -> None:
        """Until the work has ended, or was asked to and did not."""
        while not self._ended.is_set():
            ends_ms = self._ends_ms()
            left = (ends_ms - self.elapsed_ms()) / 1e3
            if left <= 0:
                of_setting = ends_ms == self._limit_ends_ms
                limit = (
                    f"max_execution_time, {self._limit_ms} ms"
                    if of_setting
                    else f"its limit of {self.timeout_seconds} s"
                )
                self.too_late = f"the query ran past {limit}"
                self.cancel()
            if self.cancelled:
                self._stop()
                return
            self._ended.wait(min(left, _INTERRUPT_SECONDS))

    def _stop(self) -> None:
        """Interrupt until the work has ended: an interrupt that comes before DuckDB executes is lost.

        Whoever called this does not wait longer than is promised; what is still at work then is interrupted by a thread
        that has the time.
        """
        try:
            if self._interrupt_until(time.monotonic() + _GIVE_UP_SECONDS):
                return
        except BaseException:  # a second Ctrl-C
            self._leave()
            raise
        self._leave()

    def _leave(self) -> None:
        name = f"sabot-stop-{self.query_id}"
        threading.Thread(target=self._interrupt_until, args=(None,), name=name, daemon=True).start()

    def _interrupt_until(self, give_up: float | None) -> bool:
        while not self._ended.wait(_INTERRUPT_SECONDS):
            with self._interrupting:
                if self._interrupted is not None:
                    self._interrupted.interrupt()
            if give_up is not None and time.monotonic() > give_up:
                return False
        return True
