"""The one registry of what was shuffled: rows, bytes, batches, spill and waits, by edge, partition and task.

Whoever commits rows records here what they were, be it the coordinator of a query or a shuffle manager that is driven
by hand. Results, the plan while it runs, ``sabot-sql top`` and a shuffle coordinator read it; nobody else adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any, Self

from sabot_sql.protocol.task_spec import OutputReport, TaskReport


@dataclass(frozen=True, slots=True)
class Figures:
    """What some outputs hold and cost; the tuples have an item for each partition.

    ``spilled_bytes`` were written to disk to make room for them, whoever's rows they were; ``wait_ms`` is how long
    their writers waited for that room.
    """

    rows: int = 0
    bytes: int = 0
    batches: int = 0
    spilled_bytes: int = 0
    wait_ms: float = 0.0
    partition_rows: tuple[int, ...] = ()
    partition_bytes: tuple[int, ...] = ()
    partition_batches: tuple[int, ...] = ()

    @classmethod
    def of(cls, output: OutputReport) -> Self:
        """Those of one output."""
        return cls(
            output.rows,
            output.size_bytes,
            sum(output.partition_batches),
            output.spilled_bytes,
            output.wait_ms,
            output.partition_rows,
            output.partition_bytes,
            output.partition_batches,
        )

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.rows + other.rows,
            self.bytes + other.bytes,
            self.batches + other.batches,
            self.spilled_bytes + other.spilled_bytes,
            self.wait_ms + other.wait_ms,
            *(
                added_up((mine, theirs), max(len(mine), len(theirs)))
                for mine, theirs in (
                    (self.partition_rows, other.partition_rows),
                    (self.partition_bytes, other.partition_bytes),
                    (self.partition_batches, other.partition_batches),
                )
            ),
        )

    def totals(self) -> dict[str, Any]:
        """All but what belongs to single partitions."""
        names = ("rows", "bytes", "batches", "spilled_bytes")
        return {**{name: getattr(self, name) for name in names}, "wait_ms": round(self.wait_ms, 3)}


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What the committed attempt of a task read, gave and cost; ``rows`` went to each of its outputs."""

    agent: str
    attempt: int
    rows_in: int
    rows: int
    bytes: int
    batches: int
    spilled_bytes: int
    wait_ms: float
    elapsed_ms: float

    @classmethod
    def of(cls, report: TaskReport) -> Self:
        """Those of one attempt."""
        written = total(map(Figures.of, report.outputs))
        return cls(
            report.agent_id,
            report.id.attempt,
            report.rows_in,
            report.outputs[0].rows if report.outputs else 0,
            written.bytes,
            written.batches,
            written.spilled_bytes,
            round(written.wait_ms, 3),
            round(report.elapsed_ms, 3),
        )


@dataclass(slots=True)
class MetricsRegistry:
    """Keeps the figures of the edges and tasks of one query, or of one shuffle manager."""

    _opened: dict[str, tuple[str, Figures]] = field(default_factory=dict)
    _edges: dict[str, dict[int, Figures]] = field(default_factory=dict)
    _tasks: dict[str, dict[int, TaskFigures]] = field(default_factory=dict)
    _sums: dict[str, Figures] = field(default_factory=dict, compare=False)

    def open(self, edge_id: str, edge_type: str, partitions: int) -> None:
        """An edge is about to be written; what was written to it before counts no more."""
        none = (0,) * partitions
        self._opened[edge_id] = edge_type, Figures(partition_rows=none, partition_bytes=none, partition_batches=none)
        self._edges[edge_id] = {}
        self._sums.pop(edge_id, None)

    def wrote(self, edge_id: str, task: int, figures: Figures) -> None:
        """A task has committed its output; an earlier one of its own counts no more."""
        self._edges.setdefault(edge_id, {})[task] = figures
        self._sums.pop(edge_id, None)

    def wrote_more(self, edge_id: str, task: int, figures: Figures) -> None:
        """A task has committed more rows."""
        self.wrote(edge_id, task, self._edges.get(edge_id, {}).get(task, Figures()) + figures)

    def split(self, edge_id: str, task: int, figures: Figures) -> None:
        """The output of a task was cut into ranges: its rows lie otherwise, and cost what both writes did."""
        before = self._edges.get(edge_id, {}).get(task, Figures())
        cost = before.spilled_bytes + figures.spilled_bytes, before.wait_ms + figures.wait_ms
        self.wrote(edge_id, task, replace(figures, spilled_bytes=cost[0], wait_ms=cost[1]))

    def ran(self, stage_id: str, report: TaskReport) -> None:
        """An attempt of a task has committed; an earlier one counts no more."""
        self._tasks.setdefault(stage_id, {})[report.id.task] = TaskFigures.of(report)

    def began_anew(self, stage_id: str) -> None:
        """No attempt of a stage's tasks counts any more."""
        self._tasks.pop(stage_id, None)

    def edge(self, edge_id: str) -> Figures | None:
        """The sums over the tasks that have written to an edge; None while none has."""
        by_task = self._edges.get(edge_id)
        if not by_task:
            return None
        if edge_id not in self._sums:
            self._sums[edge_id] = total(by_task.values())
        return self._sums[edge_id]

    def task(self, stage_id: str, task: int) -> TaskFigures | None:
        """What a task has done; None before it has committed."""
        return self._tasks.get(stage_id, {}).get(task)

    def edges(self) -> dict[str, Figures]:
        """Edge → its sums, for those that were written to."""
        return {edge_id: figures for edge_id in self._edges if (figures := self.edge(edge_id)) is not None}

    def absorb(self, other: MetricsRegistry) -> None:
        """Count what another registry has of the edges that were opened here as well."""
        for edge_id in self._opened:
            for task, figures in other._edges.get(edge_id, {}).items():
                self.wrote_more(edge_id, task, figures)

    def to_json(self) -> dict[str, Any]:
        """``edges``, each with its partitions and tasks, and ``operators`` with the tasks of each, as JSON values."""
        edges = {
            edge_id: {
                "edge_type": edge_type,
                **figures.totals(),
                "partition_rows": list(figures.partition_rows),
                "partition_bytes": list(figures.partition_bytes),
                "partition_batches": list(figures.partition_batches),
                "tasks": {str(task): written.totals() for task, written in sorted(self._edges[edge_id].items())},
            }
            for edge_id, (edge_type, nothing) in self._opened.items()
            for figures in (self.edge(edge_id) or nothing,)
        }
        operators = {
            stage_id: {f"{stage_id}_{task}": asdict(figures) for task, figures in sorted(by_task.items())}
            for stage_id, by_task in self._tasks.items()
        }
        return {"edges": edges, "operators": operators}


def total(figures: Iterable[Figures]) -> Figures:
    """The sum of all."""
    return reduce(Figures.__add__, figures, Figures())


def added_up(rows: Iterable[tuple[int, ...]], length: int) -> tuple[int, ...]:
    """The sums of the first, second and so on numbers of ``rows``; missing ones are nothing."""
    totals = [0] * length
    for values in rows:
        for index, value in enumerate(values[:length]):
            totals[index] += value
    return tuple(totals)


def shuffled(edges: Mapping[str, Figures], *, without: str = "") -> Figures:
    """The sums over edges, all but the one of that id."""
    whole = (figures for edge_id, figures in edges.items() if edge_id != without)
    return total(replace(f, partition_rows=(), partition_bytes=(), partition_batches=()) for f in whole)
