"""What runs again when an attempt failed or a committed output was lost, and when that is enough."""

from __future__ import annotations

from collections.abc import Mapping

from sabot_sql.coordinator.shuffle_coordinator import ShuffleCoordinator
from sabot_sql.coordinator.stage_run import Finished, Running, StageRun, TaskRecord, Waiting
from sabot_sql.errors import FRAGMENT_FAILED, AgentError, SabotSQLError
from sabot_sql.protocol.task_spec import FailureKind, TaskFailure, WriteKind

MAX_ATTEMPTS = 4
MAX_AGENT_DEATHS = 2
"""A task that two agents died of would take down the others as well."""


def retry(record: TaskRecord, stage: str, agent_id: str, reason: SabotSQLError) -> SabotSQLError | None:
    """Let a task wait for another attempt on another agent; or the error that ends the query."""
    record.failures += 1
    avoid = record.avoid | {agent_id}
    record.avoid = avoid
    record.state = Waiting()
    if record.deaths >= MAX_AGENT_DEATHS:
        message = f"{record.deaths} agents died of task {stage}_{record.index}; it is not given to a third"
    elif record.failures >= MAX_ATTEMPTS:
        message = f"task {stage}_{record.index} failed {record.failures} times, at last: {reason.message}"
    else:
        return None
    return AgentError(
        message,
        agent=agent_id,
        stage=stage,
        task=record.index,
        attempt=record.next_attempt - 1,
        remote_message=getattr(reason, "remote_message", None),
    )


def rerun(
    runs: Mapping[str, StageRun], shuffles: ShuffleCoordinator, edge_id: str, producer: int
) -> SabotSQLError | None:
    """Let ``producer`` write ``edge_id`` again, and whoever wrote what it needs for that.

    Returns the error that ends the query where a task had to run again too often.
    """
    shuffle = shuffles.edge(edge_id)
    edge_id = shuffle.edge_id
    shuffle.outputs.pop(producer, None)
    run = producer_of(runs, edge_id)
    error = _reset(runs, shuffles, run, run.tasks[producer])
    if shuffle.scheme.kind is WriteKind.ROUND_ROBIN:
        # Another attempt may deal its rows otherwise: whoever read a part of the old one must read the new one.
        for consumer in runs.values():
            if edge_id in consumer.reads.by_edge and not consumer.finished:
                for record in consumer.tasks:
                    if isinstance(record.state, Running):
                        record.state = Waiting()
                    error = error or _reset(runs, shuffles, consumer, record)
    return error


def producer_of(runs: Mapping[str, StageRun], edge_id: str) -> StageRun:
    """The stage that writes an edge."""
    return next(run for run in runs.values() if any(output.edge_id == edge_id for output in run.outputs))


def _reset(
    runs: Mapping[str, StageRun], shuffles: ShuffleCoordinator, run: StageRun, record: TaskRecord
) -> SabotSQLError | None:
    if not isinstance(record.state, Finished):
        return None
    record.state = Waiting()
    record.failures += 1
    if record.failures >= MAX_ATTEMPTS:
        stage, attempt = run.stage.stage_id, record.next_attempt - 1
        message = f"the output of task {stage}_{record.index} was lost {record.failures} times"
        return AgentError(message, stage=stage, task=record.index, attempt=attempt)
    for edge_id, reads in run.reads.by_edge.items():
        shuffle = shuffles.edge(edge_id)
        if shuffle.released:
            shuffle.released = False
            shuffle.outputs.clear()
        for producer in sorted(set(reads[record.index].producers) & set(shuffle.missing())):
            error = rerun(runs, shuffles, edge_id, producer)
            if error is not None:
                return error
    return None


def shown_error(failure: TaskFailure) -> SabotSQLError:
    """The error of a failed task as the user gets it: with its place where it is not the user's own."""
    if failure.kind in (FailureKind.USER, FailureKind.RESOURCE, FailureKind.DEADLINE, FailureKind.CANCELLED):
        return failure.error
    task_id = failure.id
    return AgentError(
        f"task {task_id.stage}_{task_id.task} failed on agent {failure.agent_id}",
        agent=failure.agent_id,
        stage=task_id.stage,
        task=task_id.task,
        attempt=task_id.attempt,
        remote_message=failure.error.message,
        code=FRAGMENT_FAILED,
    )
