"""The process of an agent service: it listens, welcomes sessions within its grants, and drains when it is told to."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import sabot_native
from sabot_native.control import AgentServer, Exchange
from sabot_sql.agent.agent_instance import InstanceConfig
from sabot_sql.errors import AgentError, ConfigError, SabotSQLError
from sabot_sql.printable import printable
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.handshake import (
    SESSION,
    UPLOAD,
    Hello,
    Refused,
    Upload,
    Welcome,
    difference,
    own_versions,
)
from sabot_sql.protocol.wire import Frame, frame_bytes, frame_from_bytes
from sabot_sql.scratch import Scratch
from sabot_sql.service.data_roots import DataRoots
from sabot_sql.service.hosted_session import HostedSession
from sabot_sql.transport.credentials import Credentials

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET_BYTES = 16
_TICK_SECONDS = 0.25
_ACCEPT_MS = 500
_DUCKDB_SHARE = 0.75
_SHUFFLE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What a service was started with.

    ``memory_bytes`` is for all sessions together; each of up to ``sessions`` has an equal part. ``advertised`` is the
    address by which other agents reach it, its own where there is none. After ``idle_seconds`` without a session the
    service ends; None is never.
    """

    host: str
    port: int
    advertised: tuple[str, int] | None
    credentials: Credentials
    client_ca: bytes
    memory_bytes: int
    threads: int
    sessions: int
    spill_directory: str
    data_roots: tuple[str, ...]
    grace_seconds: float
    idle_seconds: float | None = None


class AgentService:
    """Serves sessions until :meth:`stop`; see :class:`ServiceConfig`.

    Raises:
        ConfigError: it cannot listen there, or would be open to anybody.
    """

    def __init__(self, config: ServiceConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._versions = own_versions()
        self._roots = DataRoots.of(config.data_roots)
        self._lock = threading.Lock()
        self._sessions: dict[str, HostedSession] = {}
        self._opening = 0
        self._draining = False
        self._stop = threading.Event()
        self._scratch = Scratch(config.spill_directory)
        credentials = config.credentials
        try:
            self._server = AgentServer(
                config.host,
                config.port,
                token=credentials.token,
                tls_certificate=credentials.tls_certificate,
                tls_key=credentials.tls_key,
                tls_client_root=config.client_ca,
            )
        except sabot_native.NativeError as error:
            raise ConfigError(
                f"cannot listen on {config.host}:{config.port}: {error}",
                hint="beyond loopback give --tls-cert, --tls-key, --tls-ca and --token-file",
            ) from None
        self._advertised = config.advertised or (config.host, self._server.port)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    def serve(self) -> None:
        """Serve until it was drained or stopped, or nobody wanted it for too long."""
        threading.Thread(target=self._accept, name="sabot-accept", daemon=True).start()
        self._tell_health()
        drained_until = float("inf")
        used = time.monotonic()
        while not self._stop.wait(_TICK_SECONDS):
            self._expire()
            self._tell_health()
            if self._hosted() or self._opening:
                used = time.monotonic()
            elif self._config.idle_seconds is not None and time.monotonic() - used > self._config.idle_seconds:
                break
            if self._draining:
                drained_until = min(drained_until, time.monotonic() + self._config.grace_seconds)
                if time.monotonic() > drained_until or not self._hosted():
                    break
        self.close()

    def drain(self) -> None:
        """Welcome nobody and take no new tasks; :meth:`serve` returns once all sessions left, or the grace is over."""
        self._draining = True
        for session in self._hosted():
            session.drain()

    def stop(self) -> None:
        """Let :meth:`serve` return now."""
        self._stop.set()

    def close(self) -> None:
        """End all sessions and remove what they left."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.close()
        self._server.close()
        self._scratch.close()

    # --- exchanges -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._stop.is_set():
            exchange = self._server.accept(_ACCEPT_MS)
            if exchange is not None:
                threading.Thread(target=self._serve, args=(exchange,), name="sabot-exchange", daemon=True).start()

    def _serve(self, exchange: Exchange) -> None:
        try:
            opening = exchange.receive()
            if opening is None:
                return
            frame = frame_from_bytes(opening)
            if exchange.command == SESSION:
                self._welcome(exchange, frame)
            elif exchange.command == UPLOAD:
                self._take(exchange, frame)
        except (sabot_native.NativeError, MalformedMessage) as error:
            self._say(f"{exchange.peer}: {printable(str(error))}")
        finally:
            exchange.close()

    def _welcome(self, exchange: Exchange, frame: Frame) -> None:
        versions = frame.body.get("versions") if isinstance(frame.body, dict) else None
        if frame.kind != "hello" or not isinstance(versions, dict):
            raise MalformedMessage("a session that says no hello")
        other = difference(versions, self._versions)
        if other is not None:
            self._refuse(exchange, f"the versions differ: {other}")
            return
        hello = decode(Hello, frame.body, frame.blobs)
        if not all(map(_ID.fullmatch, (hello.session_id, hello.agent_id))) or len(hello.secret) < _SECRET_BYTES:
            raise MalformedMessage("a session or agent with a name that is none, or without a secret")
        try:
            session = self._found(hello) if hello.resumes else self._opened(hello)
        except SabotSQLError as error:
            self._refuse(exchange, error.message, gone=hello.resumes)
            return
        grant = self._grant(hello)
        memory_bytes = grant.memory_bytes + grant.shuffle_bytes
        roots = tuple(self._config.data_roots)
        received = session.connection.received
        blobs: list[bytes] = []
        welcome = Welcome(self._versions, session.place, received, grant.threads, memory_bytes, roots)
        exchange.send(frame_bytes(Frame("welcome", encode(welcome, blobs), blobs)))
        session.connection.serve(exchange, hello.received)

    def _take(self, exchange: Exchange, frame: Frame) -> None:
        upload = decode(Upload, frame.body, frame.blobs)
        with self._lock:
            session = self._sessions.get(f"{upload.session_id}/{upload.agent_id}")
        if session is None or not session.knows(upload.secret):
            raise MalformedMessage("an upload of no session that is known here")
        session.take(upload, exchange)

    @staticmethod
    def _refuse(exchange: Exchange, reason: str, *, gone: bool = False) -> None:
        exchange.send(frame_bytes(Frame("refused", encode(Refused(reason, gone), []))))

    # --- sessions ------------------------------------------------------------------------------------------------

    def _hosted(self) -> list[HostedSession]:
        with self._lock:
            return list(self._sessions.values())

    def _found(self, hello: Hello) -> HostedSession:
        with self._lock:
            session = self._sessions.get(f"{hello.session_id}/{hello.agent_id}")
        if session is None or session.ended or not session.knows(hello.secret):
            raise AgentError("the session is not known here any more")
        return session

    def _opened(self, hello: Hello) -> HostedSession:
        """A new agent of the session; an older one that it has here is of no use to it any more."""
        if self._draining:
            raise AgentError("the agent is being drained")
        for older in self._hosted():
            if older.session_id == hello.session_id and older.knows(hello.secret):
                self._drop(older)
        self._expire()
        with self._lock:
            if len(self._sessions) + self._opening >= self._config.sessions:
                raise AgentError(f"the agent serves {self._config.sessions} sessions already (--sessions)")
            self._opening += 1
        try:
            session = HostedSession(
                hello,
                self._grant(hello),
                self._advertised,
                self._server,
                self._config.credentials,
                self._roots,
            )
            with self._lock:
                self._sessions[session.name] = session
        finally:
            with self._lock:
                self._opening -= 1
        return session

    def _grant(self, hello: Hello) -> InstanceConfig:
        directory = self._directory(hello.session_id, hello.agent_id)
        for name in ("segments", "duckdb"):
            (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        share = self._config.memory_bytes // self._config.sessions
        return InstanceConfig(
            agent_id=hello.agent_id,
            shuffle_bytes=int(share * _SHUFFLE_SHARE),
            spill_directory=str(directory / "segments"),
            temp_directory=str(directory / "duckdb"),
            threads=self._config.threads,
            memory_bytes=int(share * _DUCKDB_SHARE),
        )

    def _directory(self, session_id: str, agent_id: str) -> Path:
        return self._scratch.path / f"{session_id}.{agent_id}"

    def _expire(self) -> None:
        for session in self._hosted():
            if session.ended:
                self._drop(session)

    def _drop(self, session: HostedSession) -> None:
        with self._lock:
            found = self._sessions.pop(session.name, None)
        if found is not None:
            found.close()
            shutil.rmtree(self._directory(found.session_id, found.agent_id), ignore_errors=True)

    def _tell_health(self) -> None:
        sessions = self._hosted()
        health = {
            "state": "draining" if self._draining else "serving",
            "process": os.getpid(),
            "versions": asdict(self._versions),
            "sessions": [session.figures() for session in sessions],
            "sessions_most": self._config.sessions,
            "memory_bytes": self._config.memory_bytes,
            "threads": self._config.threads,
            "served": self._server.metrics(),
        }
        self._server.set_health(json.dumps(health).encode())


def run_service(service: AgentService, *, with_parent: bool, read_input: Callable[[], bytes]) -> None:
    """Serve until SIGTERM has drained the service, a second one or SIGINT has stopped it.

    ``with_parent``: also when ``read_input`` comes to its end, which it does when whoever started this process ends.
    """

    def terminate(_number: int, _frame: object) -> None:
        if service_drains.is_set():
            service.stop()
        service_drains.set()

    service_drains = threading.Event()
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, lambda *_: service.stop())

    def drain() -> None:
        service_drains.wait()
        service.drain()

    threading.Thread(target=drain, name="sabot-drain", daemon=True).start()
    if with_parent:

        def follow() -> None:
            while read_input():
                pass
            service.stop()

        threading.Thread(target=follow, name="sabot-parent", daemon=True).start()
    service.serve()
