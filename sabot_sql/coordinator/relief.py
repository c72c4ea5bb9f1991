"""A task that ran out of memory runs once more, alone and on fewer buckets; then the query has to end."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.operators import ShuffleEdgeType
from sabot_sql.agent.task_spec import FailureKind, TaskFailure
from sabot_sql.coordinator.exchange_rules import Read
from sabot_sql.coordinator.shuffle_coordinator import ShuffleCoordinator
from sabot_sql.coordinator.stage_run import StageRun, TaskRecord, Waiting

OUT_OF_MEMORY = "OUT_OF_MEMORY"


def relieve(run: StageRun, record: TaskRecord, failure: TaskFailure, shuffles: ShuffleCoordinator) -> bool:
    """Let the task of ``failure`` run again, if it ran out of memory while others ran; says whether it will.

    Where it read several hash buckets, tasks of one bucket each take its place: the working set is that much smaller.
    """
    out_of_memory = failure.kind is FailureKind.RESOURCE and failure.error.code == OUT_OF_MEMORY
    if not out_of_memory or record.relieved:
        return False
    run.relieved = True
    record.failures += 1
    record.relieved = True
    record.state = Waiting()
    extra = _split(run, record)
    for output in run.outputs:
        shuffles.edge(output.edge_id).producers += extra
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
