"""Commands of the execution state machine to its driver, and the events that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.plan import EdgeFacts
from sabot_sql.coordinator.chained_stages import Stage
from sabot_sql.errors import SabotSQLError
from sabot_sql.protocol.members import MemberEvent
from sabot_sql.protocol.task_spec import EdgeInput, EdgeOutput, KeyQuestion, Outcome, SplitSpec, TaskId


@dataclass(frozen=True, slots=True)
class BeginQuery:
    """Tell an agent of the query and its edges, before it gets its first task."""

    agent_id: str
    edges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartTask:
    """Run one attempt of one task of ``stage``; the driver adds the slices of the sources."""

    id: TaskId
    agent_id: str
    stage: Stage
    graph: OperatorGraph
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

    @property
    def id(self) -> TaskId:
        """The number under which the agent answers."""
        return self.spec.id


@dataclass(frozen=True, slots=True)
class RevisePlan:
    """Ask the planner whether ``facts``, what was measured of finished edges, change the plan.

    Operators in ``started`` keep their ids and what they compute. The answer is a :class:`PlanRevised` of that number;
    no other stage is opened before.
    """

    number: int
    facts: Mapping[str, EdgeFacts]
    started: frozenset[str]


@dataclass(frozen=True, slots=True)
class NameKey:
    """Find out which key a heavy hitter is, if that is quick; the answer is a :class:`KeyNamed`.

    The edge stays until then.
    """

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


Work = StartTask | SplitOutput
"""What an agent answers with an outcome."""

Command = BeginQuery | Work | StopTask | RevisePlan | NameKey | ReleaseEdge | ReplaceAgent | Finish | Fail


@dataclass(frozen=True, slots=True)
class QueryStarted:
    """The agents are there: give them the first tasks."""


@dataclass(frozen=True, slots=True)
class QueryResumed:
    """Another coordinator goes on with the query, on ``agents`` of its own; those of the one before are gone.

    What was committed was kept, and every agent can read it. Nothing else of the time before is answered any more.
    """

    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanRevised:
    """The planner's answer to the :class:`RevisePlan` of that number; without a ``operator_graph`` the plan stays."""

    number: int
    operator_graph: OperatorGraph | None = None


@dataclass(frozen=True, slots=True)
class KeyNamed:
    """The key behind the hash of a heavy hitter, as people write it; None where it was not found in time."""

    edge_id: str
    key_hash: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class QueryAbandoned:
    """Nobody wants the answer any more: command nothing, and count off what agents still answer."""


Event = Outcome | MemberEvent | QueryStarted | QueryResumed | PlanRevised | KeyNamed | QueryAbandoned
"""All that an execution learns. Its state follows from its first plan and its events alone."""
