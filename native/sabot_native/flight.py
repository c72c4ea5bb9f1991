"""Committed partitions over Arrow Flight, for agents on other hosts. Server and client are C++; no Python per batch."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

# Loaded first: the extension links against the libarrow and libarrow_flight that these bring.
import pyarrow as pa
import pyarrow.flight

from sabot_native import _flight, errors

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sabot_native._native import ShuffleManager

__all__ = ["FlightPeer", "FlightServer", "RemoteStream"]

# In the order of sabot::ErrorCode.
_ERRORS: tuple[type[errors.NativeError], ...] = (
    errors.NativeError,
    errors.NativeError,
    errors.Cancelled,
    errors.DeadlineExceeded,
    errors.SpillQuotaExceeded,
    errors.CorruptSegment,
    errors.SegmentLost,
    errors.InvalidTicket,
    errors.UnsupportedType,
    errors.StreamError,
)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _native_error(error: Exception) -> errors.NativeError:
    """The error that a failed call stands for: the server's own, a deadline, or an agent that cannot be reached."""
    text = str(error)
    if found := re.search(r"sabot-error (\d+): ([^\n]*?)(?:\. (?:Detail|gRPC|Client).*)?$", text, re.MULTILINE):
        number = int(found[1]) - 1
        if number < len(_ERRORS):
            return _ERRORS[number](found[2])
    if "Deadline Exceeded" in text or "timed out" in text.lower():
        return errors.DeadlineExceeded(text)
    return errors.SegmentLost(text)


class FlightServer:
    """Serves a manager's committed partitions to holders of tickets sealed with ``key``.

    Anything but loopback needs a TLS certificate and its key, both PEM.
    """

    def __init__(
        self,
        manager: ShuffleManager,
        key: bytes,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_certificate: bytes = b"",
        tls_key: bytes = b"",
    ) -> None:
        if not _is_loopback(host) and not (tls_certificate and tls_key):
            raise errors.NativeError(f"refusing to serve on {host} without TLS: give tls_certificate and tls_key")
        try:
            self._server = _flight.Server(manager.ticket_source(key), host, port, tls_certificate, tls_key)
        except RuntimeError as error:
            raise errors.NativeError(str(error)) from None
        self.host = host

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def close(self) -> None:
        """Stop serving; calls that are under way have a second to end."""
        self._server.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class FlightPeer:
    """A pool of connections to one agent's FlightServer, each shared by any number of reads."""

    def __init__(self, host: str, port: int, *, tls_root_certificate: bytes = b"", connections: int = 2) -> None:
        self._pool = _flight.ClientPool(host, port, tls_root_certificate, connections)

    def read(self, ticket: bytes, *, deadline_ms: int | None = None) -> RemoteStream:
        """The partitions that a ticket names, fetched when the stream is read; ``deadline_ms`` holds per read."""
        return RemoteStream(self._pool, ticket, deadline_ms)


class RemoteStream:
    """Partitions of an agent on another host: every ``__arrow_c_stream__`` fetches them anew."""

    def __init__(self, pool: _flight.ClientPool, ticket: bytes, deadline_ms: int | None) -> None:
        self._pool, self._ticket, self._deadline_ms = pool, ticket, deadline_ms

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """An ArrowArrayStream capsule; raises the server's error, DeadlineExceeded, or SegmentLost."""
        try:
            return self._pool.read(self._ticket, self._deadline_ms)
        except RuntimeError as error:
            raise _native_error(error) from None

    def __arrow_c_schema__(self) -> object:
        """An ArrowSchema capsule; fetches the beginning of the stream."""
        return pa.RecordBatchReader.from_stream(self).schema.__arrow_c_schema__()
