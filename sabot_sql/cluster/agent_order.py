"""What an engine's worker is told when it is to start an agent, and how it does that."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

from sabot_sql.cluster.agent_process import AgentProcess
from sabot_sql.cluster.authority import Authority
from sabot_sql.transport.credentials import Credentials

IDLE_SECONDS = 60.0
"""An agent that no session uses for so long ends: whoever ordered it is gone."""
DRAIN_SECONDS = 10.0
"""So long may an agent serve what it has when its worker leaves: engines kill workers that leave slowly."""
_SESSIONS = 1


@dataclass(frozen=True, slots=True)
class AgentOrder:
    """One agent as a session orders it; None is for the worker to decide.

    It holds secrets of the session: whoever reads it can sign certificates for agents of this session.
    """

    session: str
    token: str = field(repr=False)
    authority: Authority
    memory_bytes: int | None = None
    threads: int | None = None
    idle_seconds: float = IDLE_SECONDS

    def start(self, host: str, memory_bytes: int, threads: int) -> AgentProcess:
        """Start it on ``host``; the figures hold where the order has none."""
        certificate, key = self.authority.issue(host)
        credentials = Credentials(self.token, self.authority.certificate, certificate, key)
        options = {
            "--memory": f"{self.memory_bytes or memory_bytes}B",
            "--threads": str(self.threads or threads),
            "--sessions": str(_SESSIONS),
            "--spill": tempfile.gettempdir(),
            "--data": "/",  # whoever may order it may run any code there
            "--grace": f"{DRAIN_SECONDS:.0f}",
            "--idle": f"{self.idle_seconds:.0f}",
        }
        return AgentProcess(host, credentials, [part for option in options.items() for part in option])
