"""What a query is run with once memory ran out on several agents, each of which has a part of it only.

First DuckDB alone has all of it, and what it can keep on disk it does. What it must keep in memory is then made in
small parts, one after the other, still with all of it: no side of a join is copied, since a copy does not shrink with
the parts, and both sides are cut finely instead.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import replace
from enum import IntEnum

from sabot_sql.config import Isolation, SessionConfig

_PARTS = 32
_REMEMBERED = 256


class Rung(IntEnum):
    """How a query is run: each rung takes less memory than the one before."""

    AGENTS = 0
    ALONE = 1
    PARTS = 2


class ClimbedRungs:
    """The rungs that queries of a session ended on, so that the next run of one begins there.

    A query is known by what DuckDB makes of it, constants included. What is remembered costs time at worst where it
    does not hold any more, never an answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rungs: OrderedDict[bytes, Rung] = OrderedDict()

    def of(self, exported_sql: str, config: SessionConfig) -> Rung:
        """The rung to begin on."""
        with self._lock:
            return self._rungs.get(_key(exported_sql, config), Rung.AGENTS)

    def note(self, exported_sql: str, config: SessionConfig, rung: Rung) -> None:
        """Memory did for the query on ``rung``."""
        with self._lock:
            key = _key(exported_sql, config)
            self._rungs[key] = rung
            self._rungs.move_to_end(key)
            while len(self._rungs) > _REMEMBERED:
                self._rungs.popitem(last=False)

    def forget(self) -> None:
        """Tables may have become smaller."""
        with self._lock:
            self._rungs.clear()


def with_all_memory(config: SessionConfig) -> SessionConfig:
    """One agent on the session's own DuckDB with the memory that all of ``config`` work with; they rest meanwhile."""
    threads = config.threads * config.agent_count
    alone = replace(config, agents=1, isolation=Isolation.THREAD, threads=threads, chooses_agents=False)
    return replace(alone, memory_bytes=config.working_bytes + alone.standing_bytes)


def in_small_parts(config: SessionConfig) -> SessionConfig:
    """As :meth:`with_all_memory` gives it to run, planned as if for agents of little memory."""
    parts = max(_PARTS, config.partitions or 0)
    return replace(config, isolation=Isolation.THREAD, partitions=parts, broadcast_bytes=0)


def _key(exported_sql: str, config: SessionConfig) -> bytes:
    return hashlib.sha256(f"{config.agents} {config.isolation} {exported_sql}".encode()).digest()
