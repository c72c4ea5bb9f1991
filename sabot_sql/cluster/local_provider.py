"""Agent services that this process starts on its own host, on loopback: a cluster to try things on."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sabot_sql.cluster.agent_process import START_SECONDS, AgentProcess
from sabot_sql.cluster.provider import Check, Gone, Launch, LaunchedAgent
from sabot_sql.errors import AgentError
from sabot_sql.forks import is_own
from sabot_sql.transport.credentials import Credentials

_LOOPBACK = "127.0.0.1"
_CHECK_SECONDS = 0.02


@dataclass(slots=True)
class _Service:
    name: str
    process: AgentProcess
    port: int = 0


class LocalProvider:
    """See :class:`~sabot_sql.cluster.provider.Provider`.

    Each service has ``options`` of ``sabot-sql agent`` and a token that is made for this provider.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.credentials = Credentials(token=secrets.token_hex(32))
        self._options = tuple(options)
        self._numbers = itertools.count(1)
        self._services: list[_Service] = []
        self._gone: Gone | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def launch(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        return self.scale(count, check)

    def scale(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        with self._lock:
            ended = [service for service in self._services if service.process.exit_code is not None]
            running = [service for service in self._services if service not in ended]
            _end([*ended, *running[count:]])
            self._services = running[:count]
            started = [self._start() for _ in range(count - len(self._services))]
            self._services += started
            skipped = self._wait(started, check)
            self._services = [service for service in self._services if service.port]
            found = tuple(LaunchedAgent(service.name, _LOOPBACK, service.port) for service in self._services)
        if not found:
            raise AgentError("no agent came up: " + "; ".join(f"{name}: {reason}" for name, reason in skipped))
        return Launch(found, tuple(skipped))

    def watch(self, gone: Gone) -> None:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        with self._lock:
            self._gone = gone
            for service in self._services:
                self._follow(service)

    def stop(self) -> None:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        if not is_own(self._owner):
            return
        with self._lock:
            self._gone = None
            services, self._services = self._services, []
        _end(services)

    def _start(self) -> _Service:
        process = AgentProcess(_LOOPBACK, self.credentials, self._options)
        return _Service(f"local-{next(self._numbers)}", process)

    def _wait(self, started: Sequence[_Service], check: Check) -> list[tuple[str, str]]:
        """Learn where each of them listens; those that did not come are ended and named."""
        give_up = time.monotonic() + START_SECONDS
        waiting = list(started)
        try:
            while waiting and time.monotonic() < give_up:
                for service in tuple(waiting):
                    service.port = service.process.port
                    if service.port and self._gone is not None:
                        self._follow(service)
                    if service.port or service.process.exit_code is not None:
                        waiting.remove(service)
                if waiting:
                    time.sleep(_CHECK_SECONDS)
                    check()
        except BaseException:
            _end(started)
            raise
        missing = [service for service in started if not service.port]
        nothing = f"nothing within {START_SECONDS:.0f} s"
        skipped = [(service.name, service.process.last_words or nothing) for service in missing]
        _end(missing)
        return skipped

    def _follow(self, service: _Service) -> None:
        def wait() -> None:
            code = service.process.wait()
            with self._lock:
                gone = self._gone
            if gone is not None:
                gone(service.name, f"its process {service.process.process_id} ended with code {code}")

        threading.Thread(target=wait, name=f"sabot-{service.name}", daemon=True).start()


def _end(services: Sequence[_Service]) -> None:
    """End them now: nobody uses what they hold."""
    for service in services:
        service.process.end()
