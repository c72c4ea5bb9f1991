from typing import Self, final

@final
class Server:
    """The C++ Flight server."""

    def __new__(
        cls,
        source: object,
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
    @property
    def port(self) -> int: ...
    def metrics(self) -> dict[str, int]: ...
    def shutdown(self) -> None: ...

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
    ) -> Self: ...
    def read(self, ticket: bytes, deadline_ms: int) -> RemoteStream: ...

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
