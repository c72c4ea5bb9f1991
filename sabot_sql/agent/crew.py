"""What a pool needs of agents that are not threads of its own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sabot_sql.agent.agent import Agent
from sabot_sql.agent.output_writer import OutputWriter
from sabot_sql.protocol.members import AgentGrant
from sabot_sql.transport.interface import Transport

Check = Callable[[], None]
"""Raises when what is waited for is not wanted any more."""


class Crew(Protocol):
    """Starts agents and makes them known to each other. Who is a member is the pool's to decide.

    Methods may be called by any thread, :meth:`introduce` and :meth:`forget` by one at a time.
    """

    heal_seconds: float
    """How long a query waits at its start for lost agents to be replaced, as long as there are others."""

    @property
    def grants(self) -> tuple[AgentGrant, ...] | None:
        """What each member grants; None where all read what the session does."""
        ...

    @property
    def transport(self) -> Transport:
        """How the session reads what the agents commit."""
        ...

    @property
    def writer(self) -> OutputWriter | None:
        """Where rows go that the session itself reads; None where agents can read them from its own manager."""
        ...

    def start(self, names: Sequence[str], check: Check) -> Sequence[Agent]:
        """Agents of these names, as many of them as came up.

        Raises:
            AgentError: none did.
        """
        ...

    def introduce(self, started: Sequence[Agent], others: Sequence[Agent]) -> None:
        """Let new agents and the others, also dead ones that may still be read, read each other.

        Raises:
            AgentError: a new one cannot be read by another one, or cannot read it.
        """
        ...

    def check_leases(self, agents: Sequence[Agent]) -> None:
        """End the agents that do not answer; called several times a second."""
        ...

    def rest(self, agents: Sequence[Agent]) -> None:
        """Let idle agents of this host give up the memory that they can take again."""
        ...

    def forget(self, gone: Agent, others: Sequence[Agent]) -> None:
        """Nobody reads a lost agent any more: close it and give up what was held of it."""
        ...

    def close(self) -> None:
        """Everything has ended: free what agents were started with."""
        ...
