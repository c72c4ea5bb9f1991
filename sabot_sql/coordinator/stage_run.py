"""A stage that has been started: its tasks, what each reads and writes, and the state of each.

Everything here is frozen: only :mod:`sabot_sql.coordinator.query_state` puts another record in the place of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_sql.coordinator.chained_stages import Stage
from sabot_sql.coordinator.exchange_rules import Read, Reads
from sabot_sql.protocol.task_spec import EdgeOutput, TaskReport


@dataclass(frozen=True, slots=True)
class Waiting:
    """To be started, on ``preferred`` if that agent is free soon."""

    preferred: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """Given to ``agent``: ``reads`` are its parts of the incoming edges, which hold ``rows_in`` rows."""

    attempt: int
    agent: str
    started_ms: float
    reads: Mapping[str, Read]
    rows_in: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Committed; ``reads`` are the parts of the incoming edges that it was given."""

    attempt: int
    started_ms: float
    report: TaskReport
    reads: Mapping[str, Read]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Not needed: the tasks before it have as many rows as the reader wants. Its outputs are empty.

    ``attempt`` is a number that no attempt gets; ``reads`` are the parts of the incoming edges that nobody will read.
    """

    attempt: int
    reads: Mapping[str, Read]


TaskState = Waiting | Running | Finished | Skipped


class MemoryShare(StrEnum):
    """What a task shares the memory of its agent with."""

    SHARED = "shared"
    """Tasks of the same query on other agents run at the same time."""
    ALONE = "alone"
    """It ran out of memory before: no other task of the query runs beside it."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task over all its attempts; ``next_attempt`` also numbers the splits of its outputs.

    ``avoid`` are agents that failed it, ``deaths`` counts those that died of it.
    """

    index: int
    state: TaskState = field(default_factory=Waiting)
    next_attempt: int = 0
    failures: int = 0
    deaths: int = 0
    avoid: frozenset[str] = frozenset()
    memory: MemoryShare = MemoryShare.SHARED

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for this task."""
        return isinstance(self.state, Finished | Skipped)

    def is_current(self, attempt: int, agent: str) -> bool:
        """Whether an answer of this attempt from this agent is the one that is waited for."""
        state = self.state
        return isinstance(state, Running) and state.attempt == attempt and state.agent == agent


class StagePhase(StrEnum):
    """How far a stage has come."""

    OPEN = "open"
    """Its tasks run for the first time."""
    MEASURED = "measured"
    """All its tasks have committed, and its outputs were measured. Tasks whose output was lost may run again."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """A started stage. ``graph`` is the operator graph as it was then: later revisions no longer change this stage.

    ``done`` of its tasks have nothing left to do, ``alone`` of them ran out of memory: counted along, for both are
    asked for after every event.
    """

    stage: Stage
    graph: OperatorGraph
    reads: Reads
    outputs: tuple[EdgeOutput, ...]
    tasks: tuple[TaskRecord, ...]
    phase: StagePhase = StagePhase.OPEN
    done: int = 0
    alone: int = 0

    @property
    def finished(self) -> bool:
        """Whether no task is left to run."""
        return self.done == len(self.tasks)

    @property
    def one_at_a_time(self) -> bool:
        """Whether its tasks run one after the other, because one of them ran out of memory."""
        return self.alone > 0

    @property
    def state(self) -> str:
        """The state as the plan shows it."""
        if self.finished:
            return "finished"
        return "waiting" if all(isinstance(task.state, Waiting) for task in self.tasks) else "running"

    def reads_of(self, task: int) -> dict[str, Read]:
        """Edge → the part of it that a task reads, as the stage is cut now."""
        return {edge_id: reads[task] for edge_id, reads in self.reads.by_edge.items()}
