"""A session: one DuckDB with its tables and settings, and the agents that its queries run on."""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sabot_sql.catalog.catalog import BoundQuery, Catalog
from sabot_sql.catalog.connection import Parameters, Statement
from sabot_sql.catalog.frames import Scope, caller_scopes
from sabot_sql.config import SessionConfig
from sabot_sql.errors import BindError, InternalError, QueryCancelled, QueryTimeout, SabotSQLError, SessionClosed
from sabot_sql.gate import Gate
from sabot_sql.plan_view import Plan
from sabot_sql.pools import Pools
from sabot_sql.result import Result
from sabot_sql.result_store import ResultStore
from sabot_sql.running import RunningQuery
from sabot_sql.scratch import Scratch
from sabot_sql.single_plan import single_document

if TYPE_CHECKING:
    from sabot_planner import QueryPlan

Agents = int | Literal["auto"]
Observer = Callable[[Mapping[str, Any]], None]

_T = TypeVar("_T")

_STOP_SECONDS = 5.0
_ONE_AGENT = "one agent: the statement runs on DuckDB as it was written"


class Session:
    """Runs SQL on agents, or on its own DuckDB where one agent is enough; made by :func:`sabot_sql.connect`.

    Tables, views, macros and settings live as long as the session. Agents start with the first query that needs them.
    All methods may be called from any thread; statements that are not distributed run one at a time.
    """

    def __init__(self, config: SessionConfig) -> None:
        self.config = config
        self._scratch = Scratch(config.spill_directory)
        self._catalog = Catalog(config, self._scratch)
        self._pools = Pools(self._catalog)
        self._gate = Gate()
        self._running: dict[str, RunningQuery] = {}
        self._lock = threading.Lock()
        # Also when it is forgotten, and at the end of the process, no agent and no file stays behind.
        self._release = weakref.finalize(self, _release, self._pools, self._catalog, self._scratch)

    @property
    def agents(self) -> Agents:
        """How many agents a query runs on unless it says otherwise."""
        return self.config.agents

    @property
    def isolation(self) -> str:
        """``thread`` or ``process``."""
        return self.config.isolation.value

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
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
    ) -> Result:
        """Run ``sql`` and return the rows of its last statement.

        ``params`` are bound by DuckDB: a sequence for ``?`` and ``$1``, a mapping for ``$name``. ``timeout`` is in
        seconds. ``max_rows`` cuts the result. Names that are no tables are looked up in ``scope``, or where the call
        stands: frames and Arrow objects are tables. ``observer`` gets the plan JSON of a distributed query while it
        runs, at most five times a second, in another thread.

        Raises:
            QueryError: the statement is wrong, or failed on its values.
            SourceError: a file is missing or unreadable.
            ResourceError: memory or disk ran out.
            AgentError: agents failed more often than a task is tried.
            QueryCancelled, QueryTimeout: nothing of the query is left running.
            SessionClosed: the session was closed.
        """
        config = self.config.with_agents(agents, isolation)
        scopes = (scope,) if scope is not None else caller_scopes()
        running = RunningQuery(f"q-{uuid.uuid4().hex[:16]}", timeout)

        def run() -> Result:
            result = None
            for statement in self._statements(sql, params):
                running.check()
                result = self._run(statement, config, scopes, running, max_rows, observer, sql)
            return result or self._empty_result(running, sql, "nothing to run")

        return self._guarded(running, run)

    execute = query
    sql = query

    def explain(
        self,
        sql: str,
        params: Parameters = None,
        *,
        agents: Agents | None = None,
        isolation: Literal["thread", "process"] | None = None,
        scope: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The plan of the one query in ``sql``, which is not run.

        Raises:
            QueryError: the statement is wrong, or is not a single query.
        """
        config = self.config.with_agents(agents, isolation)
        scopes = (scope,) if scope is not None else caller_scopes()
        running = RunningQuery("planned", None)

        def run() -> Plan:
            statements = self._statements(sql, params)
            if len(statements) != 1 or not statements[0].is_query:
                raise BindError("only a single query can be explained", code="NOT_A_QUERY")
            planned = self._plan(statements[0], config, scopes)
            if isinstance(planned, str):
                self._check(statements[0], scopes)
                return Plan(single_document(sql, planned, config, state="planned"))
            from sabot_sql.coordinator.snapshot import planned_snapshot

            return Plan(planned_snapshot(planned[0], sql=sql, isolation=config.isolation.value))

        return self._guarded(running, run)

    def cancel(self, query_id: str | None = None) -> None:
        """Stop the query of that id, or all that run; returns at once."""
        with self._lock:
            chosen = [q for q in self._running.values() if query_id is None or q.query_id == query_id]
        for query in chosen:
            query.cancel()

    # ------------------------------------------------------------------------------------------------------ tables

    def register(self, name: str, table: object) -> None:
        """Make a pandas or polars frame, an Arrow object or anything with an Arrow stream a table named ``name``.

        A stream that can be read only once is read now; the others are read by each query, without a copy.

        Raises:
            BindError: ``table`` is none of these.
        """
        self._catalog.register(name, table)

    def unregister(self, name: str) -> None:
        """Take away a table that :meth:`register` made.

        Raises:
            BindError: there is none of that name.
        """
        self._catalog.unregister(name)

    # -------------------------------------------------------------------------------------------------------- life

    def close(self) -> None:
        """Stop everything that runs, end the agents and remove all temporary files. May be called again."""
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

    def _statements(self, sql: str, params: Parameters) -> list[Statement]:
        return self._catalog.split(sql, params)

    def _run(
        self,
        statement: Statement,
        config: SessionConfig,
        scopes: Sequence[Scope],
        running: RunningQuery,
        max_rows: int | None,
        observer: Observer | None,
        sql: str,
    ) -> Result:
        if not statement.is_query:
            with self._gate.writing(running.check):
                return self._run_single(statement, "not a query", config, scopes, running, max_rows, sql)
        if config.agent_count == 1:
            return self._run_single(statement, _ONE_AGENT, config, scopes, running, max_rows, sql)
        with self._gate.reading(running.check):
            planned = self._plan(statement, config, scopes)
            if isinstance(planned, str):
                return self._run_single(statement, planned, config, scopes, running, max_rows, sql)
            plan, bound = planned
            return self._run_distributed(statement, plan, bound, config, running, max_rows, observer, sql)

    def _plan(
        self, statement: Statement, config: SessionConfig, scopes: Sequence[Scope]
    ) -> tuple[QueryPlan, BoundQuery] | str:
        """The distributed plan of a query, or why it is not distributed."""
        if config.agent_count == 1:
            return _ONE_AGENT
        if self._catalog.connection.in_transaction:
            return "inside a transaction, whose changes other connections do not see"
        from sabot_planner import Mode, plan_query  # and sqlglot with it, which one agent does not need

        with self._catalog.bind(statement, scopes, config) as bound:
            if isinstance(bound, str):
                return bound
            plan = plan_query(bound.exported_sql, bound.sources)
        return plan.reason if plan.mode is Mode.SINGLE else (plan, bound)

    def _check(self, statement: Statement, scopes: Sequence[Scope]) -> None:
        with self._catalog.checked(statement, scopes):
            pass

    def _run_single(
        self,
        statement: Statement,
        reason: str,
        config: SessionConfig,
        scopes: Sequence[Scope],
        running: RunningQuery,
        max_rows: int | None,
        sql: str,
    ) -> Result:
        began = time.monotonic()
        with running.interrupting(self._catalog.connection), self._catalog.run(statement, scopes) as rows:
            if rows.reader is None:
                store = ResultStore.empty()
            else:
                store = ResultStore.drain(rows.reader, self._scratch, config.result_bytes, max_rows=max_rows)
        elapsed_ms = (time.monotonic() - began) * 1e3
        document = single_document(
            sql, reason, config, state="finished", query_id=running.query_id, elapsed_ms=elapsed_ms, rows=store.rows
        )
        return self._result(store, rows.columns, sql, document, {}, running)

    def _run_distributed(
        self,
        statement: Statement,
        plan: QueryPlan,
        bound: BoundQuery,
        config: SessionConfig,
        running: RunningQuery,
        max_rows: int | None,
        observer: Observer | None,
        sql: str,
    ) -> Result:
        import pyarrow as pa

        from sabot_sql.coordinator import run_query

        with self._pools.using(config, running.check) as pool:
            try:
                finished = run_query(
                    plan,
                    pool,
                    bound.sources,
                    query_id=running.query_id,
                    sql=sql,
                    cancel=running,
                    deadline_ms=running.left_ms(),
                    observer=observer,
                )
            except SabotSQLError as error:
                raise self._catalog.explain_failure(error, statement) from None
            try:
                reader = pa.RecordBatchReader.from_stream(finished.stream)
                store = ResultStore.drain(reader, self._scratch, config.result_bytes, max_rows=max_rows, borrowed=True)
                del reader
            finally:
                finished.release()
        if len(plan.output) != len(finished.columns):
            raise InternalError(f"planned {len(plan.output)} columns, got {len(finished.columns)}")
        columns = [(wanted.name, got.type) for wanted, got in zip(plan.output, finished.columns, strict=True)]
        return self._result(store, columns, sql, finished.plan, finished.stats, running)

    def _result(
        self,
        store: ResultStore,
        columns: Sequence[tuple[str, str]],
        sql: str,
        document: Mapping[str, Any],
        stats: Mapping[str, Any],
        running: RunningQuery,
    ) -> Result:
        known = {
            "mode": document["mode"],
            "agents": document["agents"],
            "rows": store.rows,
            "bytes": store.size_bytes,
            "on_disk": store.on_disk,
            "truncated_at": store.truncated_at,
            "elapsed_ms": running.elapsed_ms(),
        }
        return Result(
            store,
            columns,
            self._catalog.converter(),
            sql=sql,
            query_id=running.query_id,
            plan=document,
            stats={**stats, **known},
        )

    def _empty_result(self, running: RunningQuery, sql: str, reason: str) -> Result:
        document = single_document(sql, reason, self.config, state="finished", query_id=running.query_id)
        return self._result(ResultStore.empty(), (), sql, document, {}, running)

    def _guarded(self, running: RunningQuery, run: Callable[[], _T]) -> _T:
        """Run in a thread of its own, so that Ctrl-C and deadlines reach this one at once."""
        if self.closed:
            raise SessionClosed("the session is closed", hint="make a new one with sabot_sql.connect()")
        with self._lock:
            self._running[running.query_id] = running
        try:
            return running.run(run)
        except QueryCancelled:
            if running.timed_out:
                raise QueryTimeout(f"the query ran past its limit of {running.timeout_seconds} s") from None
            raise
        finally:
            with self._lock:
                self._running.pop(running.query_id, None)


def _release(pools: Pools, catalog: Catalog, scratch: Scratch) -> None:
    pools.close()
    catalog.close()
    scratch.close()
