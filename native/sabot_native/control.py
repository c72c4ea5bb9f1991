"""Commands and events between a session and agents on other hosts, over the connections of Arrow Flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sabot_native import _flight
from sabot_native._flight import Exchange, Pulse

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sabot_native._native import ShuffleManager

__all__ = ["AgentServer", "ControlClient", "Exchange", "Pulse"]


class AgentServer:
    """Serves committed partitions of any number of managers, and exchanges, on one port.

    The options are those of :class:`sabot_native.flight.FlightServer`. Pulses and health are answered without Python.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str = "",
        tls_certificate: bytes = b"",
        tls_key: bytes = b"",
        tls_client_root: bytes = b"",
    ) -> None:
        self._server = _flight.Server(
            host=host,
            port=port,
            token=token,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            tls_client_root=tls_client_root,
            compression="auto",
            wire_bytes_per_second=1_250_000_000,
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def add(self, name: str, manager: ShuffleManager, key: bytes) -> None:
        """Serve what holders of tickets sealed with ``key`` may read of ``manager``, until :meth:`remove`."""
        self._server.add_source(name, manager.ticket_source(key))

    def remove(self, name: str) -> None:
        """Serve nothing of it any more; streams that are open go on."""
        self._server.remove_source(name)

    def set_health(self, text: bytes) -> None:
        """What the health action answers from now on."""
        self._server.set_health(text)

    def accept(self, timeout_ms: int) -> Exchange | None:
        """The next exchange that a client opened; None within the time."""
        return self._server.accept(timeout_ms)

    def metrics(self) -> dict[str, int]:
        """See :meth:`sabot_native.flight.FlightServer.metrics`."""
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


class ControlClient:
    """A new connection to one agent's server; the options are those of :class:`sabot_native.flight.FlightPeer`.

    It dials on until :meth:`close`, also while nobody uses it: a traceback that refers to it would keep it dialling.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str = "",
        tls: bool = False,
        tls_root_certificate: bytes = b"",
        tls_certificate: bytes = b"",
        tls_key: bytes = b"",
    ) -> None:
        self._client = _flight.ControlClient(
            host=host,
            port=port,
            token=token,
            tls=tls,
            tls_root_certificate=tls_root_certificate,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
        )

    def health(self, deadline_ms: int) -> bytes:
        """What the server says of itself.

        Raises SegmentLost or DeadlineExceeded when it does not answer in time, InvalidTicket when it refuses the token.
        """
        return self._client.health(deadline_ms)

    def open(self, command: bytes) -> Exchange:
        """An exchange of any length; whether somebody answers shows with its first message."""
        return self._client.open(command)

    def pulse(self, interval_ms: int) -> Pulse:
        """Ask the server once an interval whether it is there, until the pulse is stopped."""
        return self._client.pulse(interval_ms)

    def close(self) -> None:
        """Dial no more; exchanges and pulses that are open end by themselves. May be called again."""
        self._client.close()
