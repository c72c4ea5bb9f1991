"""What the observer of a call is told while it waits, five times a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sabot_sql.call.clock import Clock
from sabot_sql.plan_document import PlanDocument, timed

Observer = Callable[[Mapping[str, Any]], None]

_INTERVAL_SECONDS = 0.2
_STOP_SECONDS = 1.0


class Observation:
    """Tells ``observer`` how a query gets on: by a thread of its own what :meth:`telling` gives, or what is passed on.

    A context manager: nothing is told any more once it is closed. An observer that raises in that thread is not called
    again, and what it raised is raised when this is closed.
    """

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._document: Callable[[], PlanDocument] | None = None
        self._thread = threading.Thread(target=self._tick, name="sabot-observation", daemon=True)
        self._thread.start()

    def tell(self, document: Mapping[str, Any]) -> None:
        """Pass a plan JSON on, with the time as the clock of the whole query has it."""
        with self._lock:
            if not self._closed.is_set():
                self._observer(timed(document, self._clock.times_ms()))

    @contextmanager
    def telling(self, document: Callable[[], PlanDocument] | None) -> Iterator[None]:
        """While this is open, tell what ``document`` gives, at intervals; None leaves it to others."""
        before, self._document = self._document, document
        try:
            yield
        finally:
            self._document = before

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closed.set()
        self._thread.join(_STOP_SECONDS)
        if kind is None and self._failure is not None:
            raise self._failure

    def _tick(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            document = self._document
            if document is None:
                continue
            try:
                self.tell(document())
            except BaseException as error:  # noqa: BLE001  it is raised again in the thread that waits for the query
                self._failure = error
                return
