"""An agent that is a thread of this process."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sabot_sql.agent.agent import Done
from sabot_sql.agent.failures import reason_of
from sabot_sql.agent.runner import Attempt, InputLost, Runner
from sabot_sql.errors import InternalError, QueryCancelled
from sabot_sql.protocol.task_spec import (
    FailureKind,
    Outcome,
    QueryContext,
    SplitSpec,
    TaskFailure,
    TaskId,
    Work,
)

if TYPE_CHECKING:
    import sabot_native

RunnerSource = Callable[[QueryContext, Work], AbstractContextManager[Runner]]
"""The runner for a work of a query: an agent may have to open another DuckDB instance for it."""

_CLOSE_SECONDS = 2.0
_INTERRUPT_SECONDS = 0.05


class _Query:
    """A query that the agent was told of; ``newest`` is the latest attempt of each (stage, task)."""

    def __init__(self, context: QueryContext) -> None:
        self.context = context
        self.newest: dict[tuple[str, int], int] = {}
        self.cancelled = False
        self.stopped: set[TaskId] = set()
        self.running: Attempt | None = None
        self.running_id: TaskId | None = None


class ThreadAgent:
    """Runs works in a thread of its own; see :class:`sabot_sql.agent.agent.Agent`.

    The shuffle manager may be shared with other agents of this process; it is not closed with the agent.
    """

    def __init__(self, agent_id: str, runner_for: RunnerSource, manager: sabot_native.ShuffleManager) -> None:
        self.agent_id = agent_id
        self._runner_for = runner_for
        self._manager = manager
        self._lock = threading.Lock()
        self._queries: dict[str, _Query] = {}
        self._works: queue.SimpleQueue[tuple[Work, Done] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"sabot-{agent_id}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes work."""
        return not self._closed

    @property
    def readable(self) -> bool:
        """Always: the manager outlives the agent."""
        return True

    def begin(self, context: QueryContext) -> None:
        """Announce a query."""
        self._manager.register_shuffle(context.query_id)
        with self._lock:
            self._queries[context.query_id] = _Query(context)

    def submit(self, work: Work, done: Done) -> None:
        """Run ``work`` when its turn comes."""
        refusal = self._admit(work)
        if refusal is not None:
            done(refusal)
        else:
            self._works.put((work, done))

    def cancel(self, query_id: str) -> None:
        """Interrupt the query's work."""
        with self._lock:
            query = self._queries.get(query_id)
            if query is None:
                return
            query.cancelled = True
            running = query.running
        if running is not None:
            running.cancel()

    def stop(self, task_id: TaskId) -> None:
        """Interrupt the attempt, or refuse it when its turn comes."""
        with self._lock:
            query = self._queries.get(task_id.query_id)
            if query is None:
                return
            query.stopped.add(task_id)
            running = query.running if query.running_id == task_id else None
        if running is not None:
            running.cancel()

    def give_up(self, query_id: str) -> None:
        """A thread cannot be ended: it takes other work once DuckDB returns, and frees what it wrote."""
        self.cancel(query_id)

    def release(self, query_id: str, edge_id: str | None = None) -> None:
        """Free what the query committed."""
        if edge_id is None:
            with self._lock:
                query = self._queries.pop(query_id, None)
                running = query.running if query else None
            if running is not None:
                running.cancel()
        self._manager.release(query_id, edge_id)

    def metrics(self, wait_seconds: float = 0.0) -> dict[str, int]:
        """Figures of the shuffle manager."""
        return dict(self._manager.metrics())

    @property
    def ended(self) -> bool:
        """Whether the thread is gone."""
        return not self._thread.is_alive()

    def kill(self) -> None:
        """A thread cannot be ended: as :meth:`end`."""
        self.end()

    def end(self) -> None:
        """Interrupt everything; the thread ends when DuckDB has returned."""
        with self._lock:
            closed, self._closed = self._closed, True
            queries = list(self._queries)
        if not closed:
            self._works.put(None)
        for query_id in queries:
            self.cancel(query_id)

    def close(self) -> None:
        """End the thread and free what its queries committed."""
        give_up = time.monotonic() + _CLOSE_SECONDS
        self.end()
        while self._thread.is_alive() and time.monotonic() < give_up:
            self._thread.join(_INTERRUPT_SECONDS)
            self.end()  # an interrupt that comes before DuckDB executes is lost
        with self._lock:
            queries = list(self._queries)
        for query_id in queries:
            self.release(query_id)

    def _admit(self, work: Work) -> TaskFailure | None:
        key = (work.id.stage, work.id.task)
        with self._lock:
            query = self._queries.get(work.id.query_id)
            if self._closed:
                return self._failure(work, FailureKind.AGENT_DIED, f"agent {self.agent_id} was closed")
            if query is None:
                return self._failure(work, FailureKind.STALE, f"agent {self.agent_id} does not know the query")
            if work.id.attempt < query.newest.get(key, 0):
                return self._failure(work, FailureKind.STALE, f"attempt {query.newest[key]} has begun already")
            query.newest[key] = work.id.attempt
        return None

    def _serve(self) -> None:
        while (item := self._works.get()) is not None:
            work, done = item
            # The callback belongs to a query's driver, which may be gone; the agent serves others as well.
            done(self._run(work))

    def _run(self, work: Work) -> Outcome:
        attempt = Attempt()
        with self._lock:
            query = self._queries.get(work.id.query_id)
            if query is None or query.cancelled or work.id in query.stopped:
                return TaskFailure(
                    work.id, self.agent_id, FailureKind.CANCELLED, QueryCancelled("the query was cancelled")
                )
            query.running, query.running_id = attempt, work.id
        try:
            with self._runner_for(query.context, work) as runner:
                outcome: Outcome = self._run_on(runner, work, query.context, attempt)
        except Exception as error:  # noqa: BLE001 - whatever a task raises is an outcome; the agent goes on
            kind, reason = reason_of(error, cancelled=attempt.token.cancelled)
            lost = error.lost if isinstance(error, InputLost) else ()
            outcome = TaskFailure(work.id, self.agent_id, kind, reason, lost)
        with self._lock:
            query.running = query.running_id = None
        return outcome

    @staticmethod
    def _run_on(runner: Runner, work: Work, context: QueryContext, attempt: Attempt) -> Outcome:
        if isinstance(work, SplitSpec):
            return runner.split(work, context, attempt)
        return runner.run(work, context, attempt)

    def _failure(self, work: Work, kind: FailureKind, message: str) -> TaskFailure:
        return TaskFailure(work.id, self.agent_id, kind, InternalError(message))
