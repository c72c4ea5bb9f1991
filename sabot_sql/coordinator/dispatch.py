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

    First everyone takes what was meant for it, then whoever is still idle takes what waits for a busy one. It is asked
    after every event, and so looks at each waiting task once.
    """
    idle = dict.fromkeys(agent for agent in (*agents, session_agent) if agent not in busy)
    if not idle:
        return []
    waiting = [(run, task) for run in runs for task in run.tasks if isinstance(task.state, Waiting)]
    chosen: dict[str, Choice] = {}
    left: list[tuple[StageRun, TaskRecord]] = []
    for run, task in waiting:
        agent = session_agent if run.stage.placement is Placement.SESSION else _preferred(task)
        if agent in idle and agent not in chosen and _may_run(run, task, agent, agents, session_agent):
            chosen[agent] = (run, task, agent)
        else:
            left.append((run, task))
    for agent in idle:
        if agent in chosen:
            continue
        for place, (run, task) in enumerate(left):
            if _may_run(run, task, agent, agents, session_agent):
                chosen[agent] = (run, task, agent)
                del left[place]
                break
    return [chosen[agent] for agent in idle if agent in chosen]


def _preferred(task: TaskRecord) -> str | None:
    return task.state.preferred if isinstance(task.state, Waiting) else None


def _may_run(run: StageRun, task: TaskRecord, agent: str, agents: Sequence[str], session_agent: str) -> bool:
    if run.stage.placement is Placement.SESSION or agent == session_agent:
        return run.stage.placement is Placement.SESSION and agent == session_agent
    return agent not in task.avoid or set(agents) <= task.avoid
