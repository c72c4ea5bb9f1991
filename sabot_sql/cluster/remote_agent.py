"""An agent of a service, seen from the session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from sabot_sql.agent.agent import Done
from sabot_sql.agent.command_handler import outcome_of
from sabot_sql.cluster.link import Link
from sabot_sql.cluster.provider import Check, LaunchedAgent
from sabot_sql.errors import AgentError
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.handshake import Hello, Place, Reached, Welcome
from sabot_sql.protocol.members import AgentGrant
from sabot_sql.protocol.task_spec import FailureKind, Outcome, QueryContext, TaskFailure, TaskId, TaskSpec, Work
from sabot_sql.protocol.wire import Frame
from sabot_sql.transport.credentials import Credentials

_ANSWER_SECONDS = 5.0


class RemoteAgent:
    """See :class:`~sabot_sql.agent.agent.Agent`. :meth:`wait_ready` must return before anything else is called.

    ``on_death`` gets the id once the agent takes no work any more, before its work is answered.
    """

    def __init__(
        self, launched: LaunchedAgent, hello: Hello, credentials: Credentials, on_death: Callable[[str], None]
    ) -> None:
        self.agent_id = hello.agent_id
        self.launched = launched
        self._link = Link(launched, hello, credentials, self._received, self._end)
        self._on_death = on_death
        self._welcome: Welcome | None = None
        self._lock = threading.Lock()
        self._pending: dict[TaskId, Done] = {}
        self._alive = True
        self._metrics: dict[str, int] = {}
        self._metrics_came = threading.Event()
        self._reached: dict[str, str] = {}
        self._reaching = threading.Condition()

    def wait_ready(self, check: Check) -> None:
        """Dial the agent.

        Raises:
            AgentError: it cannot be reached, or refuses the session.
        """
        self._welcome = self._link.open(check)

    @property
    def welcome(self) -> Welcome:
        """What the agent said when it was dialled."""
        assert self._welcome is not None
        return self._welcome

    @property
    def grant(self) -> AgentGrant:
        """What it grants, and how busy it is with this session."""
        welcome = self.welcome
        return AgentGrant(self.agent_id, welcome.data_roots, welcome.threads, welcome.memory_bytes, len(self._pending))

    @property
    def place(self) -> Place:
        """Where peers read what it commits."""
        return self.welcome.place

    @property
    def place_seen_from_session(self) -> Place:
        """Where the session does."""
        return replace(self.place, host=self.launched.host, port=self.launched.port)

    @property
    def alive(self) -> bool:
        """Whether it takes work, as far as is known."""
        return self._alive

    @property
    def readable(self) -> bool:
        """Whether its service still serves what it committed."""
        return self._link.lost is None

    @property
    def redials(self) -> int:
        """How often its connection was dialled anew."""
        return self._link.redials

    def begin(self, context: QueryContext) -> None:
        """Announce a query."""
        self._send("begin", context)

    def submit(self, work: Work, done: Done) -> None:
        """Send ``work`` to the agent."""
        with self._lock:
            alive = self._alive
            if alive:
                self._pending[work.id] = done
        if not alive:
            done(self._died(work.id, self._link.lost or "it takes no more work"))
            return
        self._send("task" if isinstance(work, TaskSpec) else "split", work)

    def cancel(self, query_id: str) -> None:
        """Interrupt the query's work."""
        self._link.send(Frame("cancel", query_id))

    def stop(self, task_id: TaskId) -> None:
        """Interrupt the attempt."""
        self._send("stop", task_id)

    def give_up(self, query_id: str) -> None:
        """Leave the agent to itself; another one is opened at its service."""
        if any(work_id.query_id == query_id for work_id in tuple(self._pending)):
            self._end("its work did not end when it was interrupted")

    def release(self, query_id: str, edge_id: str | None = None) -> None:
        """Free what the query committed."""
        self._link.send(Frame("release", [query_id, edge_id]))

    def metrics(self, wait_seconds: float = _ANSWER_SECONDS) -> dict[str, int]:
        """Figures of its shuffle manager, or those that came last if it does not answer."""
        self._metrics_came.clear()
        self._link.send(Frame("metrics"))
        self._metrics_came.wait(wait_seconds)
        return dict(self._metrics)

    def introduce(self, places: Sequence[Place]) -> None:
        """Let it read what agents at ``places`` commit; it says whether it can reach them."""
        with self._reaching:
            for place in places:
                self._reached.pop(place.agent_id, None)
        blobs: list[bytes] = []
        self._link.send(Frame("peers", [encode(place, blobs) for place in places], blobs))

    def reaches(self, agent_id: str, timeout_seconds: float) -> str | None:
        """Nothing where it reaches that agent, else why not; None where it has not said so within the time."""
        with self._reaching:
            self._reaching.wait_for(lambda: agent_id in self._reached or not self._alive, timeout_seconds)
            return self._reached.get(agent_id)

    def detach(self, agent_id: str) -> None:
        """Let it give up what it has of another agent."""
        self._link.send(Frame("detach", agent_id))

    def check_lease(self) -> None:
        """See :meth:`~sabot_sql.cluster.link.Link.check_lease`."""
        self._link.check_lease()

    def lose(self, reason: str) -> None:
        """Its service has ended, as somebody else found out."""
        self._link.give_up(reason)

    def kill(self) -> None:
        """Give it no more work; its work answers ``AGENT_DIED``. What it committed is served until :meth:`close`."""
        self._end("it was given up")

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs here."""
        return not self._alive

    def end(self) -> None:
        """As :meth:`kill`."""
        self.kill()

    def close(self) -> None:
        """Leave the service, which frees what the agent committed."""
        self.kill()
        self._link.close()

    def _send(self, kind: str, body: object) -> None:
        blobs: list[bytes] = []
        self._link.send(Frame(kind, encode(body, blobs), blobs))

    def _received(self, frame: Frame) -> None:
        match frame.kind:
            case "metrics":
                self._metrics = dict(frame.body)
                self._metrics_came.set()
            case "reached":
                reached = decode(Reached, frame.body, frame.blobs)
                with self._reaching:
                    self._reached[reached.agent_id] = reached.reason
                    self._reaching.notify_all()
            case "draining":
                self._drained()
            case _:
                self._answer(outcome_of(frame))

    def _answer(self, outcome: Outcome) -> None:
        if outcome.agent_id != self.agent_id:
            raise MalformedMessage(f"agent {self.agent_id} answers for {outcome.agent_id}")
        with self._lock:
            done = self._pending.pop(outcome.id, None)
            last = not self._alive and not self._pending
        if done is not None:
            done(outcome)
            if last:
                self._on_death(self.agent_id)

    def _drained(self) -> None:
        """It takes no more work, and ends what it has."""
        with self._lock:
            was_alive, self._alive = self._alive, False
            idle = not self._pending
        if was_alive and idle:
            self._on_death(self.agent_id)

    def _end(self, reason: str) -> None:
        with self._lock:
            was_alive, self._alive = self._alive, False
            pending, self._pending = self._pending, {}
        with self._reaching:
            self._reaching.notify_all()
        if was_alive:
            # First, so that what is given to others for it is not to be read from it.
            self._on_death(self.agent_id)
        for work_id, done in pending.items():
            done(self._died(work_id, reason))

    def _died(self, work_id: TaskId, reason: str) -> TaskFailure:
        error = AgentError(
            f"agent {self.agent_id} at {self.launched.name} is gone: {reason}",
            agent=self.agent_id,
            stage=work_id.stage,
            task=work_id.task,
            attempt=work_id.attempt,
        )
        return TaskFailure(work_id, self.agent_id, FailureKind.AGENT_DIED, error)
