"""Asks the sessions of this user on this machine, and agent services, what they do."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sabot_sql.cluster_target import ClusterTarget
from sabot_sql.top.publisher import SUFFIX, is_own_user
from sabot_sql.top.runtime_directory import check_own, runtime_directory
from sabot_sql.transport.credentials import Credentials

Status = dict[str, Any]
"""What one session or service says of itself; with ``error`` where it does not."""

_ANSWER_SECONDS = 2.0
_MOST_BYTES = 64 << 20
_AT_A_TIME = 16
_PART_BYTES = 1 << 20

_T = TypeVar("_T")


def sessions() -> list[Status]:
    """What each session says, oldest process first; sockets that nobody listens at any more are removed.

    Raises:
        ConfigError: the directory of the sockets is not this user's alone.
    """
    directory = runtime_directory()
    try:
        check_own(directory)
    except OSError:
        return []  # no session was ever there
    found = sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    told = [status for status in _all(found, _session) if status is not None]
    return sorted(told, key=lambda status: (int(status.get("process", 0)), str(status.get("session", ""))))


def services(target: ClusterTarget, credentials: Credentials) -> list[Status]:
    """What each agent service of a cluster says, in the order of its addresses."""
    return _all(target.addresses, lambda address: _service(*address, credentials))


def _all(places: Iterable[_T], ask: Callable[[_T], Any]) -> list[Any]:
    with ThreadPoolExecutor(_AT_A_TIME, "sabot-top") as threads:
        return list(threads.map(ask, places))


def _session(path: Path) -> Status | None:
    process = path.name.partition("-")[0]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(str(path))
            if not is_own_user(connection):
                return None
            status = json.loads(_received(connection))
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        except FileNotFoundError:
            return None  # it has just ended
        except (OSError, ValueError) as error:
            reason = "it does not answer" if isinstance(error, TimeoutError) else str(error)
            return {"process": int(process) if process.isdecimal() else 0, "error": reason}
    return status if isinstance(status, dict) else None


def _received(connection: socket.socket) -> bytes:
    give_up = time.monotonic() + _ANSWER_SECONDS
    parts: list[bytes] = []
    size = 0
    while part := connection.recv(_PART_BYTES):
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES or time.monotonic() > give_up:
            raise TimeoutError
    return b"".join(parts)


def _service(host: str, port: int, credentials: Credentials) -> Status:
    from sabot_native import NativeError  # native code, which sessions are asked without
    from sabot_native.control import ControlClient

    place = {"address": f"{host}:{port}"}
    try:
        with contextlib.closing(ControlClient(host, port, **credentials.of_client())) as client:
            health = json.loads(client.health(int(_ANSWER_SECONDS * 1e3)))
    except (NativeError, ValueError) as error:
        return {**place, "error": str(error)}
    return {**place, **health} if isinstance(health, dict) else {**place, "error": "it says nothing"}


def totals(found: Sequence[Status]) -> tuple[int, int]:
    """How many sessions, and how many queries and jobs they run."""
    return len(found), sum(len(status.get("queries", ())) for status in found)
