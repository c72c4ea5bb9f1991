"""What runs again with less when a task ran out of memory; where there is no less, the query has to end.

A stage that reads slices of a source begins anew with smaller ones, as if more tasks had been planned: what it makes is
combined over all tasks anyway, however many those are. Any other task runs once more, alone and on fewer buckets. Where
that is no less, the query does not wait for a second failure: the session has ways with more memory.
"""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.job.operators import ShuffleEdgeType
from sabot_sql.coordinator.exchange_rules import Read
from sabot_sql.coordinator.shuffle_coordinator import ShuffleCoordinator
from sabot_sql.coordinator.stage_run import StageRun, TaskRecord, Waiting
from sabot_sql.errors import OUT_OF_MEMORY
from sabot_sql.protocol.task_spec import FailureKind, TaskFailure

_FINER = 8
"""Times as many slices each time. Few would fail again after as long a time as the first ones took."""

_COPIED_SHARE = 0.5
"""Of a memory grant, which is a quarter of an agent's memory: a hash table takes about twice what its rows do."""

_FINEST = 512
"""More slices than this cost more time than they save memory."""


def relieve(
    run: StageRun, record: TaskRecord, failure: TaskFailure, shuffles: ShuffleCoordinator, grant_bytes: int
) -> bool:
    """Let the task of ``failure`` run again with less, if it ran out of memory; says whether it will.

    Where it read several hash buckets, tasks of one bucket each take its place: the working set is that much smaller.
    Where each task holds a copy of much of a memory grant (``grant_bytes``), no cut makes it smaller.
    """
    out_of_memory = failure.kind is FailureKind.RESOURCE and failure.error.code == OUT_OF_MEMORY
    if not out_of_memory or record.relieved or _copied_bytes(run, shuffles) > grant_bytes * _COPIED_SHARE > 0:
        return False
    if run.stage.slices:
        return _in_finer_slices(run, shuffles)
    run.relieved = True
    record.failures += 1
    record.relieved = True
    record.state = Waiting()
    extra = _split(run, record)
    for output in run.outputs:
        shuffles.edge(output.edge_id).producers += extra
    return True


def _copied_bytes(run: StageRun, shuffles: ShuffleCoordinator) -> int:
    """What every task reads whole beside its slices; a copy beside a hash bucket is one of a small edge."""
    copied = (edge for edge in run.stage.inputs if edge.edge_type is ShuffleEdgeType.BROADCAST and run.stage.slices)
    return sum(sum(shuffles.edge(edge.edge_id).partition_bytes()) for edge in copied)


def _in_finer_slices(run: StageRun, shuffles: ShuffleCoordinator) -> bool:
    """Begin a stage anew with more tasks. Attempts that still run are overtaken, what is committed is not read."""
    stage = run.stage
    # Values are cut where the plan says: more tasks than it has ranges would read nothing.
    scans = (scan for operator in stage.operators for scan in run.graph.operator(operator).scans if scan.sliced)
    finest = min((scan.split.parts for scan in scans if scan.split is not None), default=_FINEST)
    tasks = run.reads.parallelism * _FINER
    others = [edge for edge in stage.inputs if edge.edge_type is not ShuffleEdgeType.BROADCAST]
    beside = [edge for edge in stage.outputs if edge.edge_type is ShuffleEdgeType.FORWARD]
    if not stage.slices or stage.whole or others or beside or run.announced or tasks > finest:
        return False
    by_edge = {edge_id: reads[:1] * tasks for edge_id, reads in run.reads.by_edge.items()}
    reason = f"{run.reads.reason}; {run.reads.parallelism} ran out of memory and begin anew as {tasks}"
    attempts = max(task.next_attempt for task in run.tasks)
    run.reads = replace(run.reads, parallelism=tasks, by_edge=by_edge, reason=reason)
    run.tasks = [TaskRecord(index, next_attempt=attempts) for index in range(tasks)]
    for output in run.outputs:
        shuffles.open(output.edge_id, output.scheme, tasks)
    return True


def _split(run: StageRun, record: TaskRecord) -> int:
    """Share the buckets of a task out among new tasks, all but the first; gives how many tasks that are."""
    stage = run.stage
    kinds = {edge.edge_id: edge.edge_type for edge in stage.inputs}
    if stage.slices or stage.whole or not set(kinds.values()) <= {ShuffleEdgeType.HASH, ShuffleEdgeType.BROADCAST}:
        return 0
    if any(edge.edge_type is ShuffleEdgeType.FORWARD for edge in stage.outputs):
        return 0  # its consumer joins it task by task with another stage
    own = {edge_id: reads[record.index] for edge_id, reads in run.reads.by_edge.items()}
    shares = {
        (own[edge_id].first, own[edge_id].last) for edge_id, kind in kinds.items() if kind is ShuffleEdgeType.HASH
    }
    if len(shares) != 1:
        return 0
    ((first, last),) = shares
    extra = max(0, last - first - 1)
    by_edge: dict[str, tuple[Read, ...]] = {}
    for edge_id, reads in run.reads.by_edge.items():
        parts = [own[edge_id]] * (extra + 1)
        if kinds[edge_id] is ShuffleEdgeType.HASH and extra:
            parts = [replace(own[edge_id], first=bucket, last=bucket + 1) for bucket in range(first, last)]
        by_edge[edge_id] = (*reads[: record.index], parts[0], *reads[record.index + 1 :], *parts[1:])
    parallelism = run.reads.parallelism + extra
    said = f"task {record.index} ran out of memory and runs again alone" + f", as {extra + 1} tasks" * bool(extra)
    reason = f"{run.reads.reason}; {said}"
    run.reads = replace(run.reads, parallelism=parallelism, by_edge=by_edge, reason=reason)
    run.tasks += [TaskRecord(len(run.tasks) + i, relieved=True) for i in range(extra)]
    return extra
