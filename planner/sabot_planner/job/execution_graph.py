"""The execution graph: a job graph expanded to tasks and the connections between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sabot_planner.job.operators import ShuffleEdge, ShuffleEdgeType

if TYPE_CHECKING:
    from sabot_planner.job.job_graph import JobGraph


@dataclass(frozen=True, slots=True)
class Task:
    """Task ``index`` of the ``parallelism`` tasks of an operator."""

    operator_id: str
    index: int
    parallelism: int

    @property
    def task_id(self) -> str:
        """Unique within a query."""
        return f"{self.operator_id}_{self.index}"


@dataclass(frozen=True, slots=True)
class TaskInput:
    """What one task reads of one edge: partitions [first, last) of the producer tasks ``producers``, in that order."""

    edge_id: str
    producers: tuple[int, ...]
    first_partition: int
    last_partition: int


@dataclass(frozen=True, slots=True)
class ExecutionGraph:
    """All tasks of a job graph; ``chains`` are runs of operators joined by FORWARD edges only, run in one place."""

    job_graph: JobGraph
    tasks: tuple[Task, ...]

    def tasks_of(self, operator_id: str) -> tuple[Task, ...]:
        """The tasks of one operator, by index."""
        return tuple(task for task in self.tasks if task.operator_id == operator_id)

    def connections(self, edge_id: str) -> tuple[tuple[str, str], ...]:
        """(producer task id, consumer task id) of every channel of an edge: 1:1 for FORWARD, else all to all."""
        edge = next(e for e in self.job_graph.edges if e.edge_id == edge_id)
        sources, targets = self.tasks_of(edge.source), self.tasks_of(edge.target)
        if edge.edge_type is ShuffleEdgeType.FORWARD:
            return tuple((s.task_id, t.task_id) for s, t in zip(sources, targets, strict=True))
        return tuple((s.task_id, t.task_id) for s in sources for t in targets)

    def inputs(self, task: Task) -> tuple[TaskInput, ...]:
        """What ``task`` reads, one entry per incoming edge."""
        return tuple(
            task_input(edge, task, self.job_graph.operator(edge.source).parallelism)
            for edge in self.job_graph.inputs_of(task.operator_id)
        )


def task_input(edge: ShuffleEdge, task: Task, producers: int) -> TaskInput:
    """The part of ``edge`` that ``task`` reads; contiguous runs of partitions keep ranges in order."""
    every = tuple(range(producers))
    if edge.edge_type is ShuffleEdgeType.FORWARD:
        return TaskInput(edge.edge_id, (task.index,), 0, edge.partitions)
    if edge.edge_type is ShuffleEdgeType.BROADCAST:
        return TaskInput(edge.edge_id, every, 0, edge.partitions)
    first = task.index * edge.partitions // task.parallelism
    last = (task.index + 1) * edge.partitions // task.parallelism
    return TaskInput(edge.edge_id, every, first, last)


def to_execution_graph(job_graph: JobGraph) -> ExecutionGraph:
    """Expand every operator to its tasks, producers before consumers."""
    tasks = tuple(
        Task(operator_id, index, job_graph.operator(operator_id).parallelism)
        for operator_id in job_graph.topological_order()
        for index in range(job_graph.operator(operator_id).parallelism)
    )
    return ExecutionGraph(job_graph, tasks)
