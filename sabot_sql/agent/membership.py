"""Who is a member of a pool, and what takes the place of a member that is lost: decided here and nowhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sabot_sql.agent.agent import Agent
from sabot_sql.errors import AgentError, SabotSQLError, SessionClosed
from sabot_sql.protocol.members import AgentJoined, AgentLost, AgentNotReplaced, Listener, MemberEvent

START_ATTEMPTS = 3
REPLACE_SECONDS = 30.0
"""The grace period: an agent that is not replaced by then is given up until the next query asks."""
_RETRY_SECONDS = 0.1
_YOUNG_SECONDS = 1.0
"""An agent that is lost within this time of joining counts as one that did not start."""
_CHECK_SECONDS = 0.05

_Check = Callable[[], None]


@dataclass(slots=True)
class _Place:
    """One of as many places as agents were asked for; ``replaces`` is who had it before while it is vacant."""

    agent: Agent | None = None
    replaces: str = ""
    joined: float = 0.0
    failures: int = 0
    error: SabotSQLError | None = None
    filling: bool = False

    @property
    def to_be_filled(self) -> bool:
        """Whether it is vacant and has not been given up."""
        return self.agent is None and self.error is None


@dataclass(frozen=True, slots=True)
class Departed:
    """An agent that was lost, and the queries that ran then: they may read what it had committed."""

    agent: Agent
    readers: set[str] = field(default_factory=set)


class Membership:
    """A fixed number of places, each with one agent or vacant; so there are never more agents than were asked for.

    However often and by whomever an agent is reported lost, its place becomes vacant once, and one thread fills it.
    Ids are never used again, so an id is also its agent's epoch.

    ``start`` starts an agent under a new id, or raises; its argument raises when nobody wants it any more. ``admit``
    introduces it to the others before it is a member.
    """

    heal_seconds = 2.0
    """How long a query waits at its start for lost agents to be replaced, as long as there are others."""

    def __init__(self, places: int, start: Callable[[_Check], Agent], admit: Callable[[Agent], None]) -> None:
        self._start = start
        self._admit = admit
        self._places = [_Place() for _ in range(places)]
        self._condition = threading.Condition()
        self._listeners: dict[str, Listener] = {}
        self._departed: list[Departed] = []
        # From before a new agent is introduced until it is a member, so that no two miss each other.
        self._admitting = threading.Lock()
        self._closed = False

    # ---------------------------------------------------------------------------------------------------- members

    def found(self, agents: list[Agent]) -> None:
        """Begin with ``agents``, which know each other; places beyond them are vacant."""
        with self._condition:
            for place, agent in zip(self._places, agents, strict=False):
                self._settle(place, agent)

    @property
    def members(self) -> tuple[Agent, ...]:
        """The agents that can take work."""
        with self._condition:
            return self._members()

    def known(self) -> tuple[Agent, ...]:
        """The members, and the lost agents that a query may still read."""
        with self._condition:
            members = [place.agent for place in self._places if place.agent is not None]
            return (*members, *(gone.agent for gone in self._departed))

    def enter(self, query_id: str, listener: Listener) -> tuple[Agent, ...]:
        """The members now; ``listener`` is told of every change from here on, until :meth:`leave`."""
        with self._condition:
            self._listeners[query_id] = listener
            self._fill_if_wanted()
            return self._members()

    def leave(self, query_id: str) -> None:
        """The query has ended: it is told of nothing more, and reads nothing of lost agents."""
        with self._condition:
            self._listeners.pop(query_id, None)
            for gone in self._departed:
                gone.readers.discard(query_id)

    def unread(self) -> list[Agent]:
        """The lost agents that no query reads any more; they are forgotten."""
        with self._condition:
            unread = [gone.agent for gone in self._departed if not gone.readers]
            self._departed = [gone for gone in self._departed if gone.readers]
        return unread

    # ------------------------------------------------------------------------------------------------------ losses

    def lost(self, agent_id: str) -> None:
        """An agent is gone: its place is vacant, and is filled where a query runs. The second report does nothing."""
        with self._condition:
            for place in self._places:
                if place.agent is not None and place.agent.agent_id == agent_id:
                    self._vacate(place, place.agent)
            self._fill_if_wanted()

    def heal(self, check: _Check = lambda: None) -> None:
        """Fill vacant places, those included that were given up, before a query begins.

        Returns when that is done; also after a while, if there are members, when it is not: whoever enters is told.

        Raises:
            AgentError: there is no agent, and none could be started.
            SessionClosed: the pool was closed.
        """
        began = time.monotonic()
        with self._condition:
            for place in self._places:
                if place.agent is not None and not place.agent.alive:
                    self._vacate(place, place.agent)
                if place.agent is None:
                    place.failures, place.error = 0, None
            while not self._closed:
                self._fill()  # also what is lost while this waits
                waited = time.monotonic() - began
                if not any(place.to_be_filled for place in self._places) or waited > REPLACE_SECONDS:
                    break
                if self._members() and waited >= self.heal_seconds:
                    return
                self._condition.wait(_CHECK_SECONDS)
                check()
            if self._closed:
                raise SessionClosed("the session was closed")
            if not self._members():
                errors = (place.error for place in self._places if place.error)
                raise next(errors, AgentError(f"no agent came up within {REPLACE_SECONDS:.0f} s"))

    def close(self) -> list[Agent]:
        """Everybody who is or was a member and has not been forgotten; nobody becomes one any more."""
        with self._condition:
            self._closed = True
            agents = [place.agent for place in self._places if place.agent is not None]
            agents += [gone.agent for gone in self._departed]
            self._departed = []
            self._condition.notify_all()
        return agents

    # ---------------------------------------------------------------------------------------- with the lock held

    def _members(self) -> tuple[Agent, ...]:
        return tuple(place.agent for place in self._places if place.agent is not None and place.agent.alive)

    def _settle(self, place: _Place, agent: Agent) -> None:
        place.agent, place.replaces, place.joined, place.error = agent, "", time.monotonic(), None

    def _vacate(self, place: _Place, agent: Agent) -> None:
        agent.kill()
        young = time.monotonic() - place.joined < _YOUNG_SECONDS
        place.failures = place.failures + 1 if young else 0
        place.agent, place.replaces = None, agent.agent_id
        self._departed.append(Departed(agent, set(self._listeners)))
        self._tell(AgentLost(agent.agent_id, agent.readable))
        if place.failures >= START_ATTEMPTS:
            self._give_up(
                place, AgentError(f"agent {agent.agent_id} was lost as soon as it had joined, as others before")
            )

    def _give_up(self, place: _Place, error: SabotSQLError) -> None:
        place.error = error
        self._tell(AgentNotReplaced(place.replaces, error))
        self._condition.notify_all()

    def _tell(self, event: MemberEvent) -> None:
        for listener in self._listeners.values():
            listener(event)

    def _fill_if_wanted(self) -> None:
        # Between queries nobody needs them, and agents that die at once would be started for ever.
        if self._listeners:
            self._fill()

    def _fill(self) -> None:
        for place in self._places:
            if place.to_be_filled and not place.filling and not self._closed:
                place.filling = True
                threading.Thread(target=self._keep_filled, args=(place,), name="sabot-member", daemon=True).start()

    # ---------------------------------------------------------------------------------- the thread of a vacant place

    def _keep_filled(self, place: _Place) -> None:
        while True:
            self._fill_place(place, time.monotonic() + REPLACE_SECONDS)
            with self._condition:
                if self._closed or not place.to_be_filled:
                    place.filling = False
                    return

    def _fill_place(self, place: _Place, give_up: float) -> None:
        """Start agents for a vacant place until one becomes a member or it is given up."""

        def check() -> None:
            if self._closed:
                raise SessionClosed("the session was closed")
            if time.monotonic() > give_up:
                raise AgentError(f"none came up within {REPLACE_SECONDS:.0f} s")

        while not self._closed:
            try:
                agent = self._start(check)
                if self._admitted(place, agent):
                    return
                reason: SabotSQLError = AgentError(f"agent {agent.agent_id} ended while it joined")
            except SabotSQLError as error:
                reason = error
            except Exception as error:  # noqa: BLE001  whatever it is: without an answer a query would wait for ever
                reason = AgentError(f"{type(error).__name__}: {error}")
            with self._condition:
                place.failures += 1
                if place.failures >= START_ATTEMPTS or time.monotonic() > give_up:
                    message = f"no agent starts in the place of {place.replaces}: {reason.message}"
                    said = getattr(reason, "remote_message", None)
                    self._give_up(place, AgentError(message, agent=place.replaces, remote_message=said))
                    return
                self._condition.wait_for(lambda: self._closed, _RETRY_SECONDS * 2**place.failures)

    def _admitted(self, place: _Place, agent: Agent) -> bool:
        """Whether the agent became a member; it has ended otherwise."""
        joined = False
        try:
            with self._admitting:
                self._admit(agent)
                joined = self._join(place, agent)
        finally:
            if not joined:
                agent.kill()
                agent.close()
        return joined

    def _join(self, place: _Place, agent: Agent) -> bool:
        """Whether the agent became a member: not where it died meanwhile, or where everybody ends."""
        with self._condition:
            if self._closed or not agent.alive:
                return False
            replaced = place.replaces
            self._settle(place, agent)
            self._tell(AgentJoined(agent.agent_id, replaced))
            if not agent.alive:  # nobody could have reported it before it was a member
                self._vacate(place, agent)
            self._condition.notify_all()
        return True
