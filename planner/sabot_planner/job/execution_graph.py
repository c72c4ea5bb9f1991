"""The execution graph: an operator graph expanded to tasks and the connections between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sabot_planner.errors import InvalidGraph
from sabot_planner.job.operators import Operator, ShuffleEdge, ShuffleEdgeType


@dataclass(frozen=True, slots=True)
class Task:
    """Task ``index`` of the ``parallelism`` tasks of an operator.

    ``runs_in``: the id of the task that computes it as part of its own, where FORWARD edges chain them; its own id
    where it is computed by itself, empty where that is not known.
    """

    operator_id: str
    index: int
    parallelism: int
    runs_in: str = ""

    @property
    def task_id(self) -> str:
        """Unique within a query."""
        return f"{self.operator_id}_{self.index}"


@dataclass(frozen=True, slots=True)
class ExecutionGraph:
    """All tasks of an operator graph, producers before consumers, and the edges between their operators."""

    edges: tuple[ShuffleEdge, ...]
    tasks: tuple[Task, ...]

    def tasks_of(self, operator_id: str) -> tuple[Task, ...]:
        """The tasks of one operator, by index."""
        return tuple(task for task in self.tasks if task.operator_id == operator_id)

    def connections(self, edge_id: str) -> tuple[tuple[str, str], ...]:
        """(producer task id, consumer task id) of every channel of an edge: 1:1 for FORWARD, else all to all.

        Raises:
            InvalidGraph: there is no edge of that id.
        """
        edge = next((e for e in self.edges if e.edge_id == edge_id), None)
        if edge is None:
            known = ", ".join(e.edge_id for e in self.edges) or "none"
            raise InvalidGraph(f"the graph has no edge {edge_id!r}; it has {known}")
        sources, targets = self.tasks_of(edge.source), self.tasks_of(edge.target)
        if edge.edge_type is ShuffleEdgeType.FORWARD:
            return tuple((s.task_id, t.task_id) for s, t in zip(sources, targets, strict=True))
        return tuple((s.task_id, t.task_id) for s in sources for t in targets)


def expanded(operators: Iterable[Operator], edges: tuple[ShuffleEdge, ...]) -> ExecutionGraph:
    """Expand operators, which are given producers before consumers, to their tasks."""
    tasks = [
        Task(operator.operator_id, index, operator.parallelism)
        for operator in operators
        for index in range(operator.parallelism)
    ]
    return ExecutionGraph(edges, tuple(tasks))
