"""Which of the queries of a host run, and with how much memory."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sabot_sql.config import SessionConfig
from sabot_sql.coordinator.controller import DBOSParallelController, Grant


class Admission:
    """Gives the memory of the host to queries, and waits where there is none; for any number of threads.

    ``total_bytes`` is what all queries may use together. Whoever waits longest comes first.
    """

    def __init__(self, controller: DBOSParallelController, total_bytes: int) -> None:
        self._controller = controller
        self._total_bytes = total_bytes
        self._changed = threading.Condition()
        self._granted: dict[str, int] = {}
        self._waiting: list[str] = []

    def admit(self, query_id: str, config: SessionConfig, check: Callable[[], None]) -> Grant:
        """Wait until the query may run; gives its memory, with the reason. ``check`` raises to end the wait."""
        with self._changed:
            self._waiting.append(query_id)
            try:
                while True:
                    check()
                    grant = self._controller.admit(
                        asked_bytes=config.memory_bytes,
                        least_bytes=config.least_memory_bytes,
                        total_bytes=self._total_bytes,
                        granted_bytes=sum(self._granted.values()),
                        running=len(self._granted),
                        before=self._waiting.index(query_id),
                    )
                    if grant is not None:
                        self._granted[query_id] = grant.memory_bytes
                        return grant
                    self._changed.wait(0.05)
            finally:
                self._waiting.remove(query_id)
                self._changed.notify_all()

    def take(self, query_id: str, grant: Grant) -> None:
        """Note what a query was granted, by this host or by an earlier one; again is nothing new."""
        with self._changed:
            self._granted[query_id] = grant.memory_bytes

    def leave(self, query_id: str) -> None:
        """The query has ended, and others can have its memory."""
        with self._changed:
            self._granted.pop(query_id, None)
            self._changed.notify_all()
