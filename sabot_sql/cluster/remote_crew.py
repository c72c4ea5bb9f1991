"""The agents of a cluster, as a session's pool wants them."""

from __future__ import annotations

import secrets
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import sabot_native
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.crew import Check
from sabot_sql.cluster.provider import Launch, LaunchedAgent, Provider
from sabot_sql.cluster.remote_agent import RemoteAgent
from sabot_sql.cluster.uploads import Uploads
from sabot_sql.errors import AgentError
from sabot_sql.protocol.handshake import Hello, own_versions, ticket_key
from sabot_sql.protocol.members import AgentGrant
from sabot_sql.transport.all_hosts import AllHosts

_INTRODUCE_SECONDS = 15.0
_DIALS_AT_A_TIME = 64


class RemoteCrew:
    """See :class:`~sabot_sql.agent.crew.Crew`. ``provider`` is stopped with it."""

    heal_seconds = 0.0
    """A host that is gone would be waited for by every query."""

    def __init__(
        self,
        provider: Provider,
        count: int,
        lease_seconds: float,
        manager: sabot_native.ShuffleManager,
        lost: Callable[[str], None],
    ) -> None:
        self._provider = provider
        self._count = count
        self._lease_ms = int(lease_seconds * 1e3)
        self._manager = manager
        self._tell_lost = lost
        self._session_id = uuid.uuid4().hex
        self._secret = secrets.token_bytes(32)
        self._launched = False
        self._agents: dict[str, RemoteAgent] = {}
        self._dialling: set[str] = set()
        self.transport = AllHosts(
            "session",
            manager,
            ticket_key(provider.credentials.token, self._secret),
            provider.credentials,
        )
        self.writer = Uploads(self._session_id, self._secret, provider.credentials, self._members)

    @property
    def grants(self) -> tuple[AgentGrant, ...]:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        return tuple(agent.grant for agent in self._members())

    def start(self, names: Sequence[str], check: Check) -> Sequence[Agent]:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        first, self._launched = not self._launched, True
        launch = (self._provider.launch if first else self._provider.scale)(self._count, check)
        if first:
            self._provider.watch(self._gone)
        free = self._free(launch)[: len(names)]
        if not free:
            raise AgentError(f"no service of the cluster is free: {_said(launch.skipped) or 'all have an agent'}")
        agents = [self._agent(name, launched) for name, launched in zip(names, free, strict=False)]
        failures: list[tuple[str, str]] = list(launch.skipped)
        try:
            ready, errors = self._dialled(agents, check)
        finally:
            self._dialling -= {agent.launched.name for agent in agents}
        failures += [(name, error.message) for name, error in errors]
        if not ready:
            raise errors[0][1]
        if first and failures:
            warnings.warn(f"agents of the cluster are skipped: {_said(failures)}", RuntimeWarning, stacklevel=2)
        return ready

    def introduce(self, started: Sequence[Agent], others: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        new, known = _remote(started), [agent for agent in _remote(others) if agent.readable]
        for agent in new:
            self.transport.learn(agent.place_seen_from_session)
            agent.introduce([other.place for other in (*new, *known) if other is not agent])
        living = [agent for agent in known if agent.alive]
        for agent in living:
            agent.introduce([other.place for other in new])
        give_up = time.monotonic() + _INTRODUCE_SECONDS
        pairs = [(reader, read) for reader in new for read in (*new, *living) if reader is not read]
        pairs += [(reader, read) for reader in living for read in new]
        for reader, read in pairs:
            reason = reader.reaches(read.agent_id, max(0.0, give_up - time.monotonic()))
            if reason != "" and reader.alive and read.alive:
                said = f"it did not say within {_INTRODUCE_SECONDS:.0f} s" if reason is None else reason
                raise AgentError(
                    f"agent {reader.agent_id} at {reader.launched.name} cannot reach agent {read.agent_id} as "
                    f"{read.place.host}:{read.place.port}: {said}",
                    agent=reader.agent_id,
                    hint="start that one with --advertise and a name that the others can reach",
                )

    def check_leases(self, agents: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        for agent in _remote(agents):
            agent.check_lease()

    def rest(self, agents: Sequence[Agent]) -> None:
        """Nothing: the memory of services is not the session's. See :class:`~sabot_sql.agent.crew.Crew`."""

    def forget(self, gone: Agent, others: Sequence[Agent]) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        self.transport.forget(gone.agent_id)
        for other in _remote(others):
            other.detach(gone.agent_id)
        self._agents.pop(gone.agent_id, None)
        gone.close()

    def close(self) -> None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        self.writer.close()
        self._provider.stop()

    def _lost(self, agent_id: str) -> None:
        """Readers need not find out by themselves that nobody answers."""
        gone = self._agents.get(agent_id)
        if gone is not None and not gone.readable:
            self.transport.lose(agent_id)
            for other in self._members():
                other.detach(agent_id)
        self._tell_lost(agent_id)

    def _members(self) -> list[RemoteAgent]:
        return [agent for agent in tuple(self._agents.values()) if agent.alive]

    def _free(self, launch: Launch) -> list[LaunchedAgent]:
        taken = {agent.launched.name for agent in self._members()} | self._dialling
        return [launched for launched in launch.agents if launched.name not in taken]

    def _agent(self, agent_id: str, launched: LaunchedAgent) -> RemoteAgent:
        hello = Hello(own_versions(), self._session_id, agent_id, self._secret, False, 0, self._lease_ms)
        self._dialling.add(launched.name)
        return RemoteAgent(launched, hello, self._provider.credentials, self._lost)

    def _dialled(
        self, agents: Sequence[RemoteAgent], check: Check
    ) -> tuple[list[RemoteAgent], list[tuple[str, AgentError]]]:
        def dial(agent: RemoteAgent) -> AgentError | None:
            try:
                agent.wait_ready(check)
            except AgentError as error:
                agent.close()
                return error
            return None

        with ThreadPoolExecutor(min(_DIALS_AT_A_TIME, len(agents)), "sabot-dial") as threads:
            errors = list(threads.map(dial, agents))
        ready = [agent for agent, error in zip(agents, errors, strict=True) if error is None]
        self._agents.update({agent.agent_id: agent for agent in ready})
        return ready, [
            (agent.launched.name, error) for agent, error in zip(agents, errors, strict=True) if error is not None
        ]

    def _gone(self, name: str, reason: str) -> None:
        for agent in self._members():
            if agent.launched.name == name:
                agent.lose(reason)


def _remote(agents: Sequence[Agent]) -> list[RemoteAgent]:
    return [agent for agent in agents if isinstance(agent, RemoteAgent)]


def _said(reasons: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons)
