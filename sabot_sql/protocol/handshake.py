"""What a session and an agent on another host tell each other before the first command."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sabot_sql.protocol.task_spec import EdgeOutput, OutputReport, TaskId
from sabot_sql.protocol.wire import PROTOCOL_VERSION

SESSION = b"session"
UPLOAD = b"upload"
"""What an exchange with an agent is for."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What must be the same at both ends: plans, aggregate states and rows travel as these versions write them."""

    protocol: str
    sabot_sql: str
    duckdb: str
    pyarrow: str


@dataclass(frozen=True, slots=True)
class HostMark:
    """Two processes with equal marks can map each other's memory."""

    boot: str
    namespaces: str
    user: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the committed outputs of an agent are read: over the network, or on its own host from its memory."""

    agent_id: str
    host: str
    port: int
    mark: HostMark
    process_id: int
    arena_descriptor: int
    spill_directory: str


@dataclass(frozen=True, slots=True)
class Hello:
    """A session wants an agent, or goes on with it on a new connection.

    ``secret`` is known to the session and its agents alone; with the token of the cluster it makes the key of tickets.
    ``received`` is the number of the last message that came from the agent.
    """

    versions: Versions
    session_id: str
    agent_id: str
    secret: bytes
    resumes: bool
    received: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The agent's answer: what it grants to the session, and the number of the last message that came from it.

    ``data_roots`` are the directories whose files it may read.
    """

    versions: Versions
    place: Place
    received: int
    threads: int
    memory_bytes: int
    data_roots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there is no welcome. ``gone``: the session that is to go on is not known any more."""

    reason: str
    gone: bool


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether the agent could reach a peer; ``reason`` is why not."""

    agent_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Rows that the session reads and the agent is to place and keep, as if it had made them."""

    session_id: str
    agent_id: str
    secret: bytes
    task: TaskId
    outputs: tuple[EdgeOutput, ...]
    deadline_ms: int | None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the agent committed of an upload."""

    outputs: tuple[OutputReport, ...]


def own_versions() -> Versions:
    """Those of this process."""
    return Versions(str(PROTOCOL_VERSION), _version("sabot-sql"), _version("duckdb"), _version("pyarrow"))


def difference(session: Mapping[str, Any], agent: Versions) -> str | None:
    """What is not the same, with both versions; ``session`` is as it came, whatever its version wrote."""
    found = [
        f"{field.name} {session.get(field.name)!s:.40} at the session, {ours} at the agent"
        for field in fields(agent)
        if session.get(field.name) != (ours := asdict(agent)[field.name])
    ]
    return "; ".join(found) or None


def host_mark() -> HostMark:
    """That of this process: the running kernel, its namespaces of processes and networks, the user."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespaces = " ".join(str(Path("/proc/self/ns", kind).readlink()) for kind in ("pid", "net"))
    except OSError:
        boot, namespaces = "", str(os.getpid())  # nobody else has it: everything goes over the network
    return HostMark(boot, namespaces, os.getuid())


def ticket_key(token: str, secret: bytes) -> bytes:
    """The key of a session's tickets: who has the token alone cannot make it, nor who has the secret alone."""
    return hmac.digest(token.encode(), b"sabot tickets of a session " + secret, hashlib.sha256)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
