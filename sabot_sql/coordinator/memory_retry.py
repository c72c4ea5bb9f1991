"""Out-of-memory retry: how a task runs again with smaller inputs, and when that would not help.

A stage that reads slices of a source begins anew with smaller ones, as if more tasks had been planned: what it makes is
combined over all tasks anyway, however many those are. Any other task runs once more, alone and on fewer buckets. Where
that is no less, the query does not wait for a second failure: the session has ways with more memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sabot_planner.job.operators import ShuffleEdgeType
from sabot_sql.coordinator.edge_book import EdgeBook
from sabot_sql.coordinator.exchange_rules import Read, Reads
from sabot_sql.coordinator.stage_run import MemoryShare, StagePhase, StageRun, TaskRecord
from sabot_sql.errors import OUT_OF_MEMORY
from sabot_sql.protocol.task_spec import FailureKind, TaskFailure

_FINER = 8
"""Times as many slices each time. Few would fail again after as long a time as the first ones took."""

_COPIED_SHARE = 0.5
"""Of a memory grant, which is a quarter of an agent's memory: a hash table takes about twice what its rows do."""

_FINEST = 512
"""More slices than this cost more time than they save memory."""


@dataclass(frozen=True, slots=True)
class BeginAnew:
    """All tasks of the stage begin anew, as many as ``reads`` has. What is committed is not read."""

    reads: Reads


@dataclass(frozen=True, slots=True)
class RunAlone:
    """Task ``task`` runs again alone, on what ``reads`` leaves to it; the tasks that are new there read the rest."""

    task: int
    reads: Reads


def memory_retry(
    run: StageRun, record: TaskRecord, failure: TaskFailure, shuffles: EdgeBook, grant_bytes: int
) -> BeginAnew | RunAlone | None:
    """How the task of ``failure`` runs again with less, if it ran out of memory; None where the query has to end.

    Where it read several hash buckets, tasks of one bucket each take its place: the working set is that much smaller.
    Where each task holds a copy of much of a memory grant (``grant_bytes``), no cut makes it smaller.
    """
    out_of_memory = failure.kind is FailureKind.RESOURCE and failure.error.code == OUT_OF_MEMORY
    if not out_of_memory or record.memory is MemoryShare.ALONE:
        return None
    if _copied_bytes(run, shuffles) > grant_bytes * _COPIED_SHARE > 0:
        return None
    return _in_finer_slices(run) if run.stage.slices else RunAlone(record.index, _bucket_by_bucket(run, record.index))


def _copied_bytes(run: StageRun, shuffles: EdgeBook) -> int:
    """What every task reads whole beside its slices; a copy beside a hash bucket is one of a small edge."""
    copied = (edge for edge in run.stage.inputs if edge.edge_type is ShuffleEdgeType.BROADCAST and run.stage.slices)
    return sum(sum(shuffles.edge(edge.edge_id).partition_bytes()) for edge in copied)


def _in_finer_slices(run: StageRun) -> BeginAnew | None:
    stage = run.stage
    # Values are cut where the plan says: more tasks than it has ranges would read nothing.
    scans = (scan for operator in stage.operators for scan in run.graph.operator(operator).scans if scan.sliced)
    finest = min((scan.split.parts for scan in scans if scan.split is not None), default=_FINEST)
    tasks = run.reads.parallelism * _FINER
    others = [edge for edge in stage.inputs if edge.edge_type is not ShuffleEdgeType.BROADCAST]
    beside = [edge for edge in stage.outputs if edge.edge_type is ShuffleEdgeType.FORWARD]
    if stage.whole or others or beside or run.phase is StagePhase.MEASURED or tasks > finest:
        return None
    by_edge = {edge_id: reads[:1] * tasks for edge_id, reads in run.reads.by_edge.items()}
    reason = f"{run.reads.reason}; {run.reads.parallelism} ran out of memory and begin anew as {tasks}"
    return BeginAnew(replace(run.reads, parallelism=tasks, by_edge=by_edge, reason=reason))


def _bucket_by_bucket(run: StageRun, task: int) -> Reads:
    """The reads of a stage where new tasks take all but the first bucket of a task, as far as they can be dealt out."""
    stage = run.stage
    kinds = {edge.edge_id: edge.edge_type for edge in stage.inputs}
    own = run.reads_of(task)
    first, last = _own_buckets(run, task) or (0, 0)
    extra = max(0, last - first - 1)
    by_edge: dict[str, tuple[Read, ...]] = {}
    for edge_id, reads in run.reads.by_edge.items():
        parts = [own[edge_id]] * (extra + 1)
        if kinds[edge_id] is ShuffleEdgeType.HASH and extra:
            parts = [replace(own[edge_id], first=bucket, last=bucket + 1) for bucket in range(first, last)]
        by_edge[edge_id] = (*reads[:task], parts[0], *reads[task + 1 :], *parts[1:])
    said = f"task {task} ran out of memory and runs again alone" + f", as {extra + 1} tasks" * bool(extra)
    reason = f"{run.reads.reason}; {said}"
    return replace(run.reads, parallelism=run.reads.parallelism + extra, by_edge=by_edge, reason=reason)


def _own_buckets(run: StageRun, task: int) -> tuple[int, int] | None:
    """The hash buckets [first, last) that a task reads and others could read in its place."""
    stage = run.stage
    kinds = {edge.edge_id: edge.edge_type for edge in stage.inputs}
    if stage.whole or not set(kinds.values()) <= {ShuffleEdgeType.HASH, ShuffleEdgeType.BROADCAST}:
        return None
    if any(edge.edge_type is ShuffleEdgeType.FORWARD for edge in stage.outputs):
        return None  # its consumer joins it task by task with another stage
    own = run.reads_of(task)
    shares = {
        (own[edge_id].first, own[edge_id].last) for edge_id, kind in kinds.items() if kind is ShuffleEdgeType.HASH
    }
    return shares.pop() if len(shares) == 1 else None
