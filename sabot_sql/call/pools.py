"""The agents of a session: started by the first query that needs them, exchanged when a query wants others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sabot_sql.catalog.catalog import Catalog
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.errors import SessionClosed

if TYPE_CHECKING:
    from sabot_sql.agent.pool import AgentPool

_CHECK_SECONDS = 0.05


class Pools:
    """At most one pool of agents at work: budgets are shares of one limit, so two would overrun it.

    While one agent has the memory of several, those rest: they stay, and have none but what they stand for anyway.

    Queries that want the same agents share them; one that wants others waits until those are idle.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._condition = threading.Condition()
        self._pool: AgentPool | None = None
        self._config: SessionConfig | None = None
        self._resting: tuple[SessionConfig, AgentPool] | None = None
        self._users = 0
        self._changing = False
        self._closed = False

    @contextmanager
    def using(self, config: SessionConfig, check: Callable[[], None]) -> Iterator[AgentPool]:
        """The pool that ``config`` asks for, started if need be; it is not closed while this is open.

        ``check`` raises when the query that waits here should not wait any longer.
        """
        pool = self._acquire(config, check)
        try:
            yield pool
        finally:
            with self._condition:
                self._users -= 1
                self._condition.notify_all()

    def memory(self) -> list[dict[str, Any]]:
        """The state of the memory of each agent for rows that move; none where no agent was needed yet."""
        with self._condition:
            pool = self._pool
        return [] if pool is None else pool.memory()

    def close(self) -> None:
        """End the agents; queries that still use them fail. Agents that start meanwhile end as well."""
        with self._condition:
            self._closed = True
            pools = [self._pool, self._resting[1] if self._resting else None]
            self._pool = self._config = self._resting = None
            self._condition.notify_all()
        for pool in pools:
            if pool is not None:
                pool.close()

    def _acquire(self, config: SessionConfig, check: Callable[[], None]) -> AgentPool:
        wanted = config.on_all_agents()
        with self._condition:
            while self._changing or (self._users and self._config != wanted and not self._closed):
                self._condition.wait(_CHECK_SECONDS)
                check()
            self._check_open()
            if self._pool is not None and self._config == wanted:
                self._users += 1
                return self._pool
            self._changing = True
            before, resting = self._pool, self._resting
            if before is not None and self._config is not None and _can_rest(self._config, wanted):
                self._resting = self._config, before
            else:
                self._resting = None
            self._pool, self._config = None, None
        # Without the lock: others can be stopped while they wait for it.
        pool = None
        try:
            if self._resting is not None and before is not None:
                before.rest()
            elif before is not None:
                before.close()
            if resting is not None and resting[0] == wanted:
                self._catalog.share_memory(wanted)
                pool = resting[1]
            else:
                if resting is not None:
                    resting[1].close()
                pool = self._start(wanted, check)
        finally:
            with self._condition:
                self._changing = False
                if pool is not None and not self._closed:
                    self._pool, self._config = pool, wanted
                    self._users += 1
                self._condition.notify_all()
        if self._pool is not pool:
            pool.close()
        self._check_open()
        return pool

    def _start(self, config: SessionConfig, check: Callable[[], None]) -> AgentPool:
        from sabot_sql.agent.pool import start_agents  # native code, which one agent does not need

        def check_both() -> None:
            check()
            self._check_open()

        self._catalog.share_memory(config)
        hire = None
        if config.isolation is Isolation.REMOTE and config.cluster is not None:
            from sabot_sql.cluster.hire import hire_of

            hire = hire_of(config, config.cluster)
        return start_agents(config, self._catalog.agents_connection(), check_both, hire)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("the session was closed")


def _can_rest(config: SessionConfig, wanted: SessionConfig) -> bool:
    """Whether agents may stay, idle, while ``wanted`` has the memory that they work with: one agent, for a while."""
    return config.agent_count > 1 == wanted.agent_count and wanted.working_bytes <= config.working_bytes
