"""Numbers the messages of one end of a session, so that each is handled once however often a connection breaks."""

from __future__ import annotations

import struct
import threading
from collections import deque

from sabot_sql.protocol.codec import MalformedMessage

_HEADER = struct.Struct("!QQ")
_DUE_MESSAGES = 16
_DUE_BYTES = 256 << 10


class Ledger:
    """What this end has sent and does not know to have arrived, and the number of what it received last.

    A message is ``number, number received last, bytes``; the number 0 only acknowledges. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._received = 0
        self._told = 0
        self._untold_bytes = 0

    @property
    def received(self) -> int:
        """The number of the last message that came."""
        with self._lock:
            return self._received

    def number(self, data: bytes) -> bytes:
        """The next message, which is kept until the other end has it."""
        with self._lock:
            self._sent += 1
            self._kept.append((self._sent, data))
            return self._message(self._sent, data)

    def accept(self, message: bytes) -> bytes | None:
        """The bytes of a message that is new; None of one that came before or only acknowledges.

        Raises:
            MalformedMessage: messages before it are missing, or it acknowledges what was never sent.
        """
        if len(message) < _HEADER.size:
            raise MalformedMessage("a message without its numbers")
        number, arrived = _HEADER.unpack_from(message)
        with self._lock:
            self._forget(arrived)
            if number <= self._received:
                return None
            if number != self._received + 1:
                raise MalformedMessage(f"message {number} came after message {self._received}")
            self._received = number
            self._untold_bytes += len(message)
        return message[_HEADER.size :]

    def resume(self, arrived: int) -> list[bytes]:
        """The messages that are to be sent again on a new connection, where the other end has ``arrived``.

        Raises:
            MalformedMessage: it cannot have.
        """
        with self._lock:
            self._forget(arrived)
            return [self._message(number, data) for number, data in self._kept]

    def acknowledgement(self) -> bytes | None:
        """What to send where the other end keeps much that came, and nothing else is sent."""
        with self._lock:
            if self._received - self._told < _DUE_MESSAGES and self._untold_bytes < _DUE_BYTES:
                return None
            return self._message(0, b"")

    def _forget(self, arrived: int) -> None:
        if arrived > self._sent:
            raise MalformedMessage(f"message {arrived} is said to have arrived, of {self._sent}")
        while self._kept and self._kept[0][0] <= arrived:
            self._kept.popleft()

    def _message(self, number: int, data: bytes) -> bytes:
        self._told, self._untold_bytes = self._received, 0
        return _HEADER.pack(number, self._received) + data
