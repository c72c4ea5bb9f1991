"""Runs one query on a pool of agents: does what the state machine commands and tells it what happened."""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

import sabot_native
from sabot_planner.fragments.input_reads import with_counted_reads
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Column
from sabot_planner.job.plan import Mode, QueryPlan
from sabot_sql.agent.pool import SESSION_AGENT, AgentPool
from sabot_sql.coordinator.chosen_agents import MayJoin, joining
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.exchange_rules import RESULT_EDGE, stored_columns
from sabot_sql.coordinator.execution import Execution
from sabot_sql.coordinator.fragments import task_spec
from sabot_sql.coordinator.journal import JournalEntry, QueryOpening
from sabot_sql.coordinator.keeper import Keeper, resumed
from sabot_sql.coordinator.key_naming import KeyNaming
from sabot_sql.coordinator.messages import (
    BeginQuery,
    Command,
    Event,
    Fail,
    Finish,
    NameKey,
    PlanRevised,
    QueryAbandoned,
    QueryResumed,
    QueryStarted,
    ReleaseEdge,
    ReplaceAgent,
    RevisePlan,
    SplitOutput,
    StartTask,
    StopTask,
)
from sabot_sql.coordinator.metrics import shuffled
from sabot_sql.coordinator.no_sources import NoSources
from sabot_sql.coordinator.query_state import QueryPhase
from sabot_sql.coordinator.snapshot import PlanSnapshot, running_snapshot
from sabot_sql.coordinator.stage_run import Finished, Skipped
from sabot_sql.errors import RESULT_LOST, AgentError, OperatorError, QueryCancelled, QueryError, QueryTimeout
from sabot_sql.protocol.members import AgentLost
from sabot_sql.protocol.task_spec import FileSink, QueryContext, TaskFailure, TaskId, TaskReport
from sabot_sql.transport.interface import EdgeStream, PartsLost, Transport
from sabot_sql.transport.kept_segments import OnlyKept, kept_or

if TYPE_CHECKING:
    from sabot_sql.catalog.sources import SourceBinder

_POLL_SECONDS = 0.05
_SNAPSHOT_SECONDS = 0.2
_STOP_SECONDS = 1.0
_NAMING_MS = 250

Observer = Callable[[PlanSnapshot], None]


class Cancellation(Protocol):
    """Anything that another thread may set to stop a query."""

    @property
    def cancelled(self) -> bool:
        """Whether the query should stop."""
        ...


class OneAfterTheOther:
    """Streams of the same columns as one; it can be read once."""

    def __init__(self, streams: Sequence[EdgeStream]) -> None:
        self._streams = streams

    def __arrow_c_schema__(self) -> object:
        return self._streams[0].__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        readers = [pa.RecordBatchReader.from_stream(stream) for stream in self._streams]
        batches = itertools.chain.from_iterable(readers)
        return pa.RecordBatchReader.from_batches(readers[0].schema, batches).__arrow_c_stream__(requested_schema)

    def raise_lost(self) -> None:
        """See :class:`~sabot_sql.transport.interface.EdgeStream`."""
        for stream in self._streams:
            stream.raise_lost()


@dataclass(slots=True)
class FinishedQuery:
    """An answered query. ``stream`` holds its rows, in the promised order, until :meth:`release`.

    ``columns`` are the sink's, with the types that DuckDB gave them. ``attempts`` are the committed attempts of the
    sink's tasks: those whose files count, where it wrote files. ``measured`` are rows of sub-plans by their names,
    ``distinct`` are numbers of groups by theirs, estimated from sketches of their keys.
    """

    stream: EdgeStream | OneAfterTheOther
    columns: tuple[Column, ...]
    plan: PlanSnapshot
    stats: dict[str, Any]
    attempts: tuple[int, ...]
    measured: Mapping[str, int]
    distinct: Mapping[str, int]
    _release: Callable[[], None] = field(repr=False)

    @contextlib.contextmanager
    def handing_over(self) -> Iterator[None]:
        """Within it ``stream`` may be read; afterwards its rows are freed.

        Raises:
            AgentError: what went wrong within is that an agent was lost that had rows of the result.
        """
        try:
            yield
        except Exception:
            # Whoever reads the stream makes an error of its own of it.
            try:
                self.stream.raise_lost()
            except PartsLost as error:
                raise AgentError(f"rows of the result are gone: {error}", code=RESULT_LOST) from error
            raise
        finally:
            self.release()

    def release(self) -> None:
        """Free the rows on every agent; ``stream`` must not be read afterwards."""
        self._release()


def run_query(
    plan: QueryPlan,
    pool: AgentPool,
    sources: SourceBinder,
    *,
    query_id: str,
    sql: str = "",
    cancel: Cancellation | None = None,
    deadline_ms: int | None = None,
    observer: Observer | None = None,
    sink: FileSink | None = None,
    keeper: Keeper | None = None,
    preferred: Sequence[str] = (),
    may_join: MayJoin | None = None,
) -> FinishedQuery:
    """Run ``plan`` and return when its rows are committed, or with a ``sink`` when its files are written.

    Where some agents are ``preferred``, it runs on them alone, the first of them first, and on those who replace them
    and ``may_join``.

    ``observer`` gets the plan JSON at most five times a second and once at the end, in this thread. With a ``keeper``
    the query goes on where an earlier coordinator left it.

    Raises:
        QueryError: the statement failed on its values.
        ResourceError: memory or disk ran out.
        AgentError: a task failed on every agent that tried it.
        QueryCancelled, QueryTimeout: nothing of the query is left, and the agents are usable.
    """
    config = pool.config
    settings = config.plan_settings()
    controller = DBOSParallelController(settings.coalesce_bytes, settings.grant_bytes)
    if config.partitions is not None:
        controller = DBOSParallelController(coalesce_bytes=0, grant_bytes=0, few_rows=0)
    pool.heal(lambda: _check_cancelled(cancel))
    execution, events = _enter(
        pool,
        query_id,
        plan,
        controller,
        adaptive=config.adaptive,
        to_files=sink is not None,
        preferred=preferred,
        may_join=may_join,
    )
    driver = _Driver(
        plan, execution, events, pool, sources, sql, cancel, deadline_ms, observer, sink, joins_ordered=True
    )
    if keeper is not None and sink is None:
        driver.is_kept_by(keeper)
    return driver.run()


def run_job(
    operator_graph: OperatorGraph,
    pool: AgentPool,
    sources: SourceBinder | None = None,
    *,
    query_id: str,
    reason: str = "built by hand",
    cancel: Cancellation | None = None,
    deadline_ms: int | None = None,
    observer: Observer | None = None,
    sink: FileSink | None = None,
) -> FinishedQuery:
    """Run an operator graph that was built by hand, on the same path as a query; its parallelism stands as it is.

    With a ``sink`` the tasks of its last operator write files and give the numbers of their rows.
    """
    pool.heal(lambda: _check_cancelled(cancel))
    plan = QueryPlan(Mode.DISTRIBUTED, reason, len(pool.agents), with_counted_reads(operator_graph))
    controller = DBOSParallelController(coalesce_bytes=0)
    execution, events = _enter(pool, query_id, plan, controller, to_files=sink is not None)
    driver = _Driver(plan, execution, events, pool, sources or NoSources(), "", cancel, deadline_ms, observer, sink)
    try:
        return driver.run()
    except QueryError as error:
        # Whoever built the graph knows its operators by name; of a query nobody does.
        if driver.failed is not None and not isinstance(error, OperatorError):
            error.message = f"{_operators(execution, driver.failed)}: {error.message}, in task {driver.failed.task}"
        raise


def _operators(execution: Execution, failed: TaskId) -> str:
    chained = execution.runs[failed.stage].stage.operators
    return f"operator{'s' * (len(chained) > 1)} {', '.join(map(repr, chained))}"


def _enter(
    pool: AgentPool,
    query_id: str,
    plan: QueryPlan,
    controller: DBOSParallelController,
    *,
    adaptive: bool = False,
    to_files: bool = False,
    preferred: Sequence[str] = (),
    may_join: MayJoin | None = None,
) -> tuple[Execution, queue.SimpleQueue[Event]]:
    """Build what runs on the pool's agents; whichever of them dies from here on stays readable until the release."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    members = pool.enter(query_id, events.put if may_join is None else joining(may_join, pool, events.put))
    try:
        entered = [agent.agent_id for agent in members]
        agents = [agent_id for agent_id in preferred if agent_id in entered] or entered
        opening = QueryOpening(
            query_id,
            plan.operator_graph,
            tuple(agents),
            SESSION_AGENT,
            controller,
            adaptive,
            to_files,
            plan.mode.value,
            plan.reason,
            plan.agents,
            plan.output,
        )
        return Execution(opening), events
    except BaseException:
        pool.release(query_id)
        raise


def _check_cancelled(cancel: Cancellation | None) -> None:
    if cancel is not None and cancel.cancelled:
        raise QueryCancelled("the query was cancelled")


class _Driver:
    def __init__(
        self,
        plan: QueryPlan,
        execution: Execution,
        events: queue.SimpleQueue[Event],
        pool: AgentPool,
        sources: SourceBinder,
        sql: str,
        cancel: Cancellation | None,
        deadline_ms: int | None,
        observer: Observer | None,
        sink: FileSink | None = None,
        *,
        joins_ordered: bool = False,
    ) -> None:
        self._sink = sink
        self._plan = plan
        self._execution = execution
        self._query_id = execution.query_id
        self._pool = pool
        self._sources = sources
        self._sql = sql
        self._cancel = cancel
        self._observer = observer
        self._events = events
        self._began = time.monotonic()
        self._deadline_ms = deadline_ms
        self._observed = self._began
        self._finished = False
        self._naming = KeyNaming(pool.key_finder.find, events.put, min(_NAMING_MS, deadline_ms or _NAMING_MS))
        self._overtaken: dict[TaskId, str] = {}
        self._keeper: Keeper | None = None
        self._first: QueryStarted | QueryResumed = QueryStarted()
        self._transport: Transport = pool.transport
        self.failed: TaskId | None = None
        """The attempt that failed last."""
        self._context = QueryContext(
            self._query_id,
            settings=tuple(sources.session_settings().items()),
            paths=tuple(sources.paths()),
            files=tuple(sources.files()),
            attachments=tuple(sources.attachments()),
            sink=sink.directory if sink else "",
            joins_ordered=joins_ordered,
        )

    def is_kept_by(self, keeper: Keeper) -> None:
        """Note every event with ``keeper``, and go on where an earlier coordinator of this query left it."""
        opening = self._execution.opening
        journal = keeper.earlier(opening)
        before = None if journal is None else resumed(journal, self._plan)
        if journal is None or before is None:
            keeper.begin(opening)
        else:
            self._execution, self._plan = before
            self._first = QueryResumed(opening.agents)
            self._began -= (journal.entries[-1].at_ms if journal.entries else 0.0) / 1e3
            self._finished = self._execution.state.phase is QueryPhase.FINISHED
        self._keeper = keeper
        self._context = replace(self._context, kept_segments=keeper.kept_segments)
        kept: Transport = OnlyKept(keeper.kept_segments)
        # Of a query that was taken up some rows are in files alone.
        self._transport = kept_or(self._pool.transport, keeper.kept_segments) if before is None else kept

    def run(self) -> FinishedQuery:
        state = "failed"
        try:
            self._tell(self._first)
            # Every question is answered in time: what is not found by then is answered so.
            while not self._finished or self._execution.unnamed_keys:
                self._check()
                self._step(_POLL_SECONDS)
            finished = self._result()
            state = "finished"
        except (QueryCancelled, KeyboardInterrupt):
            state = "cancelled"
            raise
        except QueryTimeout:
            state = "timed_out"
            raise
        finally:
            if state != "finished":
                self._stop()
            self._naming.close()
            if state != "finished":
                self._observe(state)
        if self._execution.in_flight:
            self._interrupt()  # attempts that were overtaken
        self._observe(state, finished.plan)
        return finished

    # --- events and commands --------------------------------------------------------------------------------------

    def _step(self, timeout_seconds: float) -> None:
        try:
            event = self._events.get(timeout=timeout_seconds)
        except queue.Empty:
            # An interrupt can come too early for DuckDB to see it; it is repeated until the task has answered.
            for task_id, agent_id in tuple(self._overtaken.items()):
                self._stop_attempt(task_id, agent_id)
            return
        finally:
            self._observe_sometimes()
        if isinstance(event, TaskReport | TaskFailure):
            self._overtaken.pop(event.id, None)
        if isinstance(event, TaskFailure):
            self.failed = event.id
        self._tell(event)

    def _tell(self, event: Event) -> None:
        now_ms = self._now_ms()
        if self._keeper is not None and isinstance(event, AgentLost):
            event = replace(event, readable=True)  # what it committed was kept
        commands = self._execution.handle(event, now_ms)
        if self._keeper is not None and not isinstance(event, QueryAbandoned):
            self._keeper.note(JournalEntry(now_ms, event))
        self._do(commands)

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case BeginQuery(agent_id, edges):
                    self._pool.agent(agent_id).begin(replace(self._context, edges=edges))
                case StartTask():
                    spec = task_spec(command, self._sources, self._left_ms(), self._sink)
                    self._pool.agent(command.agent_id).submit(spec, self._events.put)
                case StopTask(task_id, agent_id):
                    self._overtaken[task_id] = agent_id
                    self._stop_attempt(task_id, agent_id)
                case SplitOutput(spec, agent_id):
                    self._pool.agent(agent_id).submit(spec, self._events.put)
                case NameKey(question):
                    self._naming.ask(question)
                case RevisePlan():
                    self._revise(command)
                case ReleaseEdge(edge_id):
                    self._release(edge_id)
                case ReplaceAgent(agent_id):
                    self._pool.lost(agent_id)
                case Fail(error):
                    raise error
                case Finish():
                    self._finished = True

    def _stop_attempt(self, task_id: TaskId, agent_id: str) -> None:
        with contextlib.suppress(AgentError):  # the agent is gone, and the attempt with it
            self._pool.agent(agent_id).stop(task_id)

    def _revise(self, command: RevisePlan) -> None:
        revised = self._plan.revise(command.facts, command.started)
        changed = revised is not self._plan
        self._plan = revised
        self._events.put(PlanRevised(command.number, revised.operator_graph if changed else None))

    def _release(self, edge_id: str | None = None) -> None:
        self._pool.release(self._query_id, edge_id)

    # --- time -----------------------------------------------------------------------------------------------------

    def _now_ms(self) -> float:
        return (time.monotonic() - self._began) * 1e3

    def _left_ms(self) -> int | None:
        return None if self._deadline_ms is None else max(1, int(self._deadline_ms - self._now_ms()))

    def _check(self) -> None:
        _check_cancelled(self._cancel)
        if self._deadline_ms is not None and self._now_ms() > self._deadline_ms:
            raise QueryTimeout(f"the query ran past its deadline of {self._deadline_ms} ms")

    # --- ends -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Interrupt whatever still runs, wait a second for it, and free everything."""
        give_up = time.monotonic() + _STOP_SECONDS
        self._tell(QueryAbandoned())
        while self._execution.in_flight and time.monotonic() < give_up:
            # An interrupt can come too early for DuckDB to see it; it is repeated until the task has answered.
            self._interrupt()
            self._step(_POLL_SECONDS)
        for agent_id in self._execution.busy_agents:
            self._pool.agent(agent_id).give_up(self._query_id)
        self._release()

    def _interrupt(self) -> None:
        for agent in (*self._pool.agents, self._pool.session_agent):
            agent.cancel(self._query_id)

    def _result(self) -> FinishedQuery:
        sink, shuffle = self._execution.result()
        outputs = [shuffle.outputs[task] for task in sorted(shuffle.outputs)]
        manifests = [sabot_native.Manifest.from_bytes(output.manifest) for output in outputs]
        try:
            parts = [self._transport.open(manifests, part, part + 1) for part in range(shuffle.partitions)]
        except PartsLost as error:
            if self._keeper is not None:
                self._keeper.begin(self._execution.opening)  # what was kept is of no use
            raise AgentError(f"rows of the result are gone: {error}", code=RESULT_LOST) from error
        stream = parts[0] if len(parts) == 1 else OneAfterTheOther(parts)
        first = sink.tasks[0].state
        report = first.report if isinstance(first, Finished) else None
        columns = stored_columns(sink.outputs[-1], report) if report else ()
        attempts = tuple(task.state.attempt for task in sink.tasks if isinstance(task.state, Finished | Skipped))
        return FinishedQuery(
            stream,
            columns,
            self._snapshot("finished"),
            self._stats(),
            attempts,
            self._measured(),
            self._distinct(),
            self._release,
        )

    def _measured(self) -> dict[str, int]:
        """What the next plan with the same sub-plans can estimate by."""
        facts = self._execution.measurements()
        rows = {edge_id: measured.rows for edge_id, measured in facts.items()}
        if self._sink is None:  # with one, the tasks committed counts in place of rows
            rows[RESULT_EDGE] = sum(output.rows for output in self._execution.result()[1].outputs.values())
        identities = self._plan.identities()
        return {identities[edge_id]: count for edge_id, count in rows.items() if edge_id in identities}

    def _distinct(self) -> dict[str, int]:
        """As :meth:`_measured`, of the distinct keys of HASH edges."""
        counts = {edge_id: facts.distinct_keys for edge_id, facts in self._execution.measurements().items()}
        identities = self._plan.key_identities()
        return {name: count for edge_id, name in identities.items() if (count := counts.get(edge_id)) is not None}

    def _stats(self) -> dict[str, Any]:
        tasks = [task for run in self._execution.runs.values() for task in run.tasks]
        metrics = self._execution.metrics
        edges = metrics.edges()
        moved, written = shuffled(edges, without=RESULT_EDGE), shuffled(edges)
        return {
            "elapsed_ms": round(self._now_ms(), 3),
            "tasks": len(tasks),
            "retries": sum(task.failures for task in tasks),
            "rows_shuffled": moved.rows,
            "bytes_shuffled": moved.bytes,
            "batches_shuffled": moved.batches,
            "spilled_bytes": written.spilled_bytes,
            "wait_ms": round(written.wait_ms, 3),
            **metrics.to_json(),
        }

    # --- progress -------------------------------------------------------------------------------------------------

    def _snapshot(self, state: str) -> PlanSnapshot:
        return running_snapshot(
            self._plan,
            self._execution,
            sql=self._sql,
            isolation=self._pool.config.isolation.value,
            state=state,
            now_ms=self._now_ms(),
        )

    def _observe_sometimes(self) -> None:
        if self._observer is not None and time.monotonic() - self._observed >= _SNAPSHOT_SECONDS:
            self._observe("running")

    def _observe(self, state: str, snapshot: PlanSnapshot | None = None) -> None:
        if self._observer is not None:
            self._observed = time.monotonic()
            self._observer(snapshot or self._snapshot(state))
