"""The controller: how many tasks a stage is worth and which agent runs which, with the reason in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import TypeVar, overload

from sabot_planner.job.execution_graph import Task
from sabot_sql import arguments
from sabot_sql.errors import UsageError
from sabot_sql.plan_view.units import bytes_text

_Task = TypeVar("_Task", int, str)

_GUESSED_ROW_BYTES = 64

_SIDE_BY_SIDE = 4
"""So many queries of a host have memory at a time, at least."""

_MOST_RANGES = 128
"""Bounds come from samples of a thousand keys a task: more ranges would differ too much in size."""


class WorkerCount(int):
    """How many tasks: a number, which also says why."""

    reason: str

    def __new__(cls, count: int, reason: str) -> WorkerCount:
        """The number ``count`` with its ``reason``."""
        made = super().__new__(cls, count)
        made.reason = reason
        return made

    @property
    def count(self) -> int:
        """The number alone."""
        return int(self)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be done: the bytes to read, and the rows where they are known and their size is not.

    ``tasks`` is how many tasks somebody planned for it.
    """

    input_bytes: int = 0
    rows: int = 0
    tasks: int | None = None

    def __post_init__(self) -> None:
        arguments.whole("input_bytes", self.input_bytes)
        arguments.whole("rows", self.rows)
        if self.tasks is not None:
            arguments.whole("tasks", self.tasks, least=1)

    @property
    def estimated_bytes(self) -> int:
        """The bytes; of rows alone a guess."""
        return self.input_bytes or self.rows * _GUESSED_ROW_BYTES


@dataclass(frozen=True, slots=True)
class TaskDemand:
    """A task to place: the bytes it reads, and where they lie. ``pinned`` is the only agent that can run it."""

    task: int
    input_bytes: int = 0
    bytes_by_agent: Mapping[str, int] = field(default_factory=dict)
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """The memory that a query may use, and why."""

    memory_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Assignment(Mapping[_Task, str]):
    """Task → agent, and why."""

    agents: Mapping[_Task, str]
    reason: str

    def __getitem__(self, task: _Task) -> str:
        return self.agents[task]

    def __iter__(self) -> Iterator[_Task]:
        return iter(self.agents)

    def __len__(self) -> int:
        return len(self.agents)


@dataclass(frozen=True, slots=True)
class DBOSParallelController:
    """Decides parallelism and placement from bytes, memory grants and agents; it measures and does nothing itself.

    ``coalesce_bytes``: a task is worth its cost from this much input on. ``grant_bytes``: the working set of one task
    should stay below it. ``few_rows``: fewer are sorted by one task sooner than several are started. 0 switches a rule
    off. ``max_workers`` bounds the tasks of a workload, and the agents where none are named.
    """

    coalesce_bytes: int = 4 << 20
    grant_bytes: int = 512 << 20
    few_rows: int = 4096
    max_workers: int = 64

    def __post_init__(self) -> None:
        for name in ("coalesce_bytes", "grant_bytes", "few_rows"):
            arguments.whole(name, getattr(self, name))
        arguments.whole("max_workers", self.max_workers, least=1)

    def calculate_optimal_worker_count(
        self, workload: int | Workload, *, planned: int | None = None, most: int | None = None
    ) -> WorkerCount:
        """Tasks for a workload, or for so many bytes of input: ``planned``, fewer for little, up to ``most`` for much.

        Without them as many as are worth their cost, up to ``max_workers``.
        """
        asked = workload if isinstance(workload, Workload) else Workload(arguments.whole("workload", workload))
        input_bytes, most = asked.estimated_bytes, most or self.max_workers
        planned = planned or min(most, asked.tasks or most)
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

    def admit(
        self, *, asked_bytes: int, least_bytes: int, total_bytes: int, granted_bytes: int, running: int, before: int
    ) -> Grant | None:
        """The memory of a query that waits among others; None as long as it has to.

        ``granted_bytes`` of ``total_bytes`` are with the ``running`` ones, and ``before`` wait longer. What was asked
        for is given where it is free, and else a quarter of all of it: four run side by side rather than one alone.
        """
        if before:
            return None
        free_bytes = total_bytes - granted_bytes
        share_bytes = max(least_bytes, total_bytes // _SIDE_BY_SIDE)
        if not running:
            given = max(least_bytes, min(asked_bytes, total_bytes))
            return Grant(given if given <= share_bytes else max(share_bytes, given - share_bytes), "nothing else runs")
        if free_bytes < min(asked_bytes, share_bytes):
            return None
        given = max(least_bytes, min(asked_bytes, share_bytes))
        return Grant(given, f"{running} others run: {bytes_text(given)} of {bytes_text(free_bytes)} that are free")

    @overload
    def assign_tasks_to_agents(self, tasks: Sequence[TaskDemand], agents: Sequence[str]) -> Assignment[int]: ...

    @overload
    def assign_tasks_to_agents(self, tasks: Sequence[Task], agents: Sequence[str] | None = None) -> Assignment[str]: ...

    def assign_tasks_to_agents(
        self, tasks: Sequence[TaskDemand] | Sequence[Task], agents: Sequence[str] | None = None
    ) -> Assignment[int] | Assignment[str]:
        """Spread tasks over ``agents``; gives the agent of each task.

        The tasks of an execution graph are spread operator by operator, and what is chained into one task stays
        together; without ``agents`` these are ``agent-1``, ``agent-2`` and so on, as many as ``max_workers`` allows
        and there are tasks for. Tasks whose input was measured go where load and bytes to move are least together.

        Raises:
            UsageError: there are no agents, or what is given are no tasks or no names of agents.
        """
        _check_all("tasks", tasks, Task | TaskDemand)
        whole = [task for task in tasks if isinstance(task, Task)]
        if agents is not None:
            _check_all("agents", agents, str)
        if agents is None:
            groups = len({task.runs_in or task.task_id for task in whole})
            agents = [f"agent-{number}" for number in range(1, min(self.max_workers, max(1, groups)) + 1)]
        if whole:
            return _spread(whole, agents)
        return self._place([task for task in tasks if isinstance(task, TaskDemand)], agents)

    def _place(self, tasks: Sequence[TaskDemand], agents: Sequence[str]) -> Assignment[int]:
        """Spread ``tasks`` over ``agents``: each goes where load and bytes to move are least together.

        Tasks of unknown size count alike. Large ones are placed first. Ties go round in the order of ``agents``.

        Raises:
            UsageError: there are no agents.
        """
        if not agents:
            raise UsageError("no agents to assign tasks to", code="NO_AGENTS")
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


def _check_all(argument: str, values: object, kind: type | UnionType) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise UsageError(f"{argument}={arguments.shown(values)} is no list")
    for value in values:
        if not isinstance(value, kind):
            raise UsageError(f"{argument} has {arguments.shown(value)} in it, which is none of {argument}")


def _spread(tasks: Sequence[Task], agents: Sequence[str]) -> Assignment[str]:
    """Operator by operator onto the agents with the fewest tasks so far; chained tasks count and go as one."""
    if not agents:
        raise UsageError("no agents to assign tasks to", code="NO_AGENTS")
    load = dict.fromkeys(agents, 0)
    homes: dict[str, str] = {}
    for task in tasks:
        group = task.runs_in or task.task_id
        if group not in homes:
            homes[group] = min(agents, key=lambda agent: load[agent])
            load[homes[group]] += 1
    placed = {task.task_id: homes[task.runs_in or task.task_id] for task in tasks}
    used = len(set(placed.values()))
    together = len(tasks) - len(homes)
    reason = f"{len(tasks)} tasks on {used} of {len(agents)} agents, {max(load.values())} at most on one"
    return Assignment(placed, f"{reason}; {together} are chained into another and stay with it" if together else reason)
