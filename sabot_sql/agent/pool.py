"""The agents of a session."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import sabot_native
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.agent_instance import AgentInstance, InstanceConfig
from sabot_sql.agent.crew import Crew
from sabot_sql.agent.key_finder import KeyFinder
from sabot_sql.agent.membership import Membership
from sabot_sql.agent.process_agent import Peer, agent_directories
from sabot_sql.agent.process_crew import ProcessCrew
from sabot_sql.agent.runner import Runner
from sabot_sql.agent.thread_agent import ThreadAgent
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.errors import AgentError
from sabot_sql.forks import never_freed_in_children
from sabot_sql.protocol.members import AgentGrant, Listener
from sabot_sql.protocol.task_spec import QueryContext, TaskSpec, Work
from sabot_sql.scratch import Scratch
from sabot_sql.transport.interface import Transport
from sabot_sql.transport.this_host import ThisHost

if TYPE_CHECKING:
    import duckdb

SESSION_AGENT = "session"

Hire = Callable[[sabot_native.ShuffleManager, Callable[[str], None]], Crew]
"""Makes a crew for the session's manager, and tells the second argument which agents are lost."""

_LEASE_CHECK_SECONDS = 0.25
_GAUGE_SECONDS = 0.25
"""So long is an agent waited for that is asked for its figures; the last ones are shown of one that is stuck."""


class AgentPool:
    """All agents of a session, and the one in its own process that reads what only this process holds.

    Every agent has a DuckDB instance of its own, unless it is a thread and alone. Thread agents share the session's
    shuffle manager, and its instance for what only that can read. All other agents have managers of their own; their
    crew starts them and lets them read each other. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        config: SessionConfig,
        connection: duckdb.DuckDBPyConnection,
        check: Callable[[], None] = lambda: None,
        hire: Hire | None = None,
    ) -> None:
        self.config = config
        never_freed_in_children(self)
        self._scratch = Scratch(config.spill_directory)
        self._connection = connection
        self._lock = threading.Lock()
        self._closed = False
        self._closing = threading.Event()
        self._numbers = itertools.count(1)
        # From before a new agent learns of the others until they all know it; and while a dead one is forgotten.
        self._introducing = threading.RLock()
        self._cursors: list[duckdb.DuckDBPyConnection] = []
        self._instances: list[AgentInstance] = []
        spill_directory, _ = agent_directories(self._scratch.path, SESSION_AGENT)
        shared = config.agent_count if config.isolation is Isolation.THREAD else 1
        self.manager = sabot_native.ShuffleManager(
            SESSION_AGENT, budget_bytes=config.shuffle_bytes * shared, spill_directory=spill_directory
        )
        self._crew: Crew | None = None
        self._membership = Membership(config.agent_count, self._start_one, self._introduce_one)
        try:
            if hire is not None:
                self._crew = hire(self.manager, self.lost)
            elif config.isolation is Isolation.PROCESS:
                session: Peer = (SESSION_AGENT, spill_directory, self.manager.arena_fd())
                self._crew = ProcessCrew(self.manager, session, self._scratch.path, self._instance_config, self.lost)
            if self._crew is not None:
                self._membership.heal_seconds = self._crew.heal_seconds
            self.transport: Transport = self._crew.transport if self._crew else ThisHost(self.manager)
            self.key_finder = KeyFinder(self._cursor(), self.manager, self.transport)
            self.session_agent: Agent = self._thread_agent(SESSION_AGENT)
            started = self._start(config.agent_count, check)
            self._introduce(started)
            self._membership.found(started)
        except BaseException:
            self.close()
            raise
        if self._crew is not None:
            threading.Thread(target=self._watch, args=(self._crew,), name="sabot-leases", daemon=True).start()

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The agents that can take work; the session's own is not among them."""
        return self._membership.members

    @property
    def grants(self) -> tuple[AgentGrant, ...] | None:
        """See :class:`~sabot_sql.agent.crew.Crew`."""
        return None if self._crew is None else self._crew.grants

    def agent(self, agent_id: str) -> Agent:
        """The agent of that id, dead or alive.

        Raises:
            AgentError: it is not of this pool any more.
        """
        for agent in (self.session_agent, *self._membership.known()):
            if agent.agent_id == agent_id:
                return agent
        raise AgentError(f"no agent {agent_id}", agent=agent_id)

    def enter(self, query_id: str, listener: Listener = lambda _: None) -> tuple[Agent, ...]:
        """A query begins on the agents that this gives; ``listener`` is told who joins them and who is lost.

        Agents that die from now on stay readable until :meth:`release`.
        """
        return self._membership.enter(query_id, listener)

    def release(self, query_id: str, edge_id: str | None = None) -> None:
        """Free what the query committed to the edge, or all of it: then no dead agent is kept for it any more."""
        for agent in (*self.agents, self.session_agent):
            agent.release(query_id, edge_id)
        if edge_id is None:
            self._membership.leave(query_id)
            self._forget()

    def lost(self, agent_id: str) -> None:
        """Somebody found out that an agent is gone; what it committed stays readable. See :class:`Membership`."""
        self._membership.lost(agent_id)

    def heal(self, check: Callable[[], None] = lambda: None) -> None:
        """Replace the agents that died since; for the time between queries. ``check`` raises to end the wait.

        Raises:
            AgentError: there is none, and none could be started.
            SessionClosed: the pool was closed.
        """
        self._membership.heal(check)
        self._forget()

    def memory(self) -> list[dict[str, Any]]:
        """What each agent's memory for rows that move goes through; threads share the session's."""
        asked = [self.session_agent, *(self.agents if self._crew is not None else ())]
        return [{"agent": agent.agent_id, **agent.metrics(_GAUGE_SECONDS)} for agent in asked]

    def rest(self) -> None:
        """Give up the memory that agents can take again, while no query runs on them; they stay members."""
        for instance in self._instances:
            instance.close()
        self.manager.trim()
        if self._crew is not None:
            self._crew.rest(self.agents)

    def close(self) -> None:
        """End all agents and remove their files. Nothing that they committed can be read afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        agents = [*self._membership.close(), self.session_agent]
        self._closing.set()
        for agent in agents:
            agent.end()
        for agent in agents:
            agent.close()
        if all(agent.ended for agent in agents):
            for instance in self._instances:
                instance.close()
            for cursor in self._cursors:
                cursor.close()
        if self._crew is not None:
            self._crew.close()
        self.manager.close()
        self._scratch.close()

    def __enter__(self) -> AgentPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self, crew: Crew) -> None:
        while not self._closing.wait(_LEASE_CHECK_SECONDS):
            crew.check_leases(self.agents)

    def _forget(self) -> None:
        """Give up the memory and the files of dead agents that no query can read any more."""
        with self._introducing:
            for agent in self._membership.unread():
                if self._crew is None:
                    agent.close()
                else:
                    self._crew.forget(agent, self.agents)

    def _start_one(self, check: Callable[[], None]) -> Agent:
        (agent,) = self._start(1, check)
        return agent

    def _introduce_one(self, agent: Agent) -> None:
        self._introduce([agent])

    def _start(self, count: int, check: Callable[[], None]) -> list[Agent]:
        names = [f"agent-{next(self._numbers)}" for _ in range(count)]
        if self._crew is None:
            return [self._thread_agent(name) for name in names]
        return list(self._crew.start(names, check))

    def _thread_agent(self, agent_id: str) -> ThreadAgent:
        """An agent that runs on an instance of its own what can be read from one, and the rest on the session's."""
        in_session = Runner(
            agent_id,
            self._cursor(),
            self.manager,
            transport=self.transport,
            writer=self._crew.writer if self._crew else None,
        )
        if agent_id == SESSION_AGENT or not self.config.own_instances:
            return ThreadAgent(agent_id, lambda _context, _work: nullcontext(in_session), self.manager)
        instance = AgentInstance(self._instance_config(agent_id), self.manager)
        self._instances.append(instance)

        def runner_for(context: QueryContext, work: Work) -> AbstractContextManager[Runner]:
            if isinstance(work, TaskSpec) and not work.fragment.in_session:
                return instance.runner(context)
            return nullcontext(in_session)

        return ThreadAgent(agent_id, runner_for, self.manager)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        cursor = self._connection.cursor()
        self._cursors.append(cursor)
        return cursor

    def _introduce(self, agents: Sequence[Agent]) -> None:
        """Let agents read each other, those that are there, and the dead ones that a query may still read."""
        if self._crew is not None:
            with self._introducing:
                self._crew.introduce(agents, self._membership.known())

    def _instance_config(self, agent_id: str) -> InstanceConfig:
        spill_directory, temp_directory = agent_directories(self._scratch.path, agent_id)
        return InstanceConfig(
            agent_id=agent_id,
            shuffle_bytes=self.config.shuffle_bytes,
            spill_directory=spill_directory,
            temp_directory=temp_directory,
            threads=self.config.threads,
            memory_bytes=self.config.duckdb_memory_bytes,
            duckdb=tuple(sorted(self.config.duckdb.items())),
        )


def start_agents(
    config: SessionConfig,
    connection: duckdb.DuckDBPyConnection,
    check: Callable[[], None] = lambda: None,
    hire: Hire | None = None,
) -> AgentPool:
    """Start the agents that ``config`` asks for; ``connection`` is the session's own DuckDB.

    ``check`` is called while they come up, and raises when they are not wanted any more. ``hire`` makes the crew of a
    cluster; without it agents are of this host.

    Raises:
        AgentError: none of them started.
        ResourceError: no directory for spilled segments can be made.
    """
    return AgentPool(config, connection, check, hire)
