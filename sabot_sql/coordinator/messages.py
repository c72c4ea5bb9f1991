"""Commands of the execution state machine to its driver, and the events that are not outcomes of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sabot_planner.job.job_graph import JobGraph
from sabot_sql.coordinator.chained_stages import Stage
from sabot_sql.errors import SabotSQLError
from sabot_sql.protocol.members import MemberEvent
from sabot_sql.protocol.task_spec import EdgeInput, EdgeOutput, KeyQuestion, Outcome, SplitSpec, TaskId


@dataclass(frozen=True, slots=True)
class StartTask:
    """Run one attempt of one task of ``stage``; the driver adds the slices of the sources."""

    id: TaskId
    agent_id: str
    stage: Stage
    graph: JobGraph
    parallelism: int
    inputs: Mapping[str, EdgeInput]
    outputs: tuple[EdgeOutput, ...]


@dataclass(frozen=True, slots=True)
class StopTask:
    """Interrupt one attempt until it has answered: it was overtaken, and nobody wants what it makes."""

    id: TaskId
    agent_id: str


@dataclass(frozen=True, slots=True)
class SplitOutput:
    """Split a committed sampled output on the agent that holds it."""

    spec: SplitSpec
    agent_id: str


@dataclass(frozen=True, slots=True)
class NameKey:
    """Find out which key a heavy hitter is, if that is quick; the edge is still there."""

    question: KeyQuestion


@dataclass(frozen=True, slots=True)
class ReleaseEdge:
    """Nobody reads this edge any more."""

    edge_id: str


@dataclass(frozen=True, slots=True)
class ReplaceAgent:
    """This agent is lost; start another in its place if that is possible."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The sink has committed."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The query cannot be answered."""

    error: SabotSQLError


Command = StartTask | StopTask | SplitOutput | NameKey | ReleaseEdge | ReplaceAgent | Finish | Fail


Event = Outcome | MemberEvent
