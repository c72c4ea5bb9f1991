"""Options of a session, parsed once; everything below takes the frozen result."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sabot_sql.errors import ConfigError

if TYPE_CHECKING:
    from sabot_planner import PlanSettings

MAX_AGENTS = 256

_BUDGET_SHARE_OF_MEMORY = 0.7
_DUCKDB_SHARE = 0.60
_SHUFFLE_SHARE = 0.20
_RESULT_SHARE = 0.15
_MIN_MEMORY_BYTES = 64 << 20

_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip


class Isolation(StrEnum):
    """What an agent is: a thread of this process on the session's DuckDB, or a process with a DuckDB of its own."""

    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Everything a session was asked for, with the defaults filled in.

    ``memory_bytes`` is the budget of the whole process tree; the other ``*_bytes`` are derived from it:
    ``duckdb_memory_bytes`` and ``shuffle_bytes`` are per agent, ``result_bytes`` per result.
    ``threads`` is per agent. ``partitions`` forces the number of partitions of every keyed edge.
    ``duckdb`` are DuckDB's own settings, given to every instance when it is made.
    """

    database: str = ":memory:"
    read_only: bool = False
    agents: int | Literal["auto"] = "auto"
    isolation: Isolation = Isolation.THREAD
    memory_bytes: int = 0
    threads: int = 1
    partitions: int | None = None
    adaptive: bool = True
    spill_directory: str = ""
    broadcast_bytes: int | None = None
    duckdb: Mapping[str, str] = field(default_factory=dict)

    @property
    def agent_count(self) -> int:
        """How many agents run a query; ``"auto"`` is one on a single machine, where DuckDB uses every core itself."""
        return 1 if self.agents == "auto" else self.agents

    @property
    def instance_threads(self) -> int:
        """Threads of the session's own DuckDB, which thread agents share."""
        return self.threads * (self.agent_count if self.isolation is Isolation.THREAD else 1)

    @property
    def duckdb_memory_bytes(self) -> int:
        """DuckDB's memory limit in each agent; process agents leave one share to the session's own instance."""
        shares = self.agent_count + (self.isolation is Isolation.PROCESS)
        return self.duckdb_total_bytes // shares

    @property
    def duckdb_total_bytes(self) -> int:
        """What all DuckDB instances may use together."""
        return int(self.memory_bytes * _DUCKDB_SHARE)

    @property
    def shuffle_bytes(self) -> int:
        """The shuffle pool of one agent."""
        return int(self.memory_bytes * _SHUFFLE_SHARE) // self.agent_count

    @property
    def result_bytes(self) -> int:
        """A result larger than this is kept on disk."""
        return int(self.memory_bytes * _RESULT_SHARE)

    def plan_settings(self) -> PlanSettings:
        """The planner's thresholds under this configuration."""
        from sabot_planner import PlanSettings  # it would load sqlglot, which a query on one agent does not need

        defaults = PlanSettings()
        broadcast_bytes = self.broadcast_bytes if self.broadcast_bytes is not None else defaults.broadcast_bytes
        return replace(
            defaults,
            adaptive=self.adaptive,
            partitions=self.partitions,
            broadcast_bytes=broadcast_bytes,
            repeat_rows=defaults.repeat_rows if self.partitions is None else 0,
            grant_bytes=max(1, self.duckdb_memory_bytes // 4),
        )

    def with_agents(self, agents: int | Literal["auto"] | None, isolation: str | None) -> SessionConfig:
        """This configuration with another number or kind of agents; None keeps what there is."""
        return replace(
            self,
            agents=self.agents if agents is None else _parse_agents(agents),
            isolation=self.isolation if isolation is None else _parse_isolation(isolation),
            threads=self.threads if agents is None else max(1, _cores() // _agent_count(_parse_agents(agents))),
        )


def parse_config(
    database: str | os.PathLike[str] = ":memory:",
    *,
    read_only: bool = False,
    agents: int | Literal["auto"] = "auto",
    isolation: str = "thread",
    memory_limit: int | str | None = None,
    threads: int | None = None,
    partitions: int | None = None,
    adaptive: bool = True,
    spill_directory: str | os.PathLike[str] | None = None,
    broadcast_limit: int | str | None = None,
    config: Mapping[str, object] | None = None,
) -> SessionConfig:
    """The configuration that the options of :func:`sabot_sql.connect` ask for.

    Raises:
        ConfigError: an option has a wrong type or value.
    """
    count = _parse_agents(agents)
    return SessionConfig(
        database=os.fspath(database),
        read_only=read_only,
        agents=count,
        isolation=_parse_isolation(isolation),
        memory_bytes=_memory_budget_bytes(memory_limit),
        threads=_positive("threads", threads, default=max(1, _cores() // _agent_count(count))),
        partitions=None if partitions is None else _positive("partitions", partitions, default=1),
        adaptive=bool(adaptive),
        # It is used until the session ends, wherever the process has gone by then.
        spill_directory=str(Path(spill_directory if spill_directory is not None else tempfile.gettempdir()).absolute()),
        broadcast_bytes=None if broadcast_limit is None else parse_bytes("broadcast_limit", broadcast_limit),
        duckdb=_parse_duckdb_settings(config or {}),
    )


def parse_bytes(option: str, value: int | str) -> int:
    """``value`` in bytes; text is a number with a unit as DuckDB reads it (``"2GB"`` is 10⁹, ``"2GiB"`` is 2³⁰).

    Raises:
        ConfigError: it is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{option}={value!r} is not a size", hint='give bytes, or text like "512MiB"')
    return int(float(match.group(1)) * unit)


def _parse_agents(agents: object) -> int | Literal["auto"]:
    if agents == "auto":
        return "auto"
    if isinstance(agents, int) and not isinstance(agents, bool) and 1 <= agents <= MAX_AGENTS:
        return agents
    raise ConfigError(f"agents={agents!r} must be 1 to {MAX_AGENTS}, or 'auto'")


def _agent_count(agents: int | Literal["auto"]) -> int:
    return 1 if agents == "auto" else agents


def _parse_isolation(isolation: object) -> Isolation:
    if isinstance(isolation, str) and isolation in set(Isolation):
        return Isolation(isolation)
    raise ConfigError(f"isolation={isolation!r} must be 'thread' or 'process'")


def _positive(option: str, value: object, *, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ConfigError(f"{option}={value!r} must be a whole number of at least 1")


def _parse_duckdb_settings(settings: Mapping[str, object]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for name, value in settings.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"config: {name!r} is not the name of a setting")
        parsed[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return parsed


def _memory_budget_bytes(memory_limit: int | str | None) -> int:
    if memory_limit is None:
        return int(_machine_memory_bytes() * _BUDGET_SHARE_OF_MEMORY)
    budget = parse_bytes("memory_limit", memory_limit)
    if budget < _MIN_MEMORY_BYTES:
        raise ConfigError(f"memory_limit={memory_limit!r} is below the least that works, {_MIN_MEMORY_BYTES >> 20}MiB")
    return budget


def _machine_memory_bytes() -> int:
    """RAM, or what the control group of this process may use where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    for text in _read_texts(limits):
        if text.isdecimal():
            memory = min(memory, int(text))
    return memory


def _cores() -> int:
    """Cores this process may run on, under its affinity mask and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for text in _read_texts([Path("/sys/fs/cgroup/cpu.max")]):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def _read_texts(paths: list[Path]) -> list[str]:
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text().strip())
        except OSError:
            continue  # not a control group of this kind
    return texts
