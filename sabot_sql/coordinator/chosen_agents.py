"""Who may join a query that runs on some agents of a pool only: those that can read what it reads."""

from __future__ import annotations

from collections.abc import Callable

from sabot_sql.agent.pool import AgentPool
from sabot_sql.errors import AgentError
from sabot_sql.protocol.members import AgentGrant, AgentJoined, AgentNotReplaced, Listener, MemberEvent

MayJoin = Callable[[AgentGrant], bool]
"""Whether an agent with that grant can run the query."""


def joining(may_join: MayJoin, pool: AgentPool, listener: Listener) -> Listener:
    """Tells ``listener`` what it is told, but that an agent that may not join has replaced nobody."""

    def listen(event: MemberEvent) -> None:
        if isinstance(event, AgentJoined) and not _may(event.agent_id):
            error = AgentError(f"agent {event.agent_id}, which is there for {event.replaces}, cannot read the files")
            event = AgentNotReplaced(event.replaces, error)
        listener(event)

    def _may(agent_id: str) -> bool:
        return all(may_join(grant) for grant in pool.grants or () if grant.agent_id == agent_id)

    return listen
