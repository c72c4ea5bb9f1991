"""A durable query while it runs in this host: a session of its own, in a thread."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sabot_sql.call.running import RunningQuery
from sabot_sql.coordinator.controller import Grant
from sabot_sql.detached.durable_query import DurableQuery
from sabot_sql.detached.kept_result import Outcome, rows_file
from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.durable.admission import Admission
from sabot_sql.durable.journal_pieces import JournalPieces
from sabot_sql.errors import InternalError, QueryCancelled, QueryTimeout, SabotSQLError
from sabot_sql.session import Session, answer_settings, query_kept


class LiveQuery:
    """Runs a query from where its journal ends to its outcome, which is then in the query's directory."""

    def __init__(self, query: DurableQuery, state: StateDirectory, admission: Admission) -> None:
        self.query = query
        self.outcome: Outcome | None = None
        self.grant: Grant | None = None
        self.began_ms: int | None = None
        self._state = state
        self._directory = state.query(query.query_id)
        self._admission = admission
        self._running = RunningQuery(query.query_id, query.timeout_seconds)
        self._plan: Mapping[str, Any] = {}
        self._pieces: JournalPieces | None = None

    @property
    def plan_text(self) -> str:
        """The plan JSON as far as the query has got; no text before it was planned."""
        return json.dumps(self._plan) if self._plan else ""

    @property
    def progress_percent(self) -> float | None:
        """How far it is, by the tasks that have ended; None where that cannot be told."""
        stages = self._plan.get("stages", ())
        tasks = [task for stage in stages for task in stage.get("tasks", ())]
        if not tasks:
            told = stages[0].get("progress_percent") if len(stages) == 1 else None
            return None if told is None else float(told)
        waiting = sum(stage["parallelism"] for stage in stages if not stage.get("tasks"))
        ended = sum(task["state"] == "finished" for task in tasks)
        return float(100 * ended / (len(tasks) + waiting))

    @property
    def agents(self) -> int | None:
        """How many agents take part, once it was planned."""
        agents: int | None = self._plan.get("agents")
        return agents

    @property
    def pieces(self) -> JournalPieces:
        """The journal since it was started."""
        assert self._pieces is not None
        return self._pieces

    def check(self) -> None:
        """See whether it is still wanted.

        Raises:
            QueryCancelled: it is not.
        """
        self._running.check()

    def start(self, grant: Grant, recorded: Sequence[str]) -> None:
        """Begin with the memory of ``grant``, where the ``recorded`` lines end; again is nothing new."""
        if self._pieces is not None:
            return
        self._pieces = JournalPieces(self._state.segments, recorded)
        self.grant, self.began_ms = grant, now_ms()
        work = partial(self._run, grant)
        threading.Thread(target=work, name=f"sabot-durable-{self.query.query_id}", daemon=True).start()

    def cancel(self) -> None:
        """Stop it soon."""
        self._running.cancel()

    def _run(self, grant: Grant) -> None:
        try:
            self.outcome = self._outcome(grant)
        except BaseException as error:  # noqa: BLE001  the thread's last act: whoever waits must be told
            self.outcome = failed(error)
        finally:
            shutil.rmtree(self._state.segments / self.query.query_id, ignore_errors=True)
            self._admission.leave(self.query.query_id)
            self.pieces.end()

    def _outcome(self, grant: Grant) -> Outcome:
        try:
            outcome = self._answered(grant)
        except Exception as error:  # noqa: BLE001  whatever it is, it is what came of the query
            outcome = failed(error)
        try:
            outcome.write(self._directory)
        except SabotSQLError as error:
            return failed(error)
        return outcome

    def _answered(self, grant: Grant) -> Outcome:
        self._running.check()
        config = replace(self.query.config, memory_bytes=grant.memory_bytes)
        with Session(config) as session:
            for statement in self.query.statements:
                session.query(statement, scope={})
            result = query_kept(session, self.query.sql, self.query.params, self.pieces, self._running, self._told)
            with result:
                result.keep(rows_file(self._directory))
                return Outcome(
                    "finished",
                    now_ms(),
                    tuple(zip(result.columns, result.types, strict=True)),
                    len(result),
                    result.plan.json(),
                    result.stats,
                    answer_settings(session),
                )

    def _told(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan


def now_ms() -> int:
    """Milliseconds since 1970, by the wall clock: for people, never to measure with."""
    return int(time.time() * 1e3)


def failed(error: BaseException) -> Outcome:
    """What came of a query that ended with an error."""
    shown = error if isinstance(error, SabotSQLError) else InternalError(f"{type(error).__name__}: {error}")
    if isinstance(shown, QueryCancelled):
        shown = QueryCancelled("the query was cancelled")
    state = {QueryCancelled: "cancelled", QueryTimeout: "timed_out"}.get(type(shown), "failed")
    return Outcome(state, now_ms(), error=shown.to_dict())


def remove_query(state: StateDirectory, query_id: str) -> None:
    """Remove all that a query has left."""
    for directory in (state.query(query_id), state.segments / query_id):
        shutil.rmtree(directory, ignore_errors=True)
