"""Runs a job graph on the agents of a session, and hands the rows of its sinks over once everything has succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabot_planner import Column, Mode, QueryPlan
from sabot_planner.sql.duck_type import duck_type, is_written
from sabot_sql.call.clock import Phase
from sabot_sql.call.file_sinks import parquet_sink
from sabot_sql.call.pools import Pools
from sabot_sql.call.request import Request
from sabot_sql.catalog.connection import ColumnTypes
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.coordinator import FinishedQuery, run_job
from sabot_sql.coordinator.snapshot import planned_snapshot
from sabot_sql.errors import FILE_CHANGED, InternalError, JobError, SourceError
from sabot_sql.jobs.compiler import ExecutableJob
from sabot_sql.jobs.job_graph import JobGraph
from sabot_sql.jobs.sink_targets import ParquetFiles
from sabot_sql.plan_document import PlanJson
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import ResultStore, batches


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """The rows of all sinks, and how agents came to them; ``written`` of them, where agents wrote the files."""

    store: ResultStore
    columns: ColumnTypes
    plan: Mapping[str, Any]
    stats: Mapping[str, Any]
    written: int | None = None


def check_resources(job: JobGraph, config: SessionConfig) -> None:
    """Whether every agent has what each task asks for.

    Raises:
        JobError: one has less.
    """
    has_mb = config.duckdb_memory_bytes >> 20
    threads = config.threads if config.own_instances else config.instance_threads
    for node in job.operators:
        if node.memory_mb is not None and node.memory_mb > has_mb:
            reason = f"a task needs memory_mb={node.memory_mb}, and an agent of this session has {has_mb}"
            hint = "use fewer agents, or a larger memory_limit"
            raise _refused(node.operator_id, reason, hint)
        if node.cpu_cores is not None and node.cpu_cores > threads:
            reason = f"a task needs cpu_cores={node.cpu_cores:g}, and an agent of this session has {threads}"
            raise _refused(node.operator_id, reason, "use fewer agents, or more threads for each")


def planned_job(job: JobGraph, executable: ExecutableJob, config: SessionConfig) -> PlanJson:
    """The plan of a job that has not run."""
    plan = QueryPlan(Mode.DISTRIBUTED, _reason(job), config.agent_count, executable.graph, executable.columns)
    return _described(planned_snapshot(plan, isolation=config.isolation.value), executable)


def run_on_agents(
    job: JobGraph, executable: ExecutableJob, request: Request, pools: Pools, room: ResultRoom, why: str = ""
) -> JobAnswer:
    """Run a job to its end and take its rows over; ``why`` says in the plan why these agents.

    Raises:
        SabotSQLError: then nothing is left of it.
    """
    running, progress = request.running, request.progress
    running.clock.enter(Phase.STARTING)
    with (
        progress.telling(lambda: {**planned_job(job, executable, request.config), "state": "starting"}),
        pools.using(request.config, running.check) as pool,
        ExitStack() as resources,
    ):
        files = resources.enter_context(parquet_sink(*parts)) if (parts := _parts(executable, request.config)) else None
        running.clock.enter(Phase.RUNNING)
        with progress.telling(None):
            finished = run_job(
                executable.graph,
                pool,
                executable.sources,
                query_id=running.query_id,
                reason="; ".join(filter(None, (why, _reason(job)))),
                cancel=running,
                deadline_ms=running.left_ms(),
                observer=lambda plan: progress.tell(_described(plan, executable)),
                sink=files.sink if files else None,
            )
        running.clock.enter(Phase.HANDING_OVER)
        with finished.handing_over():
            changed = executable.sources.changed_file()
            if changed is not None:
                raise SourceError(f"{changed} was changed while it was read", code=FILE_CHANGED, file=changed)
            if files is not None:
                written, plan = files.finish(finished), _described(finished.plan, executable)
                return JobAnswer(ResultStore.empty(), (), plan, finished.stats, written)
            columns = _columns(executable, finished)
            store = request.drain(batches(finished.stream), room, borrowed=True)
    return JobAnswer(store, columns, _described(finished.plan, executable), finished.stats)


def _parts(executable: ExecutableJob, config: SessionConfig) -> tuple[Path, tuple[Column, ...]] | None:
    """Where the tasks of the one sink write a file each; None where the session writes what is to be written.

    Agents of other hosts have files of their own, and nothing tells whether a directory of the same name is the same.
    """
    same_host = config.isolation is not Isolation.REMOTE or (config.cluster is not None and config.cluster.is_local)
    target = executable.sinks[0].target
    if len(executable.sinks) != 1 or not isinstance(target, ParquetFiles) or not same_host:
        return None
    return target.path, executable.sinks[0].columns


def _columns(executable: ExecutableJob, finished: FinishedQuery) -> ColumnTypes:
    if len(executable.columns) != len(finished.columns):
        raise InternalError(f"planned {len(executable.columns)} columns, got {len(finished.columns)}")
    # What travels in another form has the type that was planned, not the one that arrived.
    pairs = zip(executable.columns, finished.columns, strict=True)
    return tuple(
        (wanted.name, wanted.type if is_written(duck_type(wanted.type)) else arrived.type) for wanted, arrived in pairs
    )


def _described(document: Mapping[str, Any], executable: ExecutableJob) -> PlanJson:
    """``document`` with the columns that each operator gives."""
    stages = [
        {**stage, "columns": [{"name": c.name, "type": c.type} for c in executable.schemas.get(stage["id"], ())]}
        for stage in document.get("stages", ())
    ]
    return {**document, "stages": stages}


def _reason(job: JobGraph) -> str:
    return f"job {job.job_id}, built by hand"


def _refused(operator_id: str, reason: str, hint: str) -> JobError:
    return JobError(f"operator {operator_id!r}: {reason}", code="RESOURCES", hint=hint, operator=operator_id)
