"""What has to run again when an attempt failed or a committed output was lost, and when it was too often."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sabot_sql.coordinator.edge_book import EdgeBook
from sabot_sql.coordinator.stage_run import Running, StageRun, TaskRecord
from sabot_sql.errors import FRAGMENT_FAILED, AgentError, SabotSQLError
from sabot_sql.protocol.task_spec import FailureKind, TaskFailure, WriteKind

MAX_ATTEMPTS = 4
MAX_AGENT_DEATHS = 2
"""A task that two agents died of would take down the others as well."""

TaskKey = tuple[str, int]
"""Stage and index."""


@dataclass(frozen=True, slots=True)
class Reruns:
    """What a loss means: outputs that count no more, and tasks that have to run again.

    ``outputs`` are (edge, producer task). ``edges`` were released and are written again, by all their producers.
    ``tasks`` had committed; ``interrupted`` run, and would mix rows of the lost output with those of the next.
    """

    outputs: tuple[tuple[str, int], ...]
    edges: tuple[str, ...]
    tasks: tuple[TaskKey, ...]
    interrupted: tuple[TaskKey, ...]


def failed_too_often(record: TaskRecord, stage: str, agent_id: str, reason: SabotSQLError) -> AgentError | None:
    """The error that ends the query, where a task that failed once more, now with ``reason``, gets no other attempt."""
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


def lost_work(runs: Mapping[str, StageRun], shuffles: EdgeBook, lost: Iterable[tuple[str, int]]) -> Reruns | AgentError:
    """What has to run again so that the ``lost`` outputs, (edge, producer task), are there again.

    A task needs its own inputs for that, so that a loss can go back to the sources. Gives the error that ends the query
    where an output was lost too often.
    """
    waiting = deque(lost)
    outputs: dict[tuple[str, int], None] = {}
    edges: dict[str, None] = {}
    tasks: dict[TaskKey, None] = {}
    interrupted: dict[TaskKey, None] = {}

    def run_again(run: StageRun, record: TaskRecord) -> None:
        key = (run.stage.stage_id, record.index)
        if not record.done or key in tasks:
            return
        tasks[key] = None
        for shuffle in map(shuffles.edge, run.reads.by_edge):
            if shuffle.released:
                edges[shuffle.edge_id] = None
            # An edge is read once it is whole, by each of its readers.
            missing = range(shuffle.producers) if shuffle.released else shuffle.missing()
            waiting.extend((shuffle.edge_id, producer) for producer in missing)

    while waiting:
        edge_id, producer = waiting.popleft()
        shuffle = shuffles.edge(edge_id)
        outputs[shuffle.edge_id, producer] = None
        run = producer_of(runs, shuffle.edge_id)
        run_again(run, run.tasks[producer])
        if not waiting:
            for consumer in _mixing(runs, shuffles, {edge_id for edge_id, _ in outputs}, tasks):
                for record in consumer.tasks:
                    if isinstance(record.state, Running):
                        interrupted[consumer.stage.stage_id, record.index] = None
                    run_again(consumer, record)
    for stage_id, index in tasks:
        record = runs[stage_id].tasks[index]
        if record.failures + 1 >= MAX_ATTEMPTS:
            message = f"the output of task {stage_id}_{index} was lost {record.failures + 1} times"
            return AgentError(message, stage=stage_id, task=index, attempt=record.next_attempt - 1)
    return Reruns(tuple(outputs), tuple(edges), tuple(tasks), tuple(interrupted))


def _mixing(
    runs: Mapping[str, StageRun], shuffles: EdgeBook, edges: Container[str], tasks: Container[TaskKey]
) -> Iterator[StageRun]:
    """The unfinished stages that read rows dealt round of ``edges``, which are written again.

    Another attempt may deal its rows otherwise: whoever read a part of the old one must read the new one.
    """
    for run in runs.values():
        read = {shuffles.written(edge_id) for edge_id in run.reads.by_edge}
        dealt = [e for e in read if e in edges and shuffles.edge(e).scheme.kind is WriteKind.ROUND_ROBIN]
        if dealt and not all(task.done and (run.stage.stage_id, task.index) not in tasks for task in run.tasks):
            yield run


def producer_of(runs: Mapping[str, StageRun], edge_id: str) -> StageRun:
    """The stage that writes an edge."""
    return next(run for run in runs.values() if any(output.edge_id == edge_id for output in run.outputs))


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
