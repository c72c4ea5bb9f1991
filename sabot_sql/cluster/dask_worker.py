"""What runs in Dask's workers: a plugin that has an agent beside each."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from distributed import WorkerPlugin

from sabot_sql.cluster.agent_order import DRAIN_SECONDS, AgentOrder
from sabot_sql.cluster.agent_process import START_SECONDS, AgentProcess

_CHECK_SECONDS = 0.02
_SHARE_OF_WORKER = 0.5
"""Of a worker's memory limit: the agent is not counted in it, and the worker has its own tasks."""
_WITHOUT_LIMIT_BYTES = 1 << 30
_TAKES_PLUGINS = ("running", "paused")
"""States of a worker: plugins of one that closes are torn down already, and another would never be."""


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]  # Dask is not there for all who check types
    """Starts one agent as a process beside the worker, and drains it when the worker closes.

    The nanny limits the memory of the worker's process alone, so not that of the agent.
    """

    def __init__(self, order: AgentOrder) -> None:
        self._order = order
        self._process: AgentProcess | None = None
        self._at = ""
        self._ended = False

    async def setup(self, worker: Any) -> None:
        """Return once the agent listens.

        Raises:
            RuntimeError: it does not, with its last words.
        """
        limit = worker.memory_manager.memory_limit
        memory_bytes = int(limit * _SHARE_OF_WORKER) if limit else _WITHOUT_LIMIT_BYTES
        # Off the event loop: a process is forked, and a key is made.
        process = await asyncio.to_thread(self._order.start, worker.ip, memory_bytes, worker.state.nthreads)
        self._process, self._at = process, worker.address
        give_up = time.monotonic() + START_SECONDS
        while not self._ended and not process.port:
            if process.exit_code is not None or time.monotonic() > give_up:
                said = process.last_words or f"nothing within {START_SECONDS:.0f} s"
                self.end()
                raise RuntimeError(f"the agent did not come up: {said}")
            await asyncio.sleep(_CHECK_SECONDS)
        if self._ended:
            self.end()
            raise RuntimeError("nobody wants the agent any more")

    async def teardown(self, worker: Any) -> None:
        """Let sessions read what the agent has, for a while, and end it."""
        process, self._ended = self._process, True
        if process is None:
            return
        process.drain()
        give_up = time.monotonic() + DRAIN_SECONDS
        while process.exit_code is None and time.monotonic() < give_up:
            await asyncio.sleep(_CHECK_SECONDS)
        self.end()

    @property
    def place(self) -> tuple[str, str, int] | None:
        """The agent's name, host and port; None where it does not run."""
        process = self._process
        if process is None or process.exit_code is not None:
            return None
        return f"{self._at} process {process.process_id}", process.host, process.port

    def end(self) -> None:
        """End the agent now: nobody uses what it has."""
        self._ended = True
        process, self._process = self._process, None
        if process is not None:
            process.end()


async def have_agent(order: AgentOrder, dask_worker: Any = None) -> tuple[str, str, int] | str:
    """Have an agent run beside the worker, started if need be: its name, host and port, or why there is none."""
    if dask_worker.status.name not in _TAKES_PLUGINS:
        return f"the worker is {dask_worker.status.name}"
    name = _plugin_name(order.session)
    plugin = dask_worker.plugins.get(name)
    if plugin is None or plugin.place is None:
        plugin = AgentPlugin(order)
        try:
            await dask_worker.plugin_add(plugin=plugin, name=name, catch_errors=False)
        except Exception as error:  # noqa: BLE001  whatever it is, the session names it
            dask_worker.plugins.pop(name, None)
            return str(error) or type(error).__name__
    place: tuple[str, str, int] | None = plugin.place
    return place if place is not None else "it ended as soon as it had started"


async def end_agent(session: str, dask_worker: Any = None) -> None:
    """End the agent beside the worker, if there is one."""
    plugin = dask_worker.plugins.get(_plugin_name(session))
    if plugin is not None:
        plugin.end()
        await dask_worker.plugin_remove(name=_plugin_name(session))


def _plugin_name(session: str) -> str:
    return f"sabot-sql-agent-{session}"
