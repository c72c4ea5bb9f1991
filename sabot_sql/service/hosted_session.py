"""One agent of one session inside a service: its grant, its DuckDB, its rows, its peers."""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import sabot_native
from sabot_native.control import AgentServer, Exchange
from sabot_sql.agent.agent_instance import AgentInstance, InstanceConfig
from sabot_sql.agent.command_handler import CommandHandler
from sabot_sql.agent.failures import reason_of
from sabot_sql.agent.output_writer import OwnWriter
from sabot_sql.agent.thread_agent import ThreadAgent
from sabot_sql.errors import AgentError, InternalError
from sabot_sql.protocol.codec import decode, encode
from sabot_sql.protocol.handshake import Hello, Place, Reached, Upload, Uploaded, host_mark, ticket_key
from sabot_sql.protocol.task_spec import FailureKind, QueryContext, TaskFailure, TaskId
from sabot_sql.protocol.wire import Frame, frame_bytes
from sabot_sql.service.connection import SessionConnection
from sabot_sql.service.data_roots import DataRoots
from sabot_sql.transport.all_hosts import AllHosts
from sabot_sql.transport.credentials import Credentials

_REACH_MS = 5000
_BEGIN_SECONDS = 10.0
_PEERS_AT_A_TIME = 16


class HostedSession:
    """Serves one session until it says goodbye, or has been away for longer than its lease allows.

    ``advertised`` is the address by which other agents are to reach the service.
    """

    def __init__(
        self,
        hello: Hello,
        config: InstanceConfig,
        advertised: tuple[str, int],
        server: AgentServer,
        credentials: Credentials,
        roots: DataRoots,
    ) -> None:
        self.session_id, self.agent_id = hello.session_id, hello.agent_id
        self._secret = hello.secret
        self.grace_seconds = 2 * hello.lease_ms / 1e3
        self._server = server
        self._roots = roots
        key = ticket_key(credentials.token, hello.secret)
        self._manager = sabot_native.ShuffleManager(
            config.agent_id, budget_bytes=config.shuffle_bytes, spill_directory=config.spill_directory
        )
        mark = host_mark()
        self.place = Place(
            config.agent_id, *advertised, mark, os.getpid(), self._manager.arena_fd(), config.spill_directory
        )
        self._hosts = AllHosts(config.agent_id, self._manager, key, credentials, mark)
        self._instance = AgentInstance(config, self._manager, self._hosts)
        self._instance.warm_up()
        self._agent = ThreadAgent(config.agent_id, lambda context, _: self._instance.runner(context), self._manager)
        self._writer = OwnWriter(config.agent_id, self._manager)
        self.connection = SessionConnection(f"sabot-{config.agent_id}", self._handle)
        self._commands = CommandHandler(self._agent, self.connection.send)
        self._begun = threading.Condition()
        self._queries: dict[str, str] = {}
        self._ended = threading.Event()
        self._draining = False
        server.add(self.name, self._manager, key)

    @property
    def name(self) -> str:
        """Unique among the sessions of a service."""
        return f"{self.session_id}/{self.agent_id}"

    def knows(self, secret: bytes) -> bool:
        """Whether it is the session's secret; how long that takes says nothing of it."""
        return hmac.compare_digest(self._secret, secret)

    @property
    def ended(self) -> bool:
        """Whether the session needs nothing any more: it said so, or has been away for too long."""
        return self._ended.is_set() or self.connection.silent_seconds > self.grace_seconds

    @property
    def holds_rows(self) -> bool:
        """Whether something that it committed has not been released."""
        return bool(self._manager.metrics()["outputs"])

    def figures(self) -> dict[str, int | str]:
        """What health tells of it."""
        metrics = self._manager.metrics()
        names = ("budget_bytes", "pool_bytes", "disk_bytes", "spilled_bytes", "wait_ms", "outputs", "rows", "bytes")
        return {"agent": self.agent_id, "queries": len(self._queries), **{name: metrics[name] for name in names}}

    def drain(self) -> None:
        """Take no new tasks; what runs goes on, and what was committed is served."""
        self._draining = True
        self.connection.send(Frame("draining"))

    def close(self) -> None:
        """Interrupt everything and free all of it."""
        self._ended.set()
        self._server.remove(self.name)
        self.connection.close()
        self._agent.close()
        if self._agent.ended:
            self._instance.close()
        self._manager.close()

    # --- commands ------------------------------------------------------------------------------------------------

    def _handle(self, frame: Frame) -> None:
        match frame.kind:
            case "peers":
                places = tuple(decode(Place, body, frame.blobs) for body in frame.body)
                threading.Thread(target=self._learn, args=(places,), name="sabot-peers", daemon=True).start()
            case "detach":
                self._hosts.forget(str(frame.body))
            case "goodbye":
                self._ended.set()
                self.connection.close()
            case "begin":
                context = decode(QueryContext, frame.body, frame.blobs)
                fault = self._roots.fault(context, self.agent_id)
                self._agent.begin(replace(context, paths=self._roots.mapped(context)))
                with self._begun:
                    self._queries[context.query_id] = fault
                    self._begun.notify_all()
            case "task" | "split":
                refusal = self._refusal(frame)
                if refusal is None:
                    self._commands.handle(frame)
                else:
                    blobs: list[bytes] = []
                    self.connection.send(Frame("TaskFailure", encode(refusal, blobs), blobs))
            case "release":
                self._commands.handle(frame)
                query_id, edge_id = frame.body
                if edge_id is None:
                    with self._begun:
                        self._queries.pop(query_id, None)
            case _:
                self._commands.handle(frame)

    def _refusal(self, frame: Frame) -> TaskFailure | None:
        task_id = decode(TaskId, frame.body["id"], frame.blobs)
        if self._draining:
            error = AgentError(f"agent {self.agent_id} is being drained", agent=self.agent_id)
            return TaskFailure(task_id, self.agent_id, FailureKind.AGENT_DIED, error)
        fault = self._queries.get(task_id.query_id)
        if frame.kind == "task" and fault:
            return TaskFailure(task_id, self.agent_id, FailureKind.USER, self._roots.error(fault))
        return None

    # --- peers ---------------------------------------------------------------------------------------------------

    def _learn(self, places: Iterable[Place]) -> None:
        def reach(place: Place) -> Reached:
            try:
                self._hosts.reach(place, _REACH_MS)
            except sabot_native.NativeError as error:
                return Reached(place.agent_id, str(error) or type(error).__name__)
            self._hosts.learn(place)
            return Reached(place.agent_id, "")

        with ThreadPoolExecutor(_PEERS_AT_A_TIME, "sabot-reach") as threads:
            for reached in threads.map(reach, places):
                blobs: list[bytes] = []
                self.connection.send(Frame("reached", encode(reached, blobs), blobs))

    # --- uploads -------------------------------------------------------------------------------------------------

    def take(self, upload: Upload, exchange: Exchange) -> None:
        """Commit the rows that come over ``exchange`` as outputs of a task, and answer what that gave."""
        blobs: list[bytes] = []
        try:
            self._await_begin(upload.task.query_id)
            token = sabot_native.CancelToken()
            outputs = self._writer.write(exchange, upload.task, upload.outputs, token, upload.deadline_ms)
            answer = Frame("uploaded", encode(Uploaded(outputs), blobs), blobs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the session is told
            kind, reason = reason_of(error, cancelled=False)
            failure = TaskFailure(upload.task, self.agent_id, kind, reason)
            answer = Frame("failed", encode(failure, blobs), blobs)
        exchange.send(frame_bytes(answer))

    def _await_begin(self, query_id: str) -> None:
        """The announcement of a query comes another way, and may be later."""
        give_up = time.monotonic() + _BEGIN_SECONDS
        with self._begun:
            if not self._begun.wait_for(lambda: query_id in self._queries, give_up - time.monotonic()):
                raise InternalError(f"agent {self.agent_id} was told nothing of query {query_id}")
