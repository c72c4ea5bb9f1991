"""A Unix socket at which the user's own processes may ask a session what it does.

Nothing is made before somebody asks: a query costs the session nothing for being seen. Who connects gets one JSON value
and the end of the stream.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sabot_sql.errors import ConfigError
from sabot_sql.forks import closed_in_children, is_own
from sabot_sql.top.runtime_directory import own_directory

SUFFIX = ".sock"
_SEND_SECONDS = 2.0
_BACKLOG = 8
_CREDENTIALS = struct.Struct("3i")


class Publisher:
    """Answers with what ``describe`` gives, in a thread of its own, until it is closed.

    Where no socket can be made the session goes unseen: it works all the same.
    """

    def __init__(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._describe = describe
        self._owner = os.getpid()
        self._path: Path | None = None
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError, ConfigError):
            self._listen()

    @property
    def path(self) -> Path | None:
        """The socket; None where there is none."""
        return self._path

    def close(self) -> None:
        """Take the socket away; may be called again."""
        listener, self._socket = self._socket, None
        if listener is None or not is_own(self._owner):
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # which ends the wait for the next who asks
        listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        path = own_directory() / f"{self._owner}-{secrets.token_hex(4)}{SUFFIX}"
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            path.unlink(missing_ok=True)
            raise
        closed_in_children(listener)
        self._path, self._socket = path, listener
        threading.Thread(target=self._serve, args=(listener,), name="sabot-top", daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                asking, _ = listener.accept()
            except OSError:
                return  # closed
            # Whatever becomes of one who asks, the next is answered.
            with asking, contextlib.suppress(Exception):
                asking.settimeout(_SEND_SECONDS)
                if is_own_user(asking):
                    asking.sendall(json.dumps(self._describe()).encode())


def is_own_user(connection: socket.socket) -> bool:
    """Whether the other end is a process of this user's, or of root's."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(told)
    return user in (os.getuid(), 0)
