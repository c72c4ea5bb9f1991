"""A durable query in the hands of whoever asked it, or of anybody who knows its id."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Generator
from typing import Any

from sabot_sql import arguments
from sabot_sql.call.observation import Observer
from sabot_sql.catalog.kept_rows import KeptRows
from sabot_sql.config import SessionConfig, memory_budget_bytes
from sabot_sql.detached.durable_query import DurableQuery
from sabot_sql.detached.host_client import DATABASE_DOWN, HostClient
from sabot_sql.detached.kept_result import Outcome, rows_file
from sabot_sql.detached.messages import Cancel, Describe, Done, Forget, QueryState
from sabot_sql.errors import RESULT_LOST, AgentError, InternalError, QueryTimeout, ResourceError
from sabot_sql.plan_view import Plan
from sabot_sql.result import Result

_OBSERVE_SECONDS = 0.25
_POLL_SECONDS = 0.05
_WRITTEN_SECONDS = 2.0
"""What came of a query is in its directory sooner than this after the host says that it has ended."""
_WAIT_SECONDS = 0.5
"""So long may a question stay open: Ctrl-C is answered between two of them."""


class QueryHandle:
    """A query that runs, or ran, in the durable host; any process of this user can have one.

    It can be awaited, which gives its result. Methods may be called by any thread.
    """

    def __init__(self, query_id: str, client: HostClient) -> None:
        self.query_id = query_id
        self._client = client
        self._directory = client.state.query(query_id)

    def __repr__(self) -> str:
        return f"<QueryHandle {self.query_id}: {self.status}>"

    @property
    def status(self) -> str:
        """``queued``, ``running``, ``finished``, ``failed``, ``cancelled`` or ``timed_out``.

        Raises:
            UsageError: the query is not known any more.
            AgentError: there is no host, and none starts.
        """
        outcome = Outcome.read(self._directory)
        return self.state().state if outcome is None else outcome.state

    @property
    def plan(self) -> Plan | None:
        """The plan as far as the query has got; None before it was planned.

        Raises:
            SabotSQLError: as :attr:`status`.
        """
        outcome = Outcome.read(self._directory)
        if outcome is not None:
            return Plan(outcome.plan) if outcome.plan else None
        text = self.state().plan
        return Plan(json.loads(text)) if text else None

    def progress(self) -> float | None:
        """How far it is, from 0 to 1, where that can be told.

        Raises:
            SabotSQLError: as :attr:`status`.
        """
        state = self.state()
        if state.state == "finished":
            return 1.0
        return None if state.progress_percent is None else state.progress_percent / 100

    def state(self, known: str = "", wait_seconds: float = 0.0) -> QueryState:
        """All that the host says of it; after ``wait_seconds``, or once its state is another than ``known``.

        Raises:
            SabotSQLError: as :attr:`status`.
        """
        question = Describe(self.query_id, known, int(wait_seconds * 1e3))
        return self._client.ask(question, QueryState, wait_seconds=wait_seconds)

    def result(self, timeout: float | None = None, *, observer: Observer | None = None) -> Result:
        """Its rows, once it has ended; ``timeout`` is in seconds, and leaves the query as it is.

        ``observer`` gets the plan JSON, about four times a second.

        Raises:
            QueryTimeout: it has not ended by then.
            ResourceError: it has ended, and what came of it was removed.
            SabotSQLError: what the query failed with.
        """
        limit = None if timeout is None else arguments.seconds("timeout", timeout)
        ends = None if limit is None else time.monotonic() + limit
        known, ended_at = "", None
        while (outcome := Outcome.read(self._directory)) is None:
            left = _WAIT_SECONDS if ends is None else ends - time.monotonic()
            if left <= 0:
                raise QueryTimeout(
                    f"query {self.query_id} has not ended within {limit} s", hint="it goes on: ask again, or cancel()"
                )
            wait_seconds = min(left, _WAIT_SECONDS if observer is None else _OBSERVE_SECONDS)
            try:
                state = self.state(known, wait_seconds)
            except AgentError as down:
                if down.code != DATABASE_DOWN:
                    raise
                time.sleep(wait_seconds)  # the query pauses, and so does this
                continue
            known = state.state
            if state.ended and Outcome.read(self._directory) is None:
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > _WRITTEN_SECONDS:
                    reason = state.error or f"nothing of it is in {self._directory} any more"
                    raise ResourceError(
                        f"query {self.query_id} has {state.state}, and what came of it cannot be read: {reason}",
                        code=RESULT_LOST,
                        hint="run it again",
                    )
                time.sleep(_POLL_SECONDS)
            if observer is not None and state.plan:
                observer(json.loads(state.plan))
        error = outcome.raised()
        if error is not None:
            raise error
        return self._read(outcome)

    def wait(self, observer: Observer | None = None) -> Result:
        """As :meth:`result`, however long it takes; Ctrl-C ends the wait, and says how to go on with it."""
        try:
            return self.result(observer=observer)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f'the query goes on: sabot_sql.attach("{self.query_id}"), which also can cancel() it')
            raise

    def cancel(self) -> None:
        """Stop it; one that has ended stays as it is.

        Raises:
            SabotSQLError: as :attr:`status`.
        """
        self._client.ask(Cancel(self.query_id), Done)

    def forget(self) -> None:
        """Remove it with its rows, once it has ended.

        Raises:
            UsageError: it has not ended.
            SabotSQLError: as :attr:`status`.
        """
        self._client.ask(Forget(self.query_id), Done)

    def __await__(self) -> Generator[Any, None, Result]:
        return asyncio.to_thread(self.result).__await__()

    def _read(self, outcome: Outcome) -> Result:
        query = DurableQuery.read(self._directory)
        file = rows_file(self._directory)
        if not file.exists():
            raise InternalError(f"the rows of query {self.query_id} are gone: {file}")
        config = SessionConfig(
            str(file),
            read_only=True,
            memory_bytes=memory_budget_bytes(None),
            spill_directory=tempfile.gettempdir(),
        )
        store = KeptRows(config, outcome.settings, outcome.rows)
        return Result(
            store,
            outcome.columns,
            store.converter,
            sql=query.sql,
            query_id=self.query_id,
            plan=outcome.plan,
            stats=outcome.stats,
        )
