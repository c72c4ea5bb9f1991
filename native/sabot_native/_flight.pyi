from collections.abc import Sequence
from typing import Protocol, Self, final, type_check_only

@type_check_only
class _Part(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def raise_error(self) -> None: ...

@type_check_only
class _Schema(Protocol):
    def __arrow_c_schema__(self) -> object: ...

@type_check_only
class _Stream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class Server:
    """The C++ Flight server."""

    def __new__(
        cls,
        *,
        host: str,
        port: int,
        token: str,
        tls_certificate: bytes,
        tls_key: bytes,
        tls_client_root: bytes,
        compression: str,
        wire_bytes_per_second: int,
    ) -> Self: ...
    def add_source(self, name: str, source: object) -> None:
        """Answer reads of tickets that name this source; it is a capsule of ShuffleManager.ticket_source()."""
    def remove_source(self, name: str) -> None:
        """Answer no more reads of that source."""
    def set_health(self, text: bytes) -> None:
        """Answer the health question with this text from now on."""
    def accept(self, timeout_ms: int) -> Exchange | None:
        """Wait for the next exchange that a client opens; None after timeout_ms, or once the server is down."""
    @property
    def port(self) -> int:
        """The port that it listens on."""
    def metrics(self) -> dict[str, int]:
        """Counters of reads, bytes and refusals."""
    def shutdown(self) -> None:
        """End all reads and exchanges, and listen no more."""

@final
class ClientPool:
    """The C++ Flight clients."""

    def __new__(
        cls,
        *,
        host: str,
        port: int,
        token: str,
        tls: bool,
        tls_root_certificate: bytes,
        tls_certificate: bytes,
        tls_key: bytes,
        connections: int,
        credit_bytes: int,
        silence_ms: int,
    ) -> Self: ...
    def read(self, ticket: bytes, deadline_ms: int) -> RemoteStream:
        """The partitions that a ticket names; nothing is asked of the server before the stream is read."""

@final
class RemoteStream:
    """Partitions of an agent on another host: every consumer has them fetched anew."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """An ArrowArrayStream capsule; raises the server's error, DeadlineExceeded, Cancelled, or SegmentLost."""
    def cancel(self) -> None:
        """End this read, from any thread: its consumers get Cancelled.

        Only a call that still waits for the server's first word goes on, to its deadline.
        """
    def raise_error(self) -> None:
        """Raise the error that ended a stream, if one did: consumers report it as an error of their own."""

@final
class Exchange:
    """One end of a stream of messages in both directions."""

    @property
    def command(self) -> bytes:
        """What the client asked for."""
    @property
    def peer(self) -> str:
        """The address of the client, as gRPC names it."""
    def send(self, message: bytes) -> None:
        """Send a message of any size; waits while the connection is full. Raises SegmentLost once it is broken."""
    def receive(self) -> bytes | None:
        """Wait for the next message; None once the other end has ended the exchange, SegmentLost where it broke."""
    def send_stream(self, stream: _Stream) -> None:
        """At the client: send all batches, and how many rows they had."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """At the server: the stream that the client sends; it fails unless all of its rows came."""
    def raise_error(self) -> None:
        """Raise the error that ended the stream, if one did."""
    def close(self) -> None:
        """End the exchange; at the client whoever waits in it is woken."""

@final
class Pulse:
    """Tells whether the other end of a connection runs and can be reached, whatever holds the GIL here or there."""

    @property
    def silent_ms(self) -> int:
        """How long nothing was answered; time in which this process did not run itself is left out."""
    def stop(self) -> None:
        """Ask no more."""

@final
class ControlClient:
    """A connection of its own to one agent's server."""

    def __new__(
        cls,
        *,
        host: str,
        port: int,
        token: str,
        tls: bool,
        tls_root_certificate: bytes,
        tls_certificate: bytes,
        tls_key: bytes,
    ) -> Self: ...
    def health(self, deadline_ms: int) -> bytes:
        """What the server says of its agent; raises DeadlineExceeded, or SegmentLost where it is not there."""
    def open(self, command: bytes) -> Exchange:
        """Open an exchange with the agent."""
    def pulse(self, interval_ms: int) -> Pulse:
        """Ask every interval_ms whether the agent is there."""
    def close(self) -> None:
        """Dial no more; what was opened ends by itself. May be called again."""

@final
class JoinedStream:
    """Streams of equal columns, those of other hosts among them, one after the other as one."""

    def __new__(cls, schema: _Schema, parts: Sequence[_Part], *, ahead: int) -> Self: ...
    @property
    def parts(self) -> tuple[_Part, ...]:
        """The streams that it was made of."""
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The streams in their order; up to ``ahead`` of other hosts are fetched before they are read."""
    def raise_error(self) -> None:
        """Raise the error that ended a part, if one did."""
    def cancel(self) -> None:
        """End all fetches, from any thread."""
