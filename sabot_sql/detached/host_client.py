"""The client of the durable host: finds it, starts it where there is none, and asks it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from typing import TypeVar

from sabot_sql.detached.messages import Answer, Ask, Greeting
from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.errors import AgentError, SabotSQLError, UsageError, error_from_dict
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.handshake import own_versions
from sabot_sql.protocol.wire import Frame, receive_frame, send_frame

HOST_GONE = "HOST_GONE"
"""Code of an ``AgentError``: the durable host does not start, or does not answer."""

DATABASE_DOWN = "DATABASE_DOWN"
"""Code of an ``AgentError``: the durable host is there, and its system database does not answer."""

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_AGAIN_SECONDS = 3.0
_ANSWER_SECONDS = 60.0
_LAST_WORDS_BYTES = 2000
_TRIES = 3

_A = TypeVar("_A", bound=Answer)


class HostClient:
    """Asks the durable host of a state directory; for any number of threads.

    A host that ended is started anew: whatever it had accepted it goes on with.
    """

    def __init__(self, state: StateDirectory) -> None:
        self.state = state
        self._lock = threading.Lock()

    def ask(self, question: Ask, kind: type[_A], *, start: bool = True, wait_seconds: float = 0.0) -> _A:
        """The answer to ``question``, which may take ``wait_seconds`` longer than usual.

        ``start=False`` asks only a host that runs.

        Raises:
            AgentError: with code ``HOST_GONE`` where there is no host.
            SabotSQLError: what the host refused it with.
        """
        reason: Exception | None = None
        for _ in range(_TRIES):
            connection = self._connected(start)
            with closing(connection):
                connection.settimeout(_ANSWER_SECONDS + wait_seconds)
                try:
                    return self._exchange(connection, question, kind)
                except (OSError, MalformedMessage) as error:
                    reason = error
            if not start:
                break
        raise AgentError(
            f"the durable host does not answer: {reason}",
            code=HOST_GONE,
            hint=f"{self.state.log} says what it did; sabot-sql doctor looks at it",
        )

    def runs(self) -> bool:
        """Whether there is a host."""
        connection = _connect(self.state)
        if connection is None:
            return False
        connection.close()
        return True

    def _exchange(self, connection: socket.socket, question: Ask, kind: type[_A]) -> _A:
        greeting = Greeting(own_versions().sabot_sql, self.state.token())
        for message in (greeting, question):
            send_frame(connection, Frame(type(message).__name__, encode(message, [])))
        frame = receive_frame(connection)
        if frame is None:
            raise ConnectionResetError("it closed the connection")
        if frame.kind == "error":
            raise error_from_dict(frame.body)
        return decode(kind, frame.body, frame.blobs)

    def _connected(self, start: bool) -> socket.socket:
        connection = _connect(self.state)
        if connection is not None:
            return connection
        if not start:
            raise AgentError("no durable host runs", code=HOST_GONE)
        with self._lock:
            return self._started()

    def _started(self) -> socket.socket:
        """A connection to a host that is started, by this process or by another one that was quicker."""
        begins = os.path.getsize(self.state.log) if self.state.log.exists() else 0  # noqa: PTH202
        process = start_host(self.state)
        started = time.monotonic()
        ends = started + _START_SECONDS
        while time.monotonic() < ends:
            connection = _connect(self.state)
            if connection is not None:
                return connection
            code = process.poll()
            if code not in (None, 0):
                break
            if code == 0 and time.monotonic() - started > _AGAIN_SECONDS:
                # There was another host, which may have ended before it listened.
                process, started = start_host(self.state), time.monotonic()
            time.sleep(_POLL_SECONDS)
        else:
            process.kill()
        words = _last_words(self.state, begins)
        failed = _failure(words)
        if failed is not None:
            raise failed
        raise AgentError(
            f"the durable host does not start: {words or f'nothing within {_START_SECONDS:.0f} s'}",
            code=HOST_GONE,
            hint=f"{self.state.log} says what it did",
        )


def start_host(state: StateDirectory) -> subprocess.Popen[bytes]:
    """Start a host in a process that nothing of this one ends; where one runs already, the new one ends by itself."""
    with os.fdopen(os.open(state.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sabot_sql.durable", "--state", str(state.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    # It outlives this process, which has to take note of its end all the same.
    threading.Thread(target=process.wait, name="sabot-durable-host", daemon=True).start()
    return process


def _connect(state: StateDirectory) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_ANSWER_SECONDS)
    # An address is at most 108 bytes long; a directory may be deeper.
    try:
        directory = os.open(state.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        connection.close()
        return None
    try:
        connection.connect(f"/proc/self/fd/{directory}/{state.socket.name}")
    except OSError:
        connection.close()
        return None
    finally:
        os.close(directory)
    return connection


def _last_words(state: StateDirectory, begins: int) -> str:
    with suppress(OSError), state.log.open("rb") as log:
        log.seek(max(begins, os.fstat(log.fileno()).st_size - _LAST_WORDS_BYTES))
        return log.read().decode(errors="replace").strip()
    return ""


def _failure(words: str) -> SabotSQLError | None:
    """What a host that could not start said in one line, where it was an error of ours."""
    import json

    for line in reversed(words.splitlines()):
        with suppress(ValueError, TypeError, KeyError, UsageError):
            return error_from_dict(json.loads(line))
    return None
