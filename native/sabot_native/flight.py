"""Committed partitions over Arrow Flight, for agents on other hosts. Server and client are C++; no Python per batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sabot_native import _flight
from sabot_native._flight import JoinedStream, RemoteStream

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sabot_native._native import ShuffleManager

__all__ = ["FlightPeer", "FlightServer", "JoinedStream", "RemoteStream"]


class FlightServer:
    """Serves a manager's committed partitions to holders of tickets sealed with ``key``.

    With ``token``, every call must bring it. Anything but loopback needs it, and a TLS certificate and its key (PEM);
    with ``tls_client_root`` clients must show a certificate that this authority signed.

    ``compression`` is a codec for every stream, "none", or "sample": each stream of 8 MiB or more begins with a trial
    of both codecs, and takes the one that saves more time on a wire of ``wire_bytes_per_second`` than it costs, if one
    does. "auto" is "sample" for readers on other hosts and "none" on this one.
    """

    def __init__(
        self,
        manager: ShuffleManager,
        key: bytes,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "",
        tls_certificate: bytes = b"",
        tls_key: bytes = b"",
        tls_client_root: bytes = b"",
        compression: Literal["auto", "sample", "lz4", "zstd", "none"] = "auto",
        wire_bytes_per_second: int = 1_250_000_000,
    ) -> None:
        self._server = _flight.Server(
            host=host,
            port=port,
            token=token,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_root=tls_client_root,
            compression=compression,
            wire_bytes_per_second=wire_bytes_per_second,
        )
        self._server.add_source("", manager.ticket_source(key))
        self.host = host

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def metrics(self) -> dict[str, int]:
        """Counters of all answers so far.

        streams (lz4_streams and zstd_streams among them), messages, rows, bytes (in memory), sent_bytes, refused calls.
        """
        return self._server.metrics()

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
    """The client of one agent's FlightServer: any number of reads at a time share its connections.

    ``tls_root_certificate`` (PEM) turns TLS on; beyond loopback there is no other way. ``tls_certificate`` and
    ``tls_key`` are shown to a server that asks for them. However slow a reader, its server is at most twice
    ``credit_bytes`` and a few messages ahead of it. Reads beyond the first eight at a time have less, and for
    each size of credit ``connections`` of their own. Reads of a server that answers nothing at all for ``silence_ms``
    end with SegmentLost; 0 waits to the deadline.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str = "",
        tls_root_certificate: bytes = b"",
        tls_certificate: bytes = b"",
        tls_key: bytes = b"",
        connections: int = 1,
        credit_bytes: int = 4 << 20,
        silence_ms: int = 0,
    ) -> None:
        self._pool = _flight.ClientPool(
            host=host,
            port=port,
            token=token,
            tls=bool(tls_root_certificate),
            tls_root_certificate=tls_root_certificate,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            connections=connections,
            credit_bytes=credit_bytes,
            silence_ms=silence_ms,
        )

    def read(self, ticket: bytes, *, deadline_ms: int) -> RemoteStream:
        """The partitions that a ticket names, fetched when the stream is read; a fetch ends within ``deadline_ms``."""
        return self._pool.read(ticket, deadline_ms)
