"""What a forked child must not do to its parent: end its agents, remove its files, keep its sockets open.

A fork has copies of all objects and none of the threads that work for them. Whatever belongs to the process that made
it asks :func:`is_own` before it ends or removes something, and is never freed in a child: DuckDB and the native core
would wait there for threads that do not exist.
"""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

from sabot_sql.errors import SessionClosed

_never_freed: weakref.WeakSet[Any] = weakref.WeakSet()
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_locks: list[Any] = []


def is_own(process_id: int) -> bool:
    """Whether this is the process of that id, and not a fork of it."""
    return os.getpid() == process_id


def forked(owner: int) -> SessionClosed:
    """The error of whoever uses what belongs to the process ``owner`` in a fork of it."""
    return SessionClosed(
        f"the session belongs to process {owner}, of which process {os.getpid()} is a fork",
        code="FORKED",
        hint="make a session there with sabot_sql.connect(), or start processes by spawn",
    )


def never_freed_in_children(owner: object) -> None:
    """Forked children keep ``owner``, and all that it refers to, until they have ended."""
    _never_freed.add(owner)


def closed_in_children(connection: socket.socket) -> None:
    """Forked children close their copy, so that the other end sees when this process ends."""
    _sockets.add(connection)


def free_in_children(lock: Any) -> None:
    """Forked children find the lock of a module free, whichever thread held it."""
    _locks.append(lock)


def _in_child() -> None:
    import ctypes  # takes time that few need to spend

    for lock in _locks:
        lock._at_fork_reinit()
    for owner in list(_never_freed):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    for connection in list(_sockets):
        descriptor = connection.detach()
        if descriptor >= 0:
            os.close(descriptor)
    _never_freed.clear()
    _sockets.clear()


os.register_at_fork(after_in_child=_in_child)
