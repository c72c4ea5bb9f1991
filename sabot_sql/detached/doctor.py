"""What durable queries have left on this machine: looked at, and cleaned away."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sabot_sql.detached.durable_query import DurableQuery
from sabot_sql.detached.host_client import HostClient
from sabot_sql.detached.kept_result import Outcome
from sabot_sql.detached.messages import DescribeHost, Done, HostState, StopHost
from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.errors import AgentError, SabotSQLError

_UNFINISHED_SECONDS = 60.0
"""A client writes down its query and asks the host within less."""
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that nobody needs any more, and why."""

    path: str
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The state directory as it is. ``open_queries`` have not ended: the next host goes on with them."""

    directory: str
    host: HostState | None
    queries: int
    open_queries: int
    bytes: int
    leftovers: tuple[Leftover, ...]

    def json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "directory": self.directory,
            "host": None if self.host is None else asdict(self.host),
            "queries": {"known": self.queries, "open": self.open_queries, "bytes": self.bytes},
            "leftovers": [asdict(leftover) for leftover in self.leftovers],
        }

    def text(self) -> str:
        """All of it for people."""
        host = self.host
        lines = [
            f"state directory  {self.directory}",
            "durable host     none runs"
            if host is None
            else f"durable host     process {host.pid}, number {host.epoch}, release {host.version}, "
            f"{host.running} running, {host.queued} queued, {host.database}",
            f"queries          {self.queries} known, {self.open_queries} open, {self.bytes:,} bytes",
        ]
        lines += [f"left behind      {item.path} ({item.bytes:,} bytes): {item.reason}" for item in self.leftovers]
        return "\n".join(lines if self.leftovers else [*lines, "left behind      nothing"])


def diagnose(state: StateDirectory) -> Diagnosis:
    """Look at the state directory, and ask the host if there is one."""
    client = HostClient(state)
    host = None
    with suppress(AgentError):
        host = client.ask(DescribeHost(), HostState, start=False)
    known = [path for path in sorted(state.queries.iterdir()) if path.is_dir()]
    opened = {path.name for path in known if _is_open(path)}
    leftovers = [_leftover(path, "no query was handed over with it") for path in known if _is_abandoned(path)]
    ended = [path for path in sorted(state.segments.iterdir()) if path.name not in opened]
    leftovers += [_leftover(path, "its query has ended") for path in ended]
    total = sum(map(size_bytes, (state.queries, state.segments)))
    return Diagnosis(str(state.path), host, len(known), len(opened), total, tuple(leftovers))


def clean(diagnosis: Diagnosis) -> int:
    """Remove what was left behind; gives the bytes."""
    for leftover in diagnosis.leftovers:
        shutil.rmtree(leftover.path, ignore_errors=True)
    return sum(leftover.bytes for leftover in diagnosis.leftovers)


def stop_host(state: StateDirectory) -> bool:
    """End the host and wait until it is gone; says whether there was one. Open queries go on with the next one.

    Raises:
        AgentError: it does not end.
    """
    client = HostClient(state)
    if not client.runs():
        return False
    client.ask(StopHost(), Done, start=False)
    ends = time.monotonic() + _STOP_SECONDS
    while client.runs():
        if time.monotonic() > ends:
            raise AgentError(f"the durable host does not end within {_STOP_SECONDS:.0f} s", code="HOST_STAYS")
        time.sleep(0.02)
    return True


def size_bytes(directory: Path) -> int:
    """What the files of a directory take."""
    total = 0
    for file in directory.rglob("*"):
        with suppress(OSError):
            total += file.lstat().st_size
    return total


def _is_open(path: Path) -> bool:
    try:
        DurableQuery.read(path)
        return Outcome.read(path) is None
    except SabotSQLError:
        return False


def _is_abandoned(path: Path) -> bool:
    """Whether a client died while it wrote down its query."""
    if (path / "query.json").exists():
        return False
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _UNFINISHED_SECONDS
    return False


def _leftover(path: Path, reason: str) -> Leftover:
    return Leftover(str(path), size_bytes(path), reason)
