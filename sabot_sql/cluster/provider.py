"""What starts agents on machines. Who is a member of a session is not a provider's to say: see ``agent/membership``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sabot_sql.transport.credentials import Credentials

Check = Callable[[], None]
"""Raises when nobody wants the agents any more; called several times a second by whatever waits."""

Gone = Callable[[str, str], None]
"""Told the name of an agent that has ended, and why; by any thread, once for each."""


@dataclass(frozen=True, slots=True)
class LaunchedAgent:
    """An agent service that a session can dial.

    ``name`` is the provider's and stays with the service: one that is started anew elsewhere has another name. Its
    address is where the session reaches it; peers use the name that it advertises itself.
    """

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Launch:
    """The services that run now, and those that did not come: (name, reason)."""

    agents: tuple[LaunchedAgent, ...]
    skipped: tuple[tuple[str, str], ...] = ()


class Provider(Protocol):
    """Starts agent services (``sabot-sql agent``), tells which of them run, and ends them.

    What was asked for and did not come by one deadline of the provider's own is skipped and named; only none at all is
    a failure. Services must not outlive the provider where it started them: each watches what started it.
    Methods may be called by any thread, one at a time.
    """

    @property
    def credentials(self) -> Credentials:
        """What a session shows to the services; known once they are launched."""
        ...

    def launch(self, count: int, check: Check) -> Launch:
        """Have ``count`` services run, for the first time.

        Raises:
            AgentError: none came up.
        """
        ...

    def scale(self, count: int, check: Check) -> Launch:
        """Have ``count`` services run, whatever ran before: more are started, or started again where some have ended.

        Gives all that run, old ones included. Services beyond ``count`` are ended, those first that ended themselves.

        Raises:
            AgentError: none runs, and none came up.
        """
        ...

    def watch(self, gone: Gone) -> None:
        """Tell ``gone`` of services that end from here on, as soon as the provider knows.

        It may know before a lease runs out, or never; the session finds out by itself all the same.
        """
        ...

    def stop(self) -> None:
        """End what was started; returns within seconds. May be called again."""
        ...
