"""The agents of a session: started by the first query that needs them, exchanged when a query wants others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sabot_sql.catalog.catalog import Catalog
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.errors import SessionClosed

if TYPE_CHECKING:
    from sabot_sql.agent.pool import AgentPool

_CHECK_SECONDS = 0.05


class Pools:
    """At most one pool of agents at a time: budgets are shares of one limit, so two would overrun it.

    Queries that want the same agents share them; one that wants others waits until those are idle.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._condition = threading.Condition()
        self._pool: AgentPool | None = None
        self._config: SessionConfig | None = None
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

    def close(self) -> None:
        """End the agents; queries that still use them fail. Agents that start meanwhile end as well."""
        with self._condition:
            self._closed = True
            pool, self._pool, self._config = self._pool, None, None
            self._condition.notify_all()
        if pool is not None:
            pool.close()

    def _acquire(self, config: SessionConfig, check: Callable[[], None]) -> AgentPool:
        wanted = replace(config, agents=config.agent_count)
        with self._condition:
            while self._changing or (self._users and self._config != wanted and not self._closed):
                self._condition.wait(_CHECK_SECONDS)
                check()
            self._check_open()
            if self._pool is not None and self._config == wanted:
                self._users += 1
                return self._pool
            self._changing = True
            before, self._pool, self._config = self._pool, None, None
        # Without the lock: others can be stopped while they wait for it.
        pool = None
        try:
            if before is not None:
                before.close()
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
