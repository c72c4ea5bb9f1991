"""Tells shuffle managers what to write and where to read, for tasks that are placed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sabot_planner.job.execution_graph import ExecutionGraph, Task
from sabot_planner.job.operators import ShuffleEdge
from sabot_sql import arguments
from sabot_sql.coordinator.metrics import MetricsRegistry, shuffled
from sabot_sql.errors import JobError
from sabot_sql.jobs.shuffle_manager import Location, ShuffleManager, as_text

_NUMBERED = re.compile(r"task_(\d+)\Z")


class ShuffleCoordinator:
    """Knows the edges of an execution graph, where each task runs, and which manager has its rows.

    In place of a manager in another process, or on another host, stands its location (``agent:host:port``): a
    coordinator there tells it.
    """

    def __init__(self, execution_graph: ExecutionGraph) -> None:
        if not isinstance(execution_graph, ExecutionGraph):
            reason = f"{arguments.shown(execution_graph)} is no execution graph: job.to_execution_graph() makes one"
            raise JobError(reason, code="NOT_A_GRAPH")
        self.execution_graph = execution_graph
        self._locations: dict[str, Location] = {}
        self._managers: dict[str, ShuffleManager] = {}
        self._tasks = {task.task_id: task for task in execution_graph.tasks}

    async def initialize(self, task_locations: Mapping[str, str | bytes]) -> None:
        """Take note of where each task runs: its id, or ``task_0`` for the first of the graph → ``agent:host:port``.

        Raises:
            JobError: no such task, or no such form of a location.
        """
        _check_mapping("task_locations", task_locations)
        located = {self._task(name).task_id: Location.parsed(place) for name, place in task_locations.items()}
        addresses: dict[str, Location] = {}
        for place in located.values():
            if addresses.setdefault(place.agent_id, place) != place:
                reason = f"agent {place.agent_id!r} is at {place} and at {addresses[place.agent_id]}"
                raise JobError(reason, code="LOCATION")
        self._locations = located

    async def register_shuffles_with_agents(self, managers: Mapping[str, ShuffleManager | str | bytes]) -> None:
        """Make every edge known to the managers of the agents that have tasks at either end of it.

        Raises:
            JobError: an agent that has tasks has neither a manager nor the location it was said to have.
        """
        self._managers = self._complete(managers)
        for edge in self.execution_graph.edges:
            for agent_id in self._here(edge):
                self._managers[agent_id].register_shuffle(
                    edge.source,
                    edge.keys,
                    edge.edge_type,
                    shuffle_id=edge.edge_id,
                    num_partitions=self._readers(edge),
                )

    async def set_task_locations(self, managers: Mapping[str, ShuffleManager | str | bytes]) -> None:
        """Tell each manager which agent has each task whose rows it may be asked for.

        Raises:
            JobError: an agent that has tasks has neither a manager nor the location it was said to have.
        """
        self._managers = self._complete(managers)
        for edge in self.execution_graph.edges:
            producers = {
                task.index: self._locations[task.task_id].agent_id
                for task in self.execution_graph.tasks_of(edge.source)
                if task.task_id in self._locations
            }
            for agent_id in self._here(edge):
                self._managers[agent_id].set_locations(edge.edge_id, producers, self._managers)

    def location(self, task_id: str) -> Location | None:
        """Where a task runs."""
        return self._locations.get(self._task(task_id).task_id)

    def get_shuffle_metrics(self) -> dict[str, Any]:
        """What was written to the managers here: totals, and for each edge by partition and by task.

        ``agents`` is the state of each manager's memory now. Edges that nothing was written to have zeros.
        """
        metrics = MetricsRegistry()
        for edge in self.execution_graph.edges:
            metrics.open(edge.edge_id, edge.edge_type.name, self._readers(edge))
        for manager in self._managers.values():
            metrics.absorb(manager.metrics)
        totals = shuffled(metrics.edges()).totals()
        return {
            **{f"total_{name}_shuffled": totals[name] for name in ("rows", "bytes", "batches")},
            "total_wait_ms": totals["wait_ms"],
            "total_spilled_bytes": totals["spilled_bytes"],
            "edges": metrics.to_json()["edges"],
            "agents": {agent_id: manager.memory() for agent_id, manager in self._managers.items()},
        }

    def _task(self, name: str) -> Task:
        found = self._tasks.get(as_text(name))
        numbered = _NUMBERED.match(as_text(name))
        if found is None and numbered and int(numbered[1]) < len(self.execution_graph.tasks):
            found = self.execution_graph.tasks[int(numbered[1])]
        if found is None:
            known = ", ".join(list(self._tasks)[:5])
            raise JobError(f"there is no task {as_text(name)!r}; there are {known} and so on", code="UNKNOWN_TASK")
        return found

    def _readers(self, edge: ShuffleEdge) -> int:
        return max(edge.partitions, len(self.execution_graph.tasks_of(edge.target)))

    def _agents_of(self, edge: ShuffleEdge) -> list[str]:
        ends = (*self.execution_graph.tasks_of(edge.source), *self.execution_graph.tasks_of(edge.target))
        found = (self._locations.get(task.task_id) for task in ends)
        return list(dict.fromkeys(place.agent_id for place in found if place is not None))

    def _here(self, edge: ShuffleEdge) -> list[str]:
        return [agent_id for agent_id in self._agents_of(edge) if agent_id in self._managers]

    def _complete(self, managers: Mapping[str, ShuffleManager | str | bytes]) -> dict[str, ShuffleManager]:
        _check_mapping("managers", managers)
        given = {as_text(agent_id): manager for agent_id, manager in managers.items()}
        places = {place.agent_id: place for place in self._locations.values()}
        missing = sorted(set(places) - set(given))
        if missing:
            reason = f"no manager and no location is given for {', '.join(missing)}, which have tasks"
            raise JobError(reason, code="UNKNOWN_AGENT")
        here: dict[str, ShuffleManager] = {}
        for agent_id, manager in given.items():
            if isinstance(manager, ShuffleManager):
                here[agent_id] = manager
                continue
            place = Location.parsed(manager)
            if places.get(agent_id, place) != place:
                reason = f"agent {agent_id!r} is at {place} now; its tasks were said to be at {places[agent_id]}"
                raise JobError(reason, code="LOCATION")
        return here


def _check_mapping(argument: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise JobError(f"{argument}={arguments.shown(value)} is no mapping, such as a dict", code="LOCATION")
