"""What a query is told of its agents while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sabot_sql.errors import SabotSQLError


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """What an agent of another process grants to the session, and how many tasks it has now.

    ``data_roots`` are the directories whose files it may read.
    """

    agent_id: str
    data_roots: tuple[str, ...]
    threads: int
    memory_bytes: int
    load: int = 0


@dataclass(frozen=True, slots=True)
class AgentLost:
    """An agent is gone, busy or not; ``readable``: what it had committed can still be read."""

    agent_id: str
    readable: bool = True


@dataclass(frozen=True, slots=True)
class AgentJoined:
    """A new agent can take tasks in the place of a lost one."""

    agent_id: str
    replaces: str


@dataclass(frozen=True, slots=True)
class AgentNotReplaced:
    """No agent could be started in the place of a lost one."""

    agent_id: str
    error: SabotSQLError


MemberEvent = AgentLost | AgentJoined | AgentNotReplaced
Listener = Callable[[MemberEvent], None]
"""Called by any thread, in the order in which things happened; it must not block."""
