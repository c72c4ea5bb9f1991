"""What a query is run with once memory ran out on several agents, each of which has a part of it only.

First DuckDB alone has all of it, and what it can keep on disk it does. What it must keep in memory is then made in
small parts, one after the other, still with all of it: no side of a join is copied, since a copy does not shrink with
the parts, and both sides are cut finely instead.
"""

from __future__ import annotations

from dataclasses import replace

from sabot_sql.config import Isolation, SessionConfig

_PARTS = 32


def with_all_memory(config: SessionConfig) -> SessionConfig:
    """One agent on the session's own DuckDB: others end, and their memory is free."""
    return replace(config, agents=1, isolation=Isolation.THREAD, threads=config.threads * config.agent_count)


def in_small_parts(config: SessionConfig) -> SessionConfig:
    """As :meth:`with_all_memory` gives it to run, planned as if for agents of little memory."""
    parts = max(_PARTS, config.partitions or 0)
    return replace(config, isolation=Isolation.THREAD, partitions=parts, broadcast_bytes=0)
