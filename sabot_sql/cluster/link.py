"""The session's end of its messages with one agent: dialled again when a connection breaks, until the lease is over."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import sabot_native
from sabot_native.control import ControlClient, Exchange, Pulse
from sabot_sql.cluster.provider import Check, LaunchedAgent
from sabot_sql.errors import AgentError
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.handshake import SESSION, Hello, Refused, Welcome, own_versions
from sabot_sql.protocol.ledger import Ledger
from sabot_sql.protocol.wire import Frame, frame_bytes, frame_from_bytes
from sabot_sql.transport.credentials import Credentials

_DIAL_SECONDS = 3.0
_ANSWER_SECONDS = 20.0
_REDIAL_SECONDS = 0.2
_REFUSALS = 3
"""So often in a row may nobody listen at the address of a process that was there, before it is taken for ended."""
_REFUSED_SECONDS = 0.04
"""The next try follows soon: the host has answered, so that it need not be waited for."""
_PULSE_MS = 250
_PULSE_IS_LATE_MS = 1000
_LATENESS_SECONDS = 1.0
_CHECK_SECONDS = 0.05
_GOODBYE_SECONDS = 0.5


class _NobodyListens(AgentError):
    """The host answers, and says that nothing listens there."""


class _Gone(AgentError):
    """A process listens there that does not know the session."""


@dataclass(frozen=True, slots=True)
class _Connection:
    client: ControlClient
    exchange: Exchange
    pulse: Pulse

    def close(self) -> None:
        self.exchange.close()
        self.pulse.stop()
        self.client.close()


class Link:
    """Frames to and from one agent, each once and in order, whatever happens to connections.

    ``on_frame`` gets what the agent sends, ``on_lost`` is told once why it is given up. :meth:`open` comes first.
    """

    def __init__(
        self,
        launched: LaunchedAgent,
        hello: Hello,
        credentials: Credentials,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.launched = launched
        self._hello = hello
        self._credentials = credentials
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._lease_seconds = hello.lease_ms / 1e3
        self._ledger = Ledger()
        self._changed = threading.Condition()
        self._outgoing: deque[bytes] = deque()
        self._connection: _Connection | None = None
        self._lost: str | None = None
        self._leaving = False
        self._closed = False
        self._silence = 0.0
        self._checked = time.monotonic()
        self.redials = 0

    def open(self, check: Check) -> Welcome:
        """Dial the agent for the first time.

        Raises:
            AgentError: it cannot be reached, or refuses the session.
        """
        outcome: list[tuple[_Connection, Welcome] | AgentError] = []

        def dial() -> None:
            try:
                outcome.append(self._dial(resumes=False))
            except AgentError as error:
                outcome.append(error)

        thread = threading.Thread(target=dial, name=f"sabot-{self._hello.agent_id}-dial", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_CHECK_SECONDS)
            check()
        (found,) = outcome
        if isinstance(found, AgentError):
            raise found
        connection, welcome = found
        self._checked = time.monotonic()
        threading.Thread(target=self._run, args=(connection, welcome), name=self._name("link"), daemon=True).start()
        threading.Thread(target=self._send_outgoing, name=self._name("send"), daemon=True).start()
        return welcome

    @property
    def lost(self) -> str | None:
        """Why the agent was given up, if it was."""
        return self._lost

    def send(self, frame: Frame) -> None:
        """Send as soon as the agent can be reached; does not wait."""
        data = frame_bytes(frame)
        with self._changed:
            self._outgoing.append(self._ledger.number(data))
            self._changed.notify_all()

    def check_lease(self) -> None:
        """Give up a connection, and later the agent, that has been silent for too long; call it often.

        The agent answers a pulse by a thread without Python's lock, so that being busy is no silence; time in which
        this process did not call is left out.
        """
        now = time.monotonic()
        passed, self._checked = min(now - self._checked, _LATENESS_SECONDS), now
        with self._changed:
            connection = self._connection
        silent_ms = connection.pulse.silent_ms if connection is not None else _PULSE_IS_LATE_MS
        if silent_ms < _PULSE_IS_LATE_MS:
            self._silence = silent_ms / 1e3
            return
        self._silence += passed
        if self._silence > self._lease_seconds:
            self.give_up(f"it has not answered for {self._silence:.0f} s")
        elif connection is not None and silent_ms > self._lease_seconds * 1e3 / 3:
            connection.exchange.close()  # whoever reads it dials anew

    def close(self) -> None:
        """Say goodbye where the agent can be reached, and dial no more."""
        with self._changed:
            self._leaving = True
        if self._lost is None:
            self.send(Frame("goodbye"))
            with self._changed:
                # The agent ends the exchange: a message that is only sent may be overtaken by its end.
                self._changed.wait_for(lambda: self._connection is None, _GOODBYE_SECONDS)
        with self._changed:
            self._closed = True
            connection, self._connection = self._connection, None
            self._changed.notify_all()
        if connection is not None:
            connection.close()

    # --- connections ---------------------------------------------------------------------------------------------

    def _dial(self, *, resumes: bool) -> tuple[_Connection, Welcome]:
        where = self.launched.name
        try:
            # Says at once that nobody listens, which gRPC does not tell from a link that is slow.
            socket.create_connection((self.launched.host, self.launched.port), _DIAL_SECONDS).close()
        except ConnectionRefusedError as error:
            raise _NobodyListens(f"nobody listens at {where}: {error.strerror}") from None
        except OSError as error:
            raise AgentError(f"{where} cannot be reached: {error.strerror or error}") from None
        hello = replace(self._hello, versions=own_versions(), resumes=resumes, received=self._ledger.received)
        client = ControlClient(self.launched.host, self.launched.port, **self._credentials.of_client())
        exchange: Exchange | None = None
        try:
            client.health(int(_DIAL_SECONDS * 1e3))
            exchange = client.open(SESSION)
            welcome = self._greeted(exchange, hello)
            return _Connection(client, exchange, client.pulse(_PULSE_MS)), welcome
        except BaseException as error:
            if exchange is not None:
                exchange.close()
            client.close()
            if isinstance(error, sabot_native.NativeError | MalformedMessage):
                raise AgentError(f"{where} does not answer as an agent: {error}") from None
            raise

    def _greeted(self, exchange: Exchange, hello: Hello) -> Welcome:
        blobs: list[bytes] = []
        timer = threading.Timer(_ANSWER_SECONDS, exchange.close)
        timer.daemon = True
        timer.start()
        try:
            exchange.send(frame_bytes(Frame("hello", encode(hello, blobs), blobs)))
            answer = exchange.receive()
        finally:
            timer.cancel()
        frame = Frame("nothing") if answer is None else frame_from_bytes(answer)
        if frame.kind == "refused":
            refused = decode(Refused, frame.body, frame.blobs)
            kind = _Gone if refused.gone else AgentError
            raise kind(f"{self.launched.name} refuses the session: {refused.reason}", agent=hello.agent_id)
        if frame.kind != "welcome":
            raise MalformedMessage(f"it said {frame.kind!r} to a hello")
        return decode(Welcome, frame.body, frame.blobs)

    def _run(self, connection: _Connection, welcome: Welcome) -> None:
        """Read one connection after the other."""
        while True:
            try:
                again = self._ledger.resume(welcome.received)
            except MalformedMessage as error:
                self.give_up(str(error))
                return
            with self._changed:
                if self._closed or self._lost:
                    break
                self._connection = connection
                self._outgoing = deque(again)
                self._changed.notify_all()
            self._read(connection.exchange)
            with self._changed:
                self._connection = None
                self._changed.notify_all()
            connection.close()
            found = self._redialled()
            if found is None:
                return
            self.redials += 1
            connection, welcome = found
        connection.close()

    def _read(self, exchange: Exchange) -> None:
        try:
            while (message := exchange.receive()) is not None:
                data = self._ledger.accept(message)
                if data is not None:
                    self._on_frame(frame_from_bytes(data))
                acknowledgement = self._ledger.acknowledgement()
                if acknowledgement is not None:
                    with self._changed:
                        self._outgoing.append(acknowledgement)
                        self._changed.notify_all()
        except (sabot_native.NativeError, MalformedMessage):
            return

    def _redialled(self) -> tuple[_Connection, Welcome] | None:
        refusals = 0
        while not (self._leaving or self._closed or self._lost):
            pause = _REDIAL_SECONDS
            try:
                return self._dial(resumes=True)
            except _Gone as error:
                self.give_up(error.message)
            except _NobodyListens as error:
                refusals, pause = refusals + 1, _REFUSED_SECONDS
                if refusals == _REFUSALS:
                    self.give_up(error.message)
            except AgentError:
                refusals = 0
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._lost, pause)
        return None

    def _send_outgoing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._lost or (self._connection is not None and self._outgoing)
                )
                if self._closed or self._lost or self._connection is None:
                    return
                exchange = self._connection.exchange
                message = self._outgoing.popleft()
                self._changed.notify_all()
            try:
                exchange.send(message)
            except sabot_native.NativeError:
                exchange.close()  # whoever reads it dials anew; the ledger has the message
                with self._changed:
                    self._changed.wait_for(
                        lambda exchange=exchange: (  # type: ignore[misc]
                            self._closed
                            or self._lost
                            or self._connection is None
                            or self._connection.exchange is not exchange
                        )
                    )

    def give_up(self, reason: str) -> None:
        """The agent is lost, for this ``reason``; a second one changes nothing."""
        with self._changed:
            if self._closed or self._lost:
                return
            self._lost = reason
            connection = self._connection
            self._changed.notify_all()
        if connection is not None:
            connection.exchange.close()
        self._on_lost(reason)

    def _name(self, what: str) -> str:
        return f"sabot-{self._hello.agent_id}-{what}"
