"""The agent's end of a session's messages, over whichever exchange the session has open."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import sabot_native
from sabot_native.control import Exchange
from sabot_sql.protocol.codec import MalformedMessage
from sabot_sql.protocol.ledger import Ledger
from sabot_sql.protocol.wire import Frame, frame_bytes, frame_from_bytes


class SessionConnection:
    """Sends frames to a session and hands on what it sends, each once, however often it dials anew.

    ``handle`` gets the frames one after the other; what it raises as malformed ends the exchange.
    """

    def __init__(self, name: str, handle: Callable[[Frame], None]) -> None:
        self._name = name
        self._handle = handle
        self._ledger = Ledger()
        self._changed = threading.Condition()
        self._receiving = threading.Lock()
        self._outgoing: deque[bytes] = deque()
        self._exchange: Exchange | None = None
        self._detached = time.monotonic()

    @property
    def received(self) -> int:
        """The number of the last message that came from the session."""
        return self._ledger.received

    @property
    def silent_seconds(self) -> float:
        """How long no exchange has been open."""
        with self._changed:
            return 0.0 if self._exchange is not None else time.monotonic() - self._detached

    def send(self, frame: Frame) -> None:
        """Send as soon as the session can be reached; does not wait."""
        data = frame_bytes(frame)
        with self._changed:
            # Numbered and queued in one step: the session wants them in order.
            self._outgoing.append(self._ledger.number(data))
            self._changed.notify_all()

    def serve(self, exchange: Exchange, arrived: int) -> None:
        """Serve the session over ``exchange``, which takes the place of an older one, until it ends.

        ``arrived`` is the number of the last message that the session has.
        """
        with self._changed:
            before, self._exchange = self._exchange, exchange
            self._outgoing = deque(self._ledger.resume(arrived))
            self._changed.notify_all()
        if before is not None:
            before.close()
        threading.Thread(target=self._send, args=(exchange,), name=f"{self._name}-send", daemon=True).start()
        try:
            while (message := exchange.receive()) is not None:
                with self._receiving:
                    if self._exchange is not exchange:
                        return
                    data = self._ledger.accept(message)
                    if data is not None:
                        self._handle(frame_from_bytes(data))
                self._acknowledge()
        except (sabot_native.NativeError, MalformedMessage):
            return  # it dials anew, or is gone
        finally:
            self._detach(exchange)

    def close(self) -> None:
        """End the exchange."""
        with self._changed:
            exchange = self._exchange
        if exchange is not None:
            self._detach(exchange)

    def _acknowledge(self) -> None:
        with self._changed:
            message = self._ledger.acknowledgement()
            if message is not None:
                self._outgoing.append(message)
                self._changed.notify_all()

    def _send(self, exchange: Exchange) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._exchange is not exchange or self._outgoing)
                if self._exchange is not exchange:
                    return
                message = self._outgoing.popleft()
            try:
                exchange.send(message)
            except sabot_native.NativeError:
                self._detach(exchange)
                return

    def _detach(self, exchange: Exchange) -> None:
        exchange.close()
        with self._changed:
            if self._exchange is exchange:
                self._exchange, self._detached = None, time.monotonic()
                self._outgoing.clear()  # the ledger has what did not arrive
                self._changed.notify_all()
