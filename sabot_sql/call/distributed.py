"""Runs a planned query on the agents and takes its rows to where they are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sabot_planner import Column, Mode, QueryPlan
from sabot_planner.sql.duck_type import duck_type, is_written
from sabot_sql.call.clock import Phase
from sabot_sql.call.file_sinks import DirectorySink, directory_sink
from sabot_sql.call.pools import Pools
from sabot_sql.call.request import PlannedQuery, Request, WriteFailed
from sabot_sql.catalog.catalog import BoundQuery, Catalog
from sabot_sql.catalog.connection import ColumnTypes, Statement
from sabot_sql.catalog.writes import Write
from sabot_sql.config import Isolation
from sabot_sql.coordinator import FinishedQuery, run_query
from sabot_sql.coordinator.snapshot import planned_snapshot
from sabot_sql.errors import FILE_CHANGED, InternalError, QueryCancelled, SabotSQLError, SourceError
from sabot_sql.plan_document import PlanJson
from sabot_sql.protocol.members import AgentGrant
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import ResultStore, batches

_COUNT: ColumnTypes = (("Count", "BIGINT"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a statement, and how agents came to them."""

    store: ResultStore
    columns: ColumnTypes
    plan: Mapping[str, Any]
    stats: Mapping[str, Any]


def run_on_agents(
    query: Statement,
    planned: PlannedQuery,
    request: Request,
    write: Write | None,
    catalog: Catalog,
    pools: Pools,
    room: ResultRoom,
) -> Answer:
    """The rows of ``query``; or, once they are written where ``write`` wants them, what DuckDB answers to that.

    Raises:
        SabotSQLError: then nothing is left, and nothing is written.
        AgentError: with code ``RESULT_LOST`` where an agent was lost while its rows were taken.
        WriteFailed: the rows were there, and writing them failed.
    """
    plan, bound = planned.plan, planned.bound
    running = request.running
    running.clock.enter(Phase.STARTING)
    with (
        running.limited(catalog.connection.max_execution_ms),
        request.progress.telling(lambda: _starting(plan, request)),
        pools.using(request.config, running.check) as pool,
        directory_sink(write.form if write else None, plan.output, _roots(pool.grants)) as files,
    ):
        running.clock.enter(Phase.RUNNING)
        try:
            with request.progress.telling(None):
                finished = run_query(
                    plan,
                    pool,
                    bound.sources,
                    query_id=running.query_id,
                    sql=request.sql,
                    cancel=running,
                    deadline_ms=running.left_ms(),
                    observer=request.progress.tell,
                    sink=files.sink if files else None,
                    # Agents of other hosts cannot write where this one looks.
                    keeper=request.keeper if request.config.isolation is not Isolation.REMOTE else None,
                    preferred=bound.sources.able_agents() if plan.mode is Mode.SINGLE else (),
                    may_join=bound.sources.may_run_on if plan.mode is Mode.SINGLE else None,
                )
        except QueryCancelled:
            raise
        except SabotSQLError as error:
            _require_unchanged(bound)
            raise catalog.explain_failure(error, query) from error.__cause__
        running.clock.enter(Phase.HANDING_OVER)
        catalog.measured.learn(finished.measured, finished.distinct)
        with finished.handing_over():
            _require_unchanged(bound)
            store, columns = _taken(finished, plan.output, files, write, request, catalog, room)
    return Answer(store, columns, finished.plan, finished.stats)


def _roots(grants: Sequence[AgentGrant] | None) -> tuple[tuple[str, ...], ...] | None:
    return None if grants is None else tuple(grant.data_roots for grant in grants)


def _require_unchanged(bound: BoundQuery) -> None:
    changed = bound.sources.changed_file()
    if changed is not None:
        raise SourceError(f"{changed} was changed while it was read", code=FILE_CHANGED, file=changed)


def _starting(plan: QueryPlan, request: Request) -> PlanJson:
    """What is told while agents start, or are waited for."""
    isolation = request.config.isolation.value
    return planned_snapshot(
        plan, query_id=request.running.query_id, sql=request.sql, isolation=isolation, state="starting"
    )


def _taken(
    finished: FinishedQuery,
    output: Sequence[Column],
    files: DirectorySink | None,
    write: Write | None,
    request: Request,
    catalog: Catalog,
    room: ResultRoom,
) -> tuple[ResultStore, ColumnTypes]:
    if files is not None:
        try:
            count = pa.table({"Count": pa.array([files.finish(finished)], pa.int64())})
            return request.drain(count.to_reader(), room), _COUNT
        except SabotSQLError as error:
            raise WriteFailed(error) from error
    if len(output) != len(finished.columns):
        raise InternalError(f"planned {len(output)} columns, got {len(finished.columns)}")
    columns = tuple(
        # What travels in another form has the type that was planned, not the one that arrived.
        Column(wanted.name, wanted.type if is_written(duck_type(wanted.type)) else arrived.type)
        for wanted, arrived in zip(output, finished.columns, strict=True)
    )
    if write is None:
        named = tuple((column.name, column.type) for column in columns)
        return request.drain(batches(finished.stream), room, borrowed=True), named
    carried = [column.name for column in finished.columns]
    with request.running.interrupting(catalog.connection):
        try:
            table, answer = catalog.writes.run(write, request.scopes, finished.stream, columns, carried)
        except SabotSQLError as error:
            raise WriteFailed(error) from error
    return request.drain(table.to_reader(), room), answer
