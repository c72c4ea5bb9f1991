"""A server that answers with whatever bytes it is told to: Flight's framing is right, what lies in it need not be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc

DO_GET = "/arrow.flight.protocol.FlightService/DoGet"


def ticket_message(ticket: bytes) -> bytes:
    """The protobuf message Ticket: field 1, bytes."""
    length, size = bytearray(), len(ticket)
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    return b"\x0a" + bytes([*length, size]) + ticket


def messages_of(port: int, ticket: bytes) -> list[bytes]:
    """What a true server answers, as bytes of FlightData messages."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return list(channel.unary_stream(DO_GET)(ticket_message(ticket), timeout=20))


class LyingServer(grpc.GenericRpcHandler):
    """Sends ``messages`` to every reader; then ends well, or as if it had died, or stalls until the reader gives up."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.dies = False
        self.stalls = False
        self.call_ended = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_stream_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.call_ended.set)
        yield from self.messages
        if self.stalls:
            self.call_ended.wait(60)
        if self.dies:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()
