"""What is known of a query while it runs, and the observer who is told of it five times a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sabot_sql.call.clock import Clock
from sabot_sql.plan_document import PlanJson, timed

Observer = Callable[[Mapping[str, Any]], None]

_INTERVAL_SECONDS = 0.2
_STOP_SECONDS = 1.0


class Progress:
    """The plan JSON of a query that runs: made when somebody asks, or passed on by whoever runs the query."""

    def __init__(self, clock: Clock, make: Callable[[], PlanJson]) -> None:
        self._clock = clock
        self._make: Callable[[], PlanJson] | None = make
        self._made_before = make
        self._told: Mapping[str, Any] | None = None
        self._listener: Observer | None = None

    def tell(self, document: Mapping[str, Any]) -> None:
        """Take a plan JSON for the present one, and pass it on to whoever listens."""
        self._told = document
        if self._listener is not None:
            self._listener(self._timed(document))

    @contextmanager
    def telling(self, make: Callable[[], PlanJson] | None) -> Iterator[None]:
        """While this is open, the present plan is what ``make`` gives; None leaves it to :meth:`tell`."""
        before, self._make = self._make, make
        self._made_before = before or self._made_before
        try:
            yield
        except BaseException:
            if self._told is None:
                self._told = (make or self._made_before)()  # the last that is known of a query that failed
            raise
        finally:
            self._make = before

    def listen(self, listener: Observer) -> None:
        """Pass all that is told from now on to ``listener``."""
        self._listener = listener

    def made(self) -> PlanJson | None:
        """The present plan with the time so far; None while another tells it."""
        make = self._make
        return None if make is None else self._timed(make())

    def present(self) -> PlanJson:
        """The present plan; before the first one is told, the last that was made."""
        return self.made() or self._timed(self._told or self._made_before())

    def last(self) -> PlanJson:
        """The plan of a query that has failed, as it was then."""
        return self._timed(self._told or self._made_before())

    def _timed(self, document: Mapping[str, Any]) -> PlanJson:
        """The times are those of the whole query, whoever made the plan."""
        return timed(document, self._clock.times_ms())


class Observation:
    """Tells ``observer`` how a query gets on: by a thread of its own what ``progress`` makes, or what it is told.

    A context manager: nothing is told any more once it is closed. An observer that raises in that thread is not called
    again, and what it raised is raised when this is closed.
    """

    def __init__(self, observer: Observer, progress: Progress) -> None:
        self._observer = observer
        self._progress = progress
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        progress.listen(self._tell)
        self._thread = threading.Thread(target=self._tick, name="sabot-observation", daemon=True)
        self._thread.start()

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closed.set()
        self._thread.join(_STOP_SECONDS)
        if kind is None and self._failure is not None:
            raise self._failure

    def _tell(self, document: Mapping[str, Any]) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._observer(document)

    def _tick(self) -> None:
        while not self._closed.wait(_INTERVAL_SECONDS):
            try:
                document = self._progress.made()
                if document is not None:
                    self._tell(document)
            except BaseException as error:  # noqa: BLE001  it is raised again in the thread that waits for the query
                self._failure = error
                return
