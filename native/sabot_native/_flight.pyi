from typing import Self, final

@final
class Server:
    """The C++ Flight server."""

    def __new__(cls, source: object, host: str, port: int, tls_certificate: bytes, tls_key: bytes) -> Self: ...
    @property
    def port(self) -> int: ...
    def shutdown(self) -> None: ...

@final
class ClientPool:
    """The C++ Flight clients."""

    def __new__(cls, host: str, port: int, tls_root_certificate: bytes, connections: int) -> Self: ...
    def read(self, ticket: bytes, deadline_ms: int | None) -> object: ...
