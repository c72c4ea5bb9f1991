"""Rows that only the session's process can read, sent to agents as if these had made them.

Agents need not be able to dial the session, which may be a notebook behind a router.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import sabot_native
from sabot_native.control import ControlClient, Exchange
from sabot_sql.agent.output_writer import ArrowStream
from sabot_sql.cluster.remote_agent import RemoteAgent
from sabot_sql.errors import AgentError
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.handshake import UPLOAD, Upload, Uploaded
from sabot_sql.protocol.task_spec import EdgeOutput, OutputReport, TaskFailure, TaskId
from sabot_sql.protocol.wire import Frame, frame_bytes, frame_from_bytes
from sabot_sql.transport.credentials import Credentials

_CHECK_SECONDS = 0.05


class Uploads:
    """See :class:`~sabot_sql.agent.output_writer.OutputWriter`: tasks take turns among the agents of ``members``."""

    def __init__(
        self,
        session_id: str,
        secret: bytes,
        credentials: Credentials,
        members: Callable[[], Sequence[RemoteAgent]],
    ) -> None:
        self._session_id = session_id
        self._secret = secret
        self._credentials = credentials
        self._members = members
        self._lock = threading.Lock()
        self._clients: dict[str, ControlClient] = {}

    def write(
        self,
        stream: ArrowStream,
        task_id: TaskId,
        outputs: Sequence[EdgeOutput],
        cancel: sabot_native.CancelToken,
        deadline_ms: int | None,
    ) -> tuple[OutputReport, ...]:
        """See :class:`~sabot_sql.agent.output_writer.OutputWriter`."""
        members = self._members()
        if not members:
            raise AgentError("there is no agent to send rows to")
        agent = members[(task_id.task + task_id.attempt) % len(members)]
        upload = Upload(self._session_id, agent.agent_id, self._secret, task_id, tuple(outputs), deadline_ms)
        exchange = self._client(agent).open(UPLOAD)
        ended = threading.Event()
        watcher = threading.Thread(target=_end_when_cancelled, args=(exchange, cancel, ended), daemon=True)
        watcher.start()
        try:
            blobs: list[bytes] = []
            exchange.send(frame_bytes(Frame("upload", encode(upload, blobs), blobs)))
            exchange.send_stream(stream)
            answer = exchange.receive()
        except sabot_native.SegmentLost:
            with self._lock:
                broken = self._clients.pop(agent.agent_id, None)
            if broken is not None:
                broken.close()
            if cancel.cancelled:
                raise sabot_native.Cancelled("the upload was cancelled") from None
            raise
        finally:
            ended.set()
            exchange.close()
        if answer is None:
            raise sabot_native.SegmentLost(f"agent {agent.agent_id} ended an upload without an answer")
        return _outputs(frame_from_bytes(answer))

    def close(self) -> None:
        """Dial no agent any more."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _client(self, agent: RemoteAgent) -> ControlClient:
        with self._lock:
            client = self._clients.get(agent.agent_id)
            if client is None:
                launched = agent.launched
                client = ControlClient(launched.host, launched.port, **self._credentials.of_client())
                self._clients[agent.agent_id] = client
            return client


def _end_when_cancelled(exchange: Exchange, cancel: sabot_native.CancelToken, ended: threading.Event) -> None:
    while not ended.wait(_CHECK_SECONDS):
        if cancel.cancelled:
            exchange.close()
            return


def _outputs(frame: Frame) -> tuple[OutputReport, ...]:
    match frame.kind:
        case "uploaded":
            return decode(Uploaded, frame.body, frame.blobs).outputs
        case "failed":
            raise decode(TaskFailure, frame.body, frame.blobs).error
        case _:
            raise MalformedMessage(f"no answer to an upload: {frame.kind!r}")
