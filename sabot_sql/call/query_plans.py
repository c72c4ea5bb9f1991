"""The plans of a session's queries: of those that run, as far as they have got, and of the last ones that ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from sabot_sql.call.observation import Progress
from sabot_sql.errors import QueryCancelled, QueryTimeout, UsageError
from sabot_sql.plan_document import PlanJson
from sabot_sql.plan_view import Plan, UnhappyEnd

_KEPT = 32
"""So many plans of queries that ended are kept."""


class QueryPlans:
    """Plans by the ids of their queries; usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Progress] = {}
        self._ended: OrderedDict[str, Plan] = OrderedDict()

    @contextmanager
    def following(self, query_id: str, progress: Progress) -> Iterator[None]:
        """While this is open the query runs; one that ends with an error keeps the plan that it had then."""
        with self._lock:
            self._running[query_id] = progress
        try:
            yield
        except BaseException as error:
            self.keep(query_id, Plan(progress.last()).ended(_end(error)))
            raise
        finally:
            with self._lock:
                self._running.pop(query_id, None)

    def running(self) -> list[PlanJson]:
        """The plans of the queries that run, as far as they have got, oldest first."""
        with self._lock:
            running = tuple(self._running.values())
        return [progress.present() for progress in running]

    def keep(self, query_id: str, plan: Plan) -> None:
        """Keep the plan of a query that has ended, in place of the oldest one."""
        with self._lock:
            self._ended[query_id] = plan
            while len(self._ended) > _KEPT:
                self._ended.popitem(last=False)

    def plan(self, query_id: str) -> Plan:
        """The plan of that query.

        Raises:
            UsageError: no query of that id runs, and none of the last ones had it.
        """
        with self._lock:
            progress, ended, running = self._running.get(query_id), self._ended.get(query_id), tuple(self._running)
        if progress is not None:
            return Plan(progress.present())
        if ended is not None:
            return ended
        raise UsageError(
            f"no query {query_id!r} runs, nor is it one of the last {_KEPT} that ended",
            code="QUERY_NOT_FOUND",
            candidates=running,
        )


def _end(error: BaseException) -> UnhappyEnd:
    match error:
        case QueryTimeout():
            return "timed_out"
        case QueryCancelled() | KeyboardInterrupt():
            return "cancelled"
        case _:
            return "failed"
