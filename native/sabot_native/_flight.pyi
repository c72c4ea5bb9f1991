from typing import final

@final
class Server:
    """The C++ Flight server."""

    def __init__(self, source: object, host: str, port: int, tls_certificate: bytes, tls_key: bytes) -> None: ...
    @property
    def port(self) -> int: ...
    def shutdown(self) -> None: ...

@final
class ClientPool:
    """The C++ Flight clients."""

    def __init__(self, host: str, port: int, tls_root_certificate: bytes, connections: int) -> None: ...
    def read(self, ticket: bytes, deadline_ms: int | None) -> object: ...
