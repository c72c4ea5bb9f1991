"""Agents that are processes of this host, started by the session; they map each other's memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import sabot_native
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.agent_instance import InstanceConfig
from sabot_sql.agent.crew import Check
from sabot_sql.agent.process_agent import Peer, ProcessAgent
from sabot_sql.errors import AgentError
from sabot_sql.transport.interface import Transport
from sabot_sql.transport.this_host import ThisHost


class ProcessCrew:
    """See :class:`~sabot_sql.agent.crew.Crew`.

    ``session`` is the session's own agent, which reads and is read like a process; ``lost`` is told of agents that end.
    """

    heal_seconds = 2.0
    writer = None
    grants = None

    def __init__(
        self,
        manager: sabot_native.ShuffleManager,
        session: Peer,
        directory: Path,
        config_of: Callable[[str], InstanceConfig],
        lost: Callable[[str], None],
    ) -> None:
        self._manager = manager
        self._session = session
        self._directory = directory
        self._config_of = config_of
        self._lost = lost
        self.transport: Transport = ThisHost(manager)

    def start(self, names: Sequence[str], check: Check) -> Sequence[Agent]:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        started: list[ProcessAgent] = []
        ready: list[ProcessAgent] = []
        failures: list[AgentError] = []
        try:
            # All of them come up at the same time.
            started.extend(ProcessAgent(self._config_of(name), self._lost) for name in names)
            for agent in started:
                try:
                    agent.wait_ready(check)
                    ready.append(agent)
                except AgentError as error:
                    failures.append(error)
            if failures and not ready:
                raise failures[0]
        except BaseException:
            ready = []
            raise
        finally:
            not_ready = [agent for agent in started if agent not in ready]
            for agent in not_ready:
                agent.kill()
            for agent in not_ready:
                agent.close()
        return ready

    def introduce(self, started: Sequence[Agent], others: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        new, known = _processes(started), _processes(others)
        for agent in new:
            self._manager.attach_peer(agent.agent_id, agent.arena_descriptor, agent.spill_directory)
            agent.attach([self._session, *(_peer(other) for other in (*new, *known) if other is not agent)])
        for other in known:
            if other.alive:
                other.attach([_peer(agent) for agent in new])

    def check_leases(self, agents: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        for agent in _processes(agents):
            agent.check_lease()

    def rest(self, agents: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        for agent in _processes(agents):
            agent.rest()

    def forget(self, gone: Agent, others: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        self._manager.detach_peer(gone.agent_id)
        for other in _processes(others):
            other.detach(gone.agent_id)
        gone.close()
        shutil.rmtree(self._directory / gone.agent_id, ignore_errors=True)

    def close(self) -> None:
        """The directory of the session goes with the session."""


def _processes(agents: Sequence[Agent]) -> list[ProcessAgent]:
    return [agent for agent in agents if isinstance(agent, ProcessAgent)]


def _peer(agent: ProcessAgent) -> Peer:
    # The descriptor is sent by a copy: the kernel keeps the memory for as long as any process has it.
    return agent.agent_id, agent.spill_directory, agent.arena_descriptor
