"""The controller: how many tasks a stage is worth and which agent runs which, with the reason in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sabot_sql.plan_view.units import bytes_text

_MOST_RANGES = 128
"""Bounds come from samples of a thousand keys a task: more ranges would differ too much in size."""


@dataclass(frozen=True, slots=True)
class WorkerCount:
    """How many tasks, and why."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class TaskDemand:
    """A task to place: the bytes it reads, and where they lie. ``pinned`` is the only agent that can run it."""

    task: int
    input_bytes: int = 0
    bytes_by_agent: Mapping[str, int] = field(default_factory=dict)
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Task → agent, and why."""

    agents: Mapping[int, str]
    reason: str


@dataclass(frozen=True, slots=True)
class DBOSParallelController:
    """Decides parallelism and placement from bytes, memory grants and agents; it measures and does nothing itself.

    ``coalesce_bytes``: a task is worth its cost from this much input on. ``grant_bytes``: the working set of one task
    should stay below it. ``few_rows``: fewer are sorted by one task sooner than several are started. 0 switches a rule
    off.
    """

    coalesce_bytes: int = 4 << 20
    grant_bytes: int = 512 << 20
    few_rows: int = 4096

    def calculate_optimal_worker_count(self, input_bytes: int, *, planned: int, most: int) -> WorkerCount:
        """Tasks for ``input_bytes`` of measured input: ``planned``, fewer for little, up to ``most`` for much."""
        needed = min(most, -(-input_bytes // self.grant_bytes)) if self.grant_bytes else 1
        if needed > planned:
            return WorkerCount(
                needed, f"{needed} tasks keep {bytes_text(input_bytes)} within {bytes_text(self.grant_bytes)} each"
            )
        worth = max(1, -(-input_bytes // self.coalesce_bytes)) if self.coalesce_bytes else planned
        count = max(1, needed, min(planned, most, worth))
        if count < planned:
            return WorkerCount(count, f"{bytes_text(input_bytes)} are worth {count} of {planned} tasks")
        return WorkerCount(count, f"{planned} tasks as planned")

    def calculate_range_count(self, rows: int, input_bytes: int, *, planned: int) -> WorkerCount:
        """Ranges for an edge of ``rows`` rows that ``planned`` ranges were meant for, where there is enough to sort."""
        if planned > 1 and rows < self.few_rows:
            return WorkerCount(1, f"{rows} rows are few: one range")
        return self.calculate_optimal_worker_count(input_bytes, planned=planned, most=max(planned, _MOST_RANGES))

    def assign_tasks_to_agents(self, tasks: Sequence[TaskDemand], agents: Sequence[str]) -> Assignment:
        """Spread ``tasks`` over ``agents``: each goes where load and bytes to move are least together.

        Tasks of unknown size count alike. Large ones are placed first. Ties go round in the order of ``agents``.

        Raises:
            ValueError: there are no agents.
        """
        if not agents:
            raise ValueError("no agents to assign tasks to")
        unit = max(1, max((task.input_bytes for task in tasks), default=1))
        load = dict.fromkeys(agents, 0)
        placed: dict[int, str] = {}
        moved = 0
        for task in sorted(tasks, key=lambda t: -t.input_bytes):
            size = task.input_bytes or unit
            candidates = [task.pinned] if task.pinned is not None else agents
            best = min(candidates, key=lambda agent: self._cost(task, size, agent, load.get(agent, 0)))
            placed[task.task] = best
            load[best] = load.get(best, 0) + size
            moved += sum(count for agent, count in task.bytes_by_agent.items() if agent != best)
        spread = len(set(placed.values()))
        return Assignment(placed, f"{len(tasks)} tasks on {spread} of {len(agents)} agents, {moved} bytes to move")

    @staticmethod
    def _cost(task: TaskDemand, size: int, agent: str, load: int) -> int:
        away = sum(count for holder, count in task.bytes_by_agent.items() if holder != agent)
        return load + size + away
