"""A session: one DuckDB with its tables and settings, and the agents that its queries run on."""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sabot_planner.job.plan import NotDistributed
from sabot_sql import arguments
from sabot_sql.call.clock import Phase
from sabot_sql.call.memory_ladder import ClimbedRungs, Rung, in_small_parts, with_all_memory
from sabot_sql.call.observation import Observation, Observer, Progress
from sabot_sql.call.pools import Pools
from sabot_sql.call.query_plans import QueryPlans
from sabot_sql.call.read_write_lock import ReadWriteLock
from sabot_sql.call.request import PlannedQuery, Request, WriteFailed
from sabot_sql.call.running import RunningQuery
from sabot_sql.call.session_status import SessionStatus
from sabot_sql.catalog.catalog import Catalog
from sabot_sql.catalog.connection import ColumnTypes, Parameters, Statement
from sabot_sql.catalog.frames import Scope, caller_scopes
from sabot_sql.catalog.table_names import TABLES_SQL, named_tables
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.duck.errors import unforeseen
from sabot_sql.duck.streams import is_too_wide
from sabot_sql.errors import (
    FILE_CHANGED,
    FRAGMENT_FAILED,
    OUT_OF_MEMORY,
    RESULT_LOST,
    AgentError,
    ConfigError,
    InternalError,
    QueryCancelled,
    QueryError,
    QueryTimeout,
    ResourceError,
    SabotSQLError,
    SessionClosed,
    SourceError,
    UsageError,
    reason_in_short,
)
from sabot_sql.forks import forked, is_own, never_freed_in_children
from sabot_sql.plan_document import PlanJson, timed
from sabot_sql.plan_view import Plan
from sabot_sql.result import Result
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import HeldStore, ResultStore
from sabot_sql.scratch import Scratch
from sabot_sql.single_plan import not_a_query, single_document
from sabot_sql.stoppable import within
from sabot_sql.top.publisher import Publisher

if TYPE_CHECKING:
    from sabot_sql.catalog.writes import Write
    from sabot_sql.coordinator.keeper import Keeper
    from sabot_sql.detached.query_handle import QueryHandle
    from sabot_sql.jobs.job_call import JobCall
    from sabot_sql.jobs.job_graph import JobGraph

Agents = int | Literal["auto"]

_T = TypeVar("_T")

_STOP_SECONDS = 5.0
_MOST_PRIORITY = (1 << 31) - 2
"""What the durable host's queue can hold."""
_ONE_AGENT = NotDistributed("one agent: the statement runs on DuckDB as it was written")


class Session:
    """Runs SQL on agents, or on its own DuckDB where one agent is enough; made by :func:`sabot_sql.connect`.

    Tables, views, macros and settings live as long as the session. Agents start with the first query that needs them.
    All methods may be called from any thread; statements that are not distributed run one at a time. A forked child
    cannot use it, and makes one of its own.
    """

    def __init__(self, config: SessionConfig) -> None:
        self.config = config
        self._scratch = Scratch(config.spill_directory)
        self._room = ResultRoom(self._scratch)
        self._catalog = Catalog(config, self._scratch)
        self._pools = Pools(self._catalog)
        self._rungs = ClimbedRungs()
        self._read_write_lock = ReadWriteLock()
        self._running: dict[str, RunningQuery] = {}
        self._plans = QueryPlans()
        self._lock = threading.Lock()
        published = Publisher(SessionStatus(uuid.uuid4().hex[:8], config, self._plans, self._pools).to_json)
        # Also when it is forgotten, and at the end of the process, no agent and no file stays behind.
        self._owner = os.getpid()
        self._release = weakref.finalize(
            self, _release, self._owner, self._pools, self._catalog, self._scratch, published
        )
        never_freed_in_children(self)

    @property
    def agents(self) -> Agents:
        """How many agents a query runs on unless it says otherwise."""
        return "auto" if self.config.chooses_agents else self.config.agents

    @property
    def isolation(self) -> str:
        """``thread`` or ``process``."""
        return self.config.isolation.value

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is the copy of another process's that a fork has."""
        return self._catalog.connection.closed

    @property
    def in_transaction(self) -> bool:
        """Whether the SQL began a transaction that has not ended."""
        return self._catalog.connection.in_transaction

    def running(self) -> tuple[str, ...]:
        """Ids of the queries that run now."""
        with self._lock:
            return tuple(self._running)

    # ----------------------------------------------------------------------------------------------------- queries

    def query(
        self,
        sql: str,
        params: Parameters = None,
        *,
        agents: Agents | None = None,
        isolation: Literal["thread", "process"] | None = None,
        timeout: float | None = None,
        max_rows: int | None = None,
        scope: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
        durable: bool = False,
    ) -> Result:
        """Run ``sql`` and return the rows of its last statement.

        ``params`` are bound by DuckDB: a sequence for ``?`` and ``$1``, a mapping for ``$name``. ``timeout`` is in
        seconds. ``max_rows`` cuts the result. Names that are no tables are looked up in ``scope``, or where the call
        stands: frames and Arrow objects are tables. ``observer`` gets the plan JSON while the query is planned, starts
        agents and runs, about five times a second, in other threads, but never in two at once.

        Raises:
            QueryError: the statement is wrong, or failed on its values.
            SourceError: a file is missing or unreadable.
            ResourceError: memory or disk ran out.
            AgentError: agents failed more often than a task is tried.
            QueryCancelled, QueryTimeout: within a second; nothing of the query is left running, but for foreign code
                that does not return, such as a stream of the user's.
            SessionClosed: the session was closed.
        """
        sql, params = arguments.text("sql", sql), arguments.parameters(params)
        max_rows = None if max_rows is None else arguments.whole("max_rows", max_rows)
        scopes = caller_scopes() if scope is None else (arguments.mapping("scope", scope),)
        if arguments.flag("durable", durable):
            if max_rows is not None:
                raise ConfigError("max_rows: not with durable=True, which keeps all rows", hint="write LIMIT")
            handle = self._submit(sql, params, self.config.with_agents(agents, isolation), scopes, timeout, 0)
            return handle.wait(None if observer is None else _observing(observer))
        running = RunningQuery(f"q-{uuid.uuid4().hex[:16]}", timeout)
        config = self.config.with_agents(agents, isolation)
        request = self._request(sql, config, scopes, running, max_rows)
        return self._watched(request, observer, lambda: self._all_statements(sql, params, request))

    execute = query  # as connections of Python are asked

    def submit(
        self,
        sql: str,
        params: Parameters = None,
        *,
        agents: Agents | None = None,
        isolation: Literal["thread", "process"] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        scope: Mapping[str, Any] | None = None,
    ) -> QueryHandle:
        """Hand a query to the durable host, where it outlives this session and this process; does not wait for it.

        The options are those of :meth:`query`. What the query reads of this session's own tables, and frames that it
        names, are copied now; files are read where they are. Of the queries that wait those with the lowest
        ``priority``, from 0, come first.

        Raises:
            UsageError: the SQL is not one query that only reads, or what it reads cannot be copied.
            QueryError: the statement is wrong.
            AgentError: the durable host cannot be started.
            ResourceError: there is no room for its state.
        """
        sql, params = arguments.text("sql", sql), arguments.parameters(params)
        priority = arguments.whole("priority", priority, most=_MOST_PRIORITY)
        scopes = caller_scopes() if scope is None else (arguments.mapping("scope", scope),)
        return self._submit(sql, params, self.config.with_agents(agents, isolation), scopes, timeout, priority)

    def _submit(
        self,
        sql: str,
        params: Parameters,
        config: SessionConfig,
        scopes: Sequence[Scope],
        timeout: float | None,
        priority: int,
    ) -> QueryHandle:
        limit = None if timeout is None else arguments.seconds("timeout", timeout)
        running = RunningQuery(f"q-{uuid.uuid4().hex[:16]}", None)

        def run() -> QueryHandle:
            from sabot_sql.detached.submission import Submission, submit  # which interactive queries do not need

            statements = self._catalog.split(sql, params)
            if len(statements) != 1 or not statements[0].reads:
                raise UsageError(
                    "only a single query that writes nothing can be handed to the durable host",
                    code="NOT_DURABLE",
                    hint="run the statements before it with query(), and what writes its rows after it has ended",
                )
            with self._read_write_lock.reading(running.check), running.asking(self._catalog.connection):
                query = Submission(running.query_id, sql, params, statements[0], config, scopes, limit, priority)
                return submit(query, self._catalog)

        return self._guarded(running, run)

    def run_job(
        self,
        job: JobGraph,
        *,
        agents: Agents | None = None,
        isolation: Literal["thread", "process"] | None = None,
        timeout: float | None = None,
        scope: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> Result:
        """Run a job graph; gives the rows of its sink, or what its sinks wrote where each has a target.

        The options are those of :meth:`query`; ``scope`` is where the SELECTs of sources look names up.

        Raises:
            JobError: the job cannot be run as it is; nothing was run.
            OperatorError: a Python function raised, or changed its columns.
            SabotSQLError: as for :meth:`query`. No sink has written anything.
        """
        scopes = caller_scopes() if scope is None else (arguments.mapping("scope", scope),)
        running = RunningQuery(f"j-{uuid.uuid4().hex[:16]}", timeout)
        config = self.config.with_agents(agents, isolation)
        request = self._request(f"job {getattr(job, 'job_id', '')}", config, scopes, running, None)
        return self._watched(request, observer, lambda: self._job_call(request).answer(job))

    def explain(
        self,
        sql: str | JobGraph,
        params: Parameters = None,
        *,
        agents: Agents | None = None,
        isolation: Literal["thread", "process"] | None = None,
        scope: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The plan of the one query in ``sql``, or of a job graph, which is not run.

        Raises:
            QueryError: the statement is wrong.
            UsageError: ``sql`` is not a single query.
            JobError: the job cannot be run as it is.
        """
        scopes = caller_scopes() if scope is None else (arguments.mapping("scope", scope),)
        config = self.config.with_agents(agents, isolation)
        running = RunningQuery("planned", None)
        if not isinstance(sql, str) and hasattr(sql, "to_execution_graph"):
            job, request = sql, self._request("", config, scopes, running, None)
            return self._guarded(running, lambda: Plan(self._job_call(request).explain(job)))
        sql, params = arguments.text("sql", sql), arguments.parameters(params)

        def run() -> Plan:
            statements = self._catalog.split(sql, params)
            if len(statements) != 1 or not statements[0].can_be_explained:
                raise UsageError("only a single query can be explained", code="NOT_A_QUERY")
            with self._catalog.listed(statements[0], scopes, running.interrupting) as query:
                planned = self._plan(query, config, scopes, running)
            if isinstance(planned, NotDistributed):
                with running.asking(self._catalog.connection), self._catalog.checked(statements[0], scopes):
                    operators = self._catalog.operators(statements[0])
                return Plan(single_document(sql, planned.reason, config, state="planned", operators=operators))
            from sabot_sql.coordinator.snapshot import planned_snapshot

            return Plan(planned_snapshot(planned.plan, sql=sql, isolation=config.isolation.value))

        return self._guarded(running, run)

    def plan(self, query_id: str) -> Plan:
        """The plan of a query of this session: as far as it has got, or as it ended, for the last 32 that did.

        An observer and a result know the id, and :meth:`running` has those of the queries that run.

        Raises:
            UsageError: no such query is known.
        """
        with self._open():
            return self._plans.plan(arguments.text("query_id", query_id))

    def cancel(self, query_id: str | None = None) -> None:
        """Stop the query of that id, or all that run; returns at once."""
        if query_id is not None:
            arguments.text("query_id", query_id)
        with self._lock:
            chosen = [q for q in self._running.values() if query_id is None or q.query_id == query_id]
        for query in chosen:
            query.cancel()

    # ------------------------------------------------------------------------------------------------------ tables

    def register(self, name: str, table: object) -> None:
        """Make a pandas or polars frame, an Arrow object or anything with an Arrow stream a table named ``name``.

        A stream that can be read only once is read now; the others are read by each query, without a copy.

        Raises:
            UsageError: ``table`` is none of these.
            SourceError: it cannot be read.
        """
        arguments.name("name", name)
        running = RunningQuery("registered", None)
        self._guarded(running, lambda: self._catalog.register(name, table))

    def unregister(self, name: str) -> None:
        """Take away a table that :meth:`register` made.

        Raises:
            UsageError: there is none of that name.
        """
        with self._open():
            self._catalog.unregister(arguments.text("name", name))

    def tables(self) -> tuple[str, ...]:
        """The names of all tables and views, registered ones included, as they are written after FROM.

        Those outside the current schema have its name, or also that of the database, before theirs.
        """
        return named_tables(self.query(TABLES_SQL, agents=1, scope={}).fetchall())

    # -------------------------------------------------------------------------------------------------------- life

    def close(self) -> None:
        """Stop everything that runs, end the agents and remove all temporary files. May be called again.

        It returns within seconds: a statement that does not stop, since foreign code in it does not return, is left to
        end by itself, and its database is closed then.
        """
        self.cancel()
        self._release()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"agents={self.agents!r}, isolation={self.isolation!r}"
        return f"<Session {self.config.database}: {state}>"

    # ---------------------------------------------------------------------------------------------------- internal

    def _request(
        self, sql: str, config: SessionConfig, scopes: Sequence[Scope], running: RunningQuery, max_rows: int | None
    ) -> Request:
        progress = Progress(running.clock, lambda: self._waiting(request, "planning"))
        request = Request(sql, config, scopes, running, max_rows, progress)  # which the progress tells of
        return request

    def _watched(self, request: Request, observer: Observer | None, run: Callable[[], Result]) -> Result:
        """The result of ``run``, whose plan can be asked for, and is told to ``observer``, meanwhile."""
        query_id, progress = request.running.query_id, request.progress
        watching = nullcontext() if observer is None else Observation(_observing(observer), progress)
        with self._plans.following(query_id, progress):
            with watching:
                result = self._guarded(request.running, run)
            self._plans.keep(query_id, result.plan)
        return result

    def _all_statements(self, sql: str, params: Parameters, request: Request) -> Result:
        result = None
        for statement in self._catalog.split(sql, params):
            request.running.check()
            request.running.clock.enter(Phase.PLANNING)
            result = self._run(statement, request)
        return result or self._single_result(request, "nothing to run", ResultStore.empty(), (), None)

    def _job_call(self, request: Request) -> JobCall:
        from sabot_sql.jobs.job_call import JobCall  # native code and sqlglot, which one agent does not need

        def run(statement: Statement, scopes: Sequence[Scope]) -> Result:
            return self._run(statement, replace(request, scopes=scopes))

        def result(
            store: ResultStore, columns: ColumnTypes, document: Mapping[str, Any], stats: Mapping[str, Any]
        ) -> Result:
            return self._result(request, store, columns, document, stats)

        return JobCall(request, self._catalog, self._pools, self._room, self._read_write_lock, run, result)

    def _run(self, statement: Statement, request: Request) -> Result:
        check = request.running.check
        if not statement.reads:
            with self._read_write_lock.writing(check):
                self._rungs.forget()
                return self._run_writing(statement, request)
        if request.config.runs_alone:
            return self._run_single(statement, _ONE_AGENT.reason, request)
        running = request.running
        with (
            self._read_write_lock.reading(check),
            self._catalog.listed(statement, request.scopes, running.interrupting) as query,
        ):
            planned = self._plan(query, request.config, request.scopes, running)
            known = Rung.AGENTS
            if isinstance(planned, PlannedQuery):
                known = self._rungs.of(planned.bound.exported_sql, request.config)
            if known > Rung.AGENTS and isinstance(planned, PlannedQuery):
                return self._climbed(statement, query, planned, request, known, None)
            try:
                result = self._try(query, planned, request)
            except ResourceError as error:
                if error.code != OUT_OF_MEMORY or isinstance(planned, NotDistributed):
                    raise
                return self._climbed(statement, query, planned, request, Rung.ALONE, error)
            try:
                return self._or_single(statement, result, request)
            except ResourceError as error:
                return self._again_alone(statement, request, error, self._catalog.may_run_again)

    def _run_writing(self, statement: Statement, request: Request) -> Result:
        try:
            result = self._write(statement, request)
        except WriteFailed as failed:
            raise failed.error from None
        except ResourceError as error:
            # Agents left nothing behind, so the statement still runs once.
            found = self._alone(statement, request) if error.code == OUT_OF_MEMORY else None
            if found is None:
                raise
            return found
        try:
            return self._or_single(statement, result, request)
        except ResourceError as error:
            return self._again_alone(statement, request, error, self._catalog.was_undone)

    def _climbed(
        self,
        statement: Statement,
        query: Statement,
        planned: PlannedQuery,
        request: Request,
        first: Rung,
        error: ResourceError | None,
    ) -> Result:
        """The result of a query with less memory than agents take, from the rung ``first`` on.

        ``error`` is what agents failed with, None where they were not asked, since an earlier run failed.
        """
        exported_sql, agents = planned.bound.exported_sql, f"{request.config.agent_count} agents"
        earlier = "" if error else ", when this ran before"
        if first is Rung.ALONE:
            found = self._alone(statement, request, agents + earlier)
            if found is not None:
                self._rungs.note(exported_sql, request.config, Rung.ALONE)
                return found
        found = self._in_small_parts(query, request, error, earlier)
        self._rungs.note(exported_sql, request.config, Rung.PARTS)
        return found

    def _again_alone(
        self, statement: Statement, request: Request, error: ResourceError, left_nothing: Callable[[Statement], bool]
    ) -> Result:
        """The result of what ran out of the session's share of the memory, with that of the agents, who take no part.

        Raises:
            ResourceError: ``error``, where it is another one, where the statement may not run again, or is too large.
        """
        found = None
        if error.code == OUT_OF_MEMORY and request.config.agent_count > 1:
            with request.running.asking(self._catalog.connection):
                again = left_nothing(statement)
            found = self._alone(statement, request, "the session's share of it") if again else None
        if found is None:
            raise error
        return found

    def _alone(self, statement: Statement, request: Request, too_little: str = "") -> Result | None:
        """The result of the user's own statement with the memory of all agents; None where that is too little."""
        alone = replace(request, config=with_all_memory(request.config))
        too_little = too_little or f"{request.config.agent_count} agents"
        reason = f"memory ran out on {too_little}: DuckDB alone has all of it"
        try:
            with self._pools.using(alone.config, request.running.check), self._catalog.having_all_memory(alone.config):
                return self._run_single(statement, reason, alone, sparing=True)
        except ResourceError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            return None

    def _in_small_parts(self, query: Statement, request: Request, error: ResourceError | None, earlier: str) -> Result:
        """The result of a query that DuckDB alone has too little memory for; ``error`` where it is not distributed."""
        from sabot_sql.call.distributed import run_on_agents  # native code, which one agent does not need

        planned = self._plan(query, in_small_parts(request.config), request.scopes, request.running)
        if isinstance(planned, NotDistributed):
            raise error or ResourceError(planned.reason, code=OUT_OF_MEMORY)
        said = f"memory ran out on several agents, and for DuckDB alone{earlier}: small parts, one after the other"
        plan = replace(planned.plan, reason=f"{said}; {planned.plan.reason}")
        in_parts = PlannedQuery(plan, planned.bound)
        alone = replace(request, config=with_all_memory(request.config))
        answer = run_on_agents(query, in_parts, alone, None, self._catalog, self._pools, self._room)
        return self._result(alone, answer.store, answer.columns, answer.plan, answer.stats)

    def _or_single(self, statement: Statement, result: Result | NotDistributed, request: Request) -> Result:
        """The last rung: the user's own statement on DuckDB, which fails as well where the fault is the user's.

        Only what reads, and what has not begun to write, comes down to it.
        """
        if isinstance(result, NotDistributed):
            return self._run_single(statement, result.reason, request)
        return result

    def _try(
        self,
        query: Statement,
        planned: PlannedQuery | NotDistributed,
        request: Request,
        write: Write | None = None,
        *,
        lost_before: bool = False,
    ) -> Result | NotDistributed:
        """The result from agents, or why there is none.

        A query whose rows were lost while they were handed over runs once more, on the agents that are there then.
        """
        if isinstance(planned, NotDistributed):
            return planned
        from sabot_sql.call.distributed import run_on_agents  # native code, which one agent does not need

        try:
            answer = run_on_agents(query, planned, request, write, self._catalog, self._pools, self._room)
        except ResourceError as error:
            spread = request.config.on_all_agents()
            if error.code != OUT_OF_MEMORY or not request.config.chooses_agents or spread.agent_count == 1:
                raise
            on_all = replace(request, config=spread)  # one agent had too little memory for it, perhaps
            return self._try(query, self._plan(query, spread, request.scopes, request.running), on_all, write)
        except (QueryError, InternalError, AgentError, SourceError) as error:
            if isinstance(error, SourceError):
                if error.code != FILE_CHANGED:
                    raise
                return NotDistributed(error.message)
            if isinstance(error, AgentError) and error.code == RESULT_LOST and write is None and not lost_before:
                again = self._plan(query, request.config, request.scopes, request.running)
                return self._try(query, again, request, lost_before=True)
            if isinstance(error, AgentError) and error.code != FRAGMENT_FAILED:
                raise  # agents died: the same rows would be too much for this process too
            return NotDistributed(f"it failed on several agents: {reason_in_short(error)}")
        return self._result(request, answer.store, answer.columns, answer.plan, answer.stats)

    def _write(self, statement: Statement, request: Request) -> Result | NotDistributed:
        """The result of a statement that writes a query's rows; or why that query is not distributed."""
        if request.config.runs_alone:
            return not_a_query(statement.kind)
        with request.running.asking(self._catalog.connection):
            write = self._catalog.writes.prepare(statement, request.scopes)
        if write is None:
            return not_a_query(statement.kind)
        planned = self._plan(write.query, request.config, request.scopes, request.running)
        return self._try(write.query, planned, request, write)

    def _plan(
        self, statement: Statement, config: SessionConfig, scopes: Sequence[Scope], running: RunningQuery
    ) -> PlannedQuery | NotDistributed:
        """The distributed plan of a query, or why it is not distributed."""
        if config.runs_alone:
            return _ONE_AGENT
        if statement.is_open_pivot:
            return not_a_query(statement.kind)
        if self._catalog.connection.in_transaction:
            return NotDistributed("inside a transaction, whose changes other connections do not see")
        from sabot_planner import PlannerError, plan_query  # and sqlglot, which one agent does not need

        grants = None
        if config.isolation is Isolation.REMOTE:
            # Where the agents are says which files they can read.
            running.clock.enter(Phase.STARTING)
            with self._pools.using(config, running.check) as pool:
                grants = pool.grants
        running.clock.enter(Phase.PLANNING)
        bound = self._catalog.bind(statement, scopes, config, running, grants)
        if isinstance(bound, NotDistributed):
            return bound
        try:
            one_task = bound.sources.why_one_task if config.chooses_agents and grants else None
            plan = plan_query(bound.exported_sql, bound.sources, one_task)
        except PlannerError as error:
            return NotDistributed(f"it could not be planned: {error}")
        return plan if isinstance(plan, NotDistributed) else PlannedQuery(plan, bound)

    def _run_single(self, statement: Statement, reason: str, request: Request, *, sparing: bool = False) -> Result:
        clock = request.running.clock
        connection = self._catalog.connection

        def run(batch_rows: int | None) -> Result:
            with (
                request.running.interrupting(connection),
                clock.spending(Phase.RUNNING),
                request.progress.telling(lambda: self._waiting(request, "running", reason)),
                self._catalog.run(statement, request.scopes, sparing=sparing, batch_rows=batch_rows) as rows,
            ):
                store = request.take(rows.stream, self._room)
            return self._single_result(request, reason, store, rows.columns, clock.times_ms()[Phase.RUNNING])

        try:
            return run(None)
        except QueryError as error:
            if not is_too_wide(error.message) or not self._catalog.may_repeat(statement):
                raise
            return run(1)

    def _waiting(self, request: Request, state: str, reason: str = "") -> PlanJson:
        """What is told while the session's own DuckDB is at work."""
        return single_document(
            request.sql,
            reason,
            request.config,
            state=state,
            query_id=request.running.query_id,
            progress_percent=self._catalog.connection.progress_percent() if state == "running" else None,
        )

    def _single_result(
        self,
        request: Request,
        reason: str,
        store: ResultStore | HeldStore,
        columns: ColumnTypes,
        elapsed_ms: float | None,
    ) -> Result:
        document = single_document(
            request.sql,
            reason,
            request.config,
            state="finished",
            query_id=request.running.query_id,
            elapsed_ms=elapsed_ms,
            rows=store.rows,
        )
        return self._result(request, store, columns, document, {})

    def _result(
        self,
        request: Request,
        store: ResultStore | HeldStore,
        columns: Sequence[tuple[str, str]],
        document: Mapping[str, Any],
        stats: Mapping[str, Any],
    ) -> Result:
        document = timed(document, request.running.clock.times_ms())
        known = {
            "mode": document["mode"],
            "agents": document["agents"],
            "rows": store.rows,
            "bytes": store.size_bytes,
            "on_disk": store.on_disk,
            "truncated_at": store.truncated_at,
            "elapsed_ms": document["elapsed_ms"],
        }
        return Result(
            store,
            columns,
            self._catalog.converter(),
            sql=request.sql,
            query_id=request.running.query_id,
            plan=document,
            stats={**stats, **known},
        )

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Whatever fails inside leaves as an error of this package."""
        if not is_own(self._owner):
            raise forked(self._owner)
        if self.closed:
            raise SessionClosed("the session is closed", hint="make a new one with sabot_sql.connect()")
        try:
            yield
        except SabotSQLError:
            raise
        except Exception as error:
            raise unforeseen(error) from error

    def _guarded(self, running: RunningQuery, run: Callable[[], _T]) -> _T:
        """Run in a thread of its own, so that Ctrl-C and deadlines reach this one at once."""
        with self._open():
            with self._lock:
                self._running[running.query_id] = running
            try:
                return running.run(run)
            except QueryCancelled:
                if running.too_late is not None:
                    raise QueryTimeout(running.too_late) from None
                raise
            finally:
                with self._lock:
                    self._running.pop(running.query_id, None)


def query_kept(
    session: Session,
    sql: str,
    params: Parameters,
    keeper: Keeper,
    running: RunningQuery,
    observer: Observer | None = None,
) -> Result:
    """As :meth:`Session.query`, and ``keeper`` has the journal, so that another process can go on with it.

    Raises:
        SabotSQLError: as for :meth:`Session.query`.
    """
    request = replace(session._request(sql, session.config, ({},), running, None), keeper=keeper)
    return session._watched(request, observer, lambda: session._all_statements(sql, params, request))


def answer_settings(session: Session) -> Mapping[str, str]:
    """The settings of a session that change answers, where they are not DuckDB's defaults."""
    return session._catalog.connection.session_settings()


def _observing(observer: Observer) -> Observer:
    """``observer``, whose own errors end the query as an error of ours."""
    if not callable(observer):
        raise ConfigError(f"observer={arguments.shown(observer)} cannot be called")

    def observe(plan: Mapping[str, Any]) -> None:
        try:
            observer(plan)
        except Exception as error:
            reason = f"the observer raised {type(error).__name__}: {error}"
            raise UsageError(reason, code="OBSERVER_FAILED") from error

    return observe


def _release(owner: int, pools: Pools, catalog: Catalog, scratch: Scratch, published: Publisher) -> None:
    if not is_own(owner):
        return  # a fork of that process has none of its agents and files
    published.close()
    within(_STOP_SECONDS, pools.close, "close-agents")
    catalog.close()
    scratch.close()
