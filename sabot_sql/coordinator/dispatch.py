"""Which waiting task an idle agent takes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from sabot_planner.job.operators import Placement
from sabot_sql.coordinator.controller import TaskDemand
from sabot_sql.coordinator.edge_book import EdgeBook
from sabot_sql.coordinator.stage_run import StageRun, TaskRecord, Waiting

Choice = tuple[StageRun, TaskRecord, str]


def demand(run: StageRun, task: int, shuffles: EdgeBook) -> TaskDemand:
    """What ``task`` of ``run`` reads, and on which agents that lies."""
    held: dict[str, int] = {}
    for edge_id, reads in run.reads.by_edge.items():
        read = reads[task]
        for producer in read.producers:
            output = shuffles.edge(edge_id).outputs[producer]
            size_bytes = sum(output.partition_bytes[read.first : read.last])
            held[output.agent_id] = held.get(output.agent_id, 0) + size_bytes
    return TaskDemand(task, sum(held.values()), held)


def choose(runs: Iterable[StageRun], agents: Sequence[str], session_agent: str, busy: Container[str]) -> list[Choice]:
    """A task for each agent that is not ``busy``, stages and tasks in their order.

    First everyone takes what was meant for it, then whoever is still idle takes what waits for a busy one.
    """
    idle = [agent for agent in (*agents, session_agent) if agent not in busy]
    ready = [(run, task) for run in runs for task in run.tasks if isinstance(task.state, Waiting)] if idle else []
    choices: list[Choice] = []
    for own_only in (True, False):
        for agent in tuple(idle):
            for run, task in ready:
                if _may_run(run, task, agent, agents, session_agent, own_only):
                    choices.append((run, task, agent))
                    ready.remove((run, task))
                    idle.remove(agent)
                    break
    return choices


def _may_run(
    run: StageRun, task: TaskRecord, agent: str, agents: Sequence[str], session_agent: str, own_only: bool
) -> bool:
    if run.stage.placement is Placement.SESSION or agent == session_agent:
        return run.stage.placement is Placement.SESSION and agent == session_agent
    state = task.state
    if not isinstance(state, Waiting) or (agent in task.avoid and not set(agents) <= task.avoid):
        return False
    return state.preferred == agent or not own_only
