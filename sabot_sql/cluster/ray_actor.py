"""What runs on Ray's nodes: an actor that has an agent beside it."""

from __future__ import annotations

import time

import ray

from sabot_sql.cluster.agent_order import AgentOrder
from sabot_sql.cluster.agent_process import START_SECONDS, AgentProcess

_CHECK_SECONDS = 0.02


class AgentKeeper:
    """Has one agent as a process, which ends with the actor's."""

    def __init__(self, order: AgentOrder, memory_bytes: int, threads: int) -> None:
        self._order = order
        self._memory_bytes = memory_bytes
        self._threads = threads
        self._process: AgentProcess | None = None

    def have_agent(self) -> tuple[str, str, int] | str:
        """Have the agent run, started if need be: its name, host and port, or why there is none."""
        if self._process is not None and self._process.exit_code is not None:
            self._end()
        host = ray.util.get_node_ip_address()
        if self._process is None:
            self._process = self._order.start(host, self._memory_bytes, self._threads)
        give_up = time.monotonic() + START_SECONDS
        while not (port := self._process.port):
            if self._process.exit_code is not None or time.monotonic() > give_up:
                said = self._process.last_words or f"nothing within {START_SECONDS:.0f} s"
                self._end()
                return f"the agent did not come up: {said}"
            time.sleep(_CHECK_SECONDS)
        return f"{host} process {self._process.process_id}", host, port

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()
