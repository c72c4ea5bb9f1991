"""Who keeps the journal of a query, so that another coordinator can go on with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sabot_planner import QueryPlan
from sabot_sql.coordinator.execution import Execution
from sabot_sql.coordinator.journal import Journal, JournalEntry, QueryOpening, opening_line
from sabot_sql.coordinator.messages import Fail, PlanRevised, RevisePlan
from sabot_sql.coordinator.query_state import QueryPhase


class Keeper(Protocol):
    """Keeps the journal of a query, and with it what its stages committed."""

    @property
    def kept_segments(self) -> str:
        """The directory where committed outputs are kept as long as the journal is."""
        ...

    def earlier(self, opening: QueryOpening) -> Journal | None:
        """The journal of an earlier coordinator that had begun just this."""
        ...

    def begin(self, opening: QueryOpening) -> None:
        """The query begins from its start: a journal from before counts no more."""
        ...

    def note(self, entry: JournalEntry) -> None:
        """An event was handled. Called by the thread that drives the query; it must not wait for long."""
        ...


def resumed(journal: Journal, plan: QueryPlan) -> tuple[Execution, QueryPlan] | None:
    """The execution of ``journal`` after its last event, and its plan as it was revised by then.

    None where it had failed, or where today's planner answers otherwise than the journal says: then it is to begin
    anew.
    """
    execution = Execution(journal.opening)
    revised: dict[int, QueryPlan] = {}
    for entry in journal.entries:
        if isinstance(entry.event, PlanRevised):
            answer = revised.get(entry.event.number, plan)
            graph = entry.event.operator_graph
            if graph is not None and answer.operator_graph != graph:
                return None
            plan = answer if graph is not None else plan
        for command in execution.handle(entry.event, entry.at_ms):
            if isinstance(command, Fail):
                return None
            if isinstance(command, RevisePlan):
                revised[command.number] = plan.revise(command.facts, command.started)
    ended = execution.state.phase
    return (execution, plan) if ended.runs or ended is QueryPhase.FINISHED else None


def same_query(one: QueryOpening, other: QueryOpening) -> bool:
    """Whether both begin the same query with the same plan, on whatever agents."""
    return opening_line(replace(one, agents=())) == opening_line(replace(other, agents=()))
