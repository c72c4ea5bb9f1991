"""Agent services that somebody else has started, at addresses that are known."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sabot_sql.cluster.provider import Check, Gone, Launch, LaunchedAgent
from sabot_sql.cluster_target import address_text
from sabot_sql.errors import AgentError
from sabot_sql.transport.credentials import Credentials

CONNECT_SECONDS = 3.0
_TRIES_AT_A_TIME = 64
_CHECK_SECONDS = 0.05


class StaticProvider:
    """See :class:`~sabot_sql.cluster.provider.Provider`. It starts and ends nothing; an address is also the name."""

    def __init__(self, addresses: Sequence[tuple[str, int]], credentials: Credentials) -> None:
        self.credentials = credentials
        self._known = tuple(LaunchedAgent(address_text(host, port), host, port) for host, port in addresses)

    def launch(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`: addresses where somebody listens."""
        with ThreadPoolExecutor(min(_TRIES_AT_A_TIME, len(self._known)), "sabot-dial") as threads:
            tries = [threads.submit(_refusal, agent) for agent in self._known]
            while not all(attempt.done() for attempt in tries):
                time.sleep(_CHECK_SECONDS)
                check()
        refusals = [attempt.result() for attempt in tries]
        found = [agent for agent, refusal in zip(self._known, refusals, strict=True) if refusal is None]
        skipped = [
            (agent.name, refusal) for agent, refusal in zip(self._known, refusals, strict=True) if refusal is not None
        ]
        if not found:
            said = "; ".join(f"{name}: {refusal}" for name, refusal in skipped)
            raise AgentError(f"no agent of the cluster can be reached: {said}")
        return Launch(tuple(found[:count]), tuple(skipped))

    scale = launch

    def watch(self, gone: Gone) -> None:
        """Nothing is known of them but what the session finds out itself."""

    def stop(self) -> None:
        """They are not this provider's to end."""


def _refusal(agent: LaunchedAgent) -> str | None:
    try:
        socket.create_connection((agent.host, agent.port), CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
