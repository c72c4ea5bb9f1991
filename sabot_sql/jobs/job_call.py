"""One call of ``run_job``: compile, run on agents, write the sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sabot_sql.call.clock import Phase
from sabot_sql.call.memory_ladder import with_all_memory
from sabot_sql.call.pools import Pools
from sabot_sql.call.read_write_lock import ReadWriteLock
from sabot_sql.call.request import Request
from sabot_sql.catalog.catalog import Catalog
from sabot_sql.catalog.connection import ColumnTypes, Statement
from sabot_sql.catalog.frames import Scope
from sabot_sql.errors import OUT_OF_MEMORY, JobError, ResourceError
from sabot_sql.jobs.compiler import ExecutableJob, executable
from sabot_sql.jobs.job_graph import JobGraph
from sabot_sql.jobs.run import JobAnswer, check_resources, planned_job, run_on_agents
from sabot_sql.jobs.session_binding import SessionBinding
from sabot_sql.jobs.sink_writers import check_targets, part_of, result_sink, shown, write_sinks
from sabot_sql.plan_document import PlanJson
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import ResultStore

if TYPE_CHECKING:
    from sabot_sql.result import Result

RunStatement = Callable[[Statement, Sequence[Scope]], "Result"]
MakeResult = Callable[[ResultStore, ColumnTypes, Mapping[str, Any], Mapping[str, Any]], "Result"]

_WRITTEN: ColumnTypes = (("sink", "VARCHAR"), ("target", "VARCHAR"), ("rows", "BIGINT"))


@dataclass(frozen=True, slots=True)
class JobCall:
    """What a session lends to one call; ``run`` runs a statement as a query of the same call."""

    request: Request
    catalog: Catalog
    pools: Pools
    room: ResultRoom
    read_write_lock: ReadWriteLock
    run: RunStatement
    result: MakeResult

    def answer(self, job: JobGraph) -> Result:
        """Run ``job``; gives the rows of the sink without a target, or else what each sink wrote.

        Raises:
            SabotSQLError: nothing of the job is left, and no sink has written anything.
        """
        self._check(job)
        self.request.running.clock.enter(Phase.PLANNING)
        with self._executable(job) as ready:
            check_targets(ready.sinks, self._sql)
            with self.read_write_lock.reading(self.request.running.check):
                answer = self._run(job, ready)
        return self._handed_over(ready, answer)

    def _run(self, job: JobGraph, ready: ExecutableJob) -> JobAnswer:
        """Run on the agents that were asked for; on one with all of the memory where theirs is too little."""
        try:
            return run_on_agents(job, ready, self.request, self.pools, self.room)
        except ResourceError as error:
            if error.code != OUT_OF_MEMORY or self.request.config.agent_count == 1:
                raise
        # Nothing was handed over yet, so the job may begin anew.
        alone = replace(self.request, config=with_all_memory(self.request.config))
        reason = f"memory ran out on {self.request.config.agent_count} agents: one agent has all of it"
        return run_on_agents(job, ready, alone, self.pools, self.room, reason)

    def explain(self, job: JobGraph) -> PlanJson:
        """The plan of ``job``, which is not run; only its sources and schemas are looked at."""
        self._check(job)
        with self._executable(job) as ready:
            return planned_job(job, ready, self.request.config)

    def _check(self, job: JobGraph) -> None:
        if not isinstance(job, JobGraph):
            raise JobError(f"a JobGraph is run, not a {type(job).__name__}", code="NOT_A_JOB")
        job.validate()
        check_resources(job, self.request.config)
        collation = self.catalog.connection.session_settings().get("default_collation", "")
        if collation:
            reason = f"under default_collation = {collation!r} equal texts would be placed apart"
            raise JobError(reason, code="COLLATION", hint="RESET default_collation, and compare lower(…) in its place")
        if self.catalog.connection.in_transaction:
            reason = "inside a transaction, whose changes agents do not see"
            raise JobError(reason, code="IN_TRANSACTION", hint="commit it, or roll it back, before")

    @contextmanager
    def _executable(self, job: JobGraph) -> Iterator[ExecutableJob]:
        with SessionBinding(self.catalog, self.request, self.run) as binding:
            yield executable(job, binding)

    def _handed_over(self, ready: ExecutableJob, answer: JobAnswer) -> Result:
        rows = self.result(answer.store, answer.columns, answer.plan, answer.stats)
        if answer.written is not None:
            (sink,) = ready.sinks
            written = [(sink.operator_id, shown(sink), answer.written)]
        else:
            written = write_sinks(ready.sinks, rows, answer.stats, self._sql)
        counts = {operator_id: count for operator_id, _, count in written}
        stats = {**answer.stats, "sinks": counts}
        place = result_sink(ready.sinks)
        if place is None:
            columns = list(zip(*written, strict=True))
            table = pa.table({name: list(values) for (name, _), values in zip(_WRITTEN, columns, strict=True)})
            return self.result(self.request.drain(table.to_reader(), self.room), _WRITTEN, answer.plan, stats)
        if len(ready.sinks) == 1:
            return rows
        own = part_of(ready.sinks, place, rows, self._sql)
        types = tuple((column.name, column.type) for column in ready.sinks[place].columns)
        store = self.request.drain(own.to_arrow_reader(), self.room)
        return self.result(store, types, answer.plan, stats)

    def _sql(self, sql: str, objects: Mapping[str, object]) -> Result:
        (statement,) = self.catalog.split(sql, None)
        return self.run(statement, (objects,))
