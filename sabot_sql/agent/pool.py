"""The agents of a session."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import sabot_native
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.agent_instance import AgentInstance, InstanceConfig
from sabot_sql.agent.key_finder import KeyFinder
from sabot_sql.agent.membership import Membership
from sabot_sql.agent.process_agent import Peer, ProcessAgent, agent_directories
from sabot_sql.agent.runner import Runner
from sabot_sql.agent.thread_agent import ThreadAgent
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.errors import AgentError
from sabot_sql.forks import never_freed_in_children
from sabot_sql.protocol.members import Listener
from sabot_sql.protocol.task_spec import QueryContext, TaskSpec, Work
from sabot_sql.scratch import Scratch

if TYPE_CHECKING:
    import duckdb

SESSION_AGENT = "session"
_LEASE_CHECK_SECONDS = 0.25


class AgentPool:
    """All agents of a session, and the one in its own process that reads what only this process holds.

    Every agent has a DuckDB instance of its own, unless it is a thread and alone. Thread agents share the session's
    shuffle manager, and its instance for what only that can read. Every process agent has its own manager and maps the
    memory of all others. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        config: SessionConfig,
        connection: duckdb.DuckDBPyConnection,
        check: Callable[[], None] = lambda: None,
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
        self._membership = Membership(config.agent_count, self._start_one, self._introduce_one)
        self._cursors: list[duckdb.DuckDBPyConnection] = []
        self._instances: list[AgentInstance] = []
        spill_directory, _ = agent_directories(self._scratch.path, SESSION_AGENT)
        shared = config.agent_count if config.isolation is Isolation.THREAD else 1
        self.manager = sabot_native.ShuffleManager(
            SESSION_AGENT, budget_bytes=config.shuffle_bytes * shared, spill_directory=spill_directory
        )
        self._spill_directory = spill_directory
        self.key_finder = KeyFinder(self._cursor(), self.manager)
        self.session_agent: Agent = self._thread_agent(SESSION_AGENT)
        try:
            started = self._start(config.agent_count, check)
            self._introduce(started)
            self._membership.found(started)
        except BaseException:
            self.close()
            raise
        if config.isolation is Isolation.PROCESS:
            threading.Thread(target=self._watch, name="sabot-leases", daemon=True).start()

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The agents that can take work; the session's own is not among them."""
        return self._membership.members

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
        self.manager.close()
        self._scratch.close()

    def __enter__(self) -> AgentPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._closing.wait(_LEASE_CHECK_SECONDS):
            for agent in self.agents:
                if isinstance(agent, ProcessAgent):
                    agent.check_lease()

    def _forget(self) -> None:
        """Give up the memory and the files of dead agents that no query can read any more."""
        with self._introducing:
            for agent in self._membership.unread():
                if isinstance(agent, ProcessAgent):
                    self.manager.detach_peer(agent.agent_id)
                for other in self.agents:
                    if isinstance(other, ProcessAgent):
                        other.detach(agent.agent_id)
                agent.close()
                shutil.rmtree(self._scratch.path / agent.agent_id, ignore_errors=True)

    def _start_one(self, check: Callable[[], None]) -> Agent:
        (agent,) = self._start(1, check)
        return agent

    def _introduce_one(self, agent: Agent) -> None:
        self._introduce([agent])

    def _start(self, count: int, check: Callable[[], None]) -> list[Agent]:
        names = [f"agent-{next(self._numbers)}" for _ in range(count)]
        if self.config.isolation is Isolation.THREAD:
            return [self._thread_agent(name) for name in names]
        return list(self._process_agents(names, check))

    def _thread_agent(self, agent_id: str) -> ThreadAgent:
        """An agent that runs on an instance of its own what can be read from one, and the rest on the session's."""
        in_session = Runner(agent_id, self._cursor(), self.manager)
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

    def _process_agents(self, names: Sequence[str], check: Callable[[], None]) -> list[ProcessAgent]:
        """Those that came up; a place that stays vacant is filled before a query begins."""
        started: list[ProcessAgent] = []
        ready: list[ProcessAgent] = []
        failures: list[AgentError] = []
        try:
            # All of them come up at the same time.
            started.extend(ProcessAgent(self._instance_config(name), self.lost) for name in names)
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

    def _introduce(self, agents: Sequence[Agent]) -> None:
        """Let process agents read each other, those that are there, and the dead ones that a query may still read."""
        started = [agent for agent in agents if isinstance(agent, ProcessAgent)]
        session: Peer = (SESSION_AGENT, self._spill_directory, self.manager.arena_fd())
        with self._introducing:
            others = [agent for agent in self._membership.known() if isinstance(agent, ProcessAgent)]
            for agent in started:
                self.manager.attach_peer(agent.agent_id, agent.arena_descriptor, agent.spill_directory)
                agent.attach([session, *(_peer(other) for other in (*started, *others) if other is not agent)])
            for other in others:
                if other.alive:
                    other.attach([_peer(agent) for agent in started])

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
    config: SessionConfig, connection: duckdb.DuckDBPyConnection, check: Callable[[], None] = lambda: None
) -> AgentPool:
    """Start the agents that ``config`` asks for; ``connection`` is the session's own DuckDB.

    ``check`` is called while they come up, and raises when they are not wanted any more.

    Raises:
        AgentError: one of them did not start.
        ResourceError: no directory for spilled segments can be made.
    """
    return AgentPool(config, connection, check)


def _peer(agent: ProcessAgent) -> Peer:
    # The descriptor is sent by a copy: the kernel keeps the memory for as long as any process has it.
    return agent.agent_id, agent.spill_directory, agent.arena_descriptor
