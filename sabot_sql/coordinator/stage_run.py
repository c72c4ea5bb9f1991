"""A stage that has been started: its tasks, what each reads and writes, and the state of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sabot_planner.job.job_graph import JobGraph
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


TaskState = Waiting | Running | Finished


@dataclass(slots=True)
class TaskRecord:
    """One task over all its attempts; ``next_attempt`` also numbers the splits of its outputs.

    ``avoid`` are agents that failed it, ``deaths`` counts those that died of it. ``relieved``: it ran out of memory
    before, and nothing else runs beside it now. ``skipped``: enough rows were there without it.
    """

    index: int
    state: TaskState = field(default_factory=Waiting)
    next_attempt: int = 0
    failures: int = 0
    deaths: int = 0
    avoid: frozenset[str] = frozenset()
    relieved: bool = False
    skipped: bool = False

    def is_current(self, attempt: int, agent: str) -> bool:
        """Whether an answer of this attempt from this agent is the one that is waited for."""
        state = self.state
        return isinstance(state, Running) and state.attempt == attempt and state.agent == agent


@dataclass(slots=True)
class StageRun:
    """A started stage. ``graph`` is the job graph as it was then: later revisions no longer change this stage.

    ``relieved``: one of its tasks ran out of memory, so that its tasks run one at a time.
    """

    stage: Stage
    graph: JobGraph
    reads: Reads
    outputs: tuple[EdgeOutput, ...]
    tasks: list[TaskRecord]
    announced: bool = False
    relieved: bool = False

    @property
    def finished(self) -> bool:
        """Every task has committed."""
        return all(isinstance(task.state, Finished) for task in self.tasks)

    @property
    def state(self) -> str:
        """The state as the plan shows it."""
        if self.finished:
            return "finished"
        return "waiting" if all(isinstance(task.state, Waiting) for task in self.tasks) else "running"
