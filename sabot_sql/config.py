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
from typing import TYPE_CHECKING, Any, Literal

from sabot_sql.arguments import flag, mapping, path, shown, whole
from sabot_sql.cluster_target import ClusterTarget, agents_of, is_cluster, is_dask_client, parse_cluster
from sabot_sql.errors import ConfigError

if TYPE_CHECKING:
    from sabot_planner import PlanSettings

MAX_AGENTS = 256
MAX_THREADS = 1024
MAX_PARTITIONS = 1 << 14
"""What the shuffle can number."""

_BUDGET_SHARE_OF_MEMORY = 0.7
_DUCKDB_SHARE = 0.60
_SHUFFLE_SHARE = 0.20
_RESULT_SHARE = 0.15
_MAX_BYTES = 1 << 60

# What processes take before they do anything, as PSS: a page of a program that several map counts once.
_ALONE_BYTES = 128 << 20
"""Python, Arrow, and DuckDB with the session's own instance."""
_BESIDE_AGENTS_BYTES = 152 << 20
"""The same with the planner and the native core."""
_THREAD_AGENT_BYTES = 8 << 20
_PROCESS_AGENT_BYTES = 44 << 20
_LEAST_AGENT_BYTES = 32 << 20
_LEAST_WORKING_BYTES = 20 << 20
"""For each instance of DuckDB, with what belongs to it."""

_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip


class Isolation(StrEnum):
    """What an agent is: a thread of this process, another process, or a service; several agents have a DuckDB each."""

    THREAD = "thread"
    PROCESS = "process"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Everything a session was asked for, with the defaults filled in.

    ``memory_bytes`` is the budget of the whole process tree; the other ``*_bytes`` are derived from it:
    ``duckdb_memory_bytes`` and ``shuffle_bytes`` are per agent, ``result_bytes`` for all results together.
    ``threads`` is per agent, and stays whatever the number of agents of a query where ``threads_given``. ``partitions``
    forces the number of partitions of every keyed edge.
    ``duckdb`` are DuckDB's own settings, given to every instance when it is made. ``cluster`` has the agents where the
    isolation is ``REMOTE``; the budget is then that of the session's own process, and each service has its own: of
    ``agent_memory_bytes`` where an engine starts it for this session. A cluster has ``cluster_agents``; where the
    session ``chooses_agents``, a query runs on one or on all of them, whichever is better for it.
    """

    database: str = ":memory:"
    read_only: bool = False
    agents: int | Literal["auto"] = "auto"
    isolation: Isolation = Isolation.THREAD
    memory_bytes: int = 0
    threads: int = 1
    threads_given: bool = False
    partitions: int | None = None
    adaptive: bool = True
    spill_directory: str = ""
    broadcast_bytes: int | None = None
    duckdb: Mapping[str, str] = field(default_factory=dict)
    cluster: ClusterTarget | None = None
    agent_memory_bytes: int | None = None
    chooses_agents: bool = False
    cluster_agents: int = 0

    @property
    def agent_count(self) -> int:
        """How many agents run a query; ``"auto"`` is one on a single machine, where DuckDB uses every core itself."""
        return 1 if self.agents == "auto" else self.agents

    @property
    def runs_alone(self) -> bool:
        """Whether every query runs on the session's own DuckDB."""
        return self.agent_count == 1 and not self.chooses_agents

    def on_all_agents(self) -> SessionConfig:
        """This configuration, but that every query runs on all of its agents."""
        return replace(self, agents=self.agent_count, chooses_agents=False)

    @property
    def own_instances(self) -> bool:
        """Whether each agent has a DuckDB of its own; one thread agent has the session's, with all of the memory."""
        return self.isolation is not Isolation.THREAD or self.agent_count > 1

    @property
    def instance_threads(self) -> int:
        """Threads of the session's own DuckDB, where thread agents run what only it can read."""
        return self.threads * (self.agent_count if self.isolation is Isolation.THREAD else 1)

    @property
    def instances(self) -> int:
        """How many instances of DuckDB share the budget: the session's own, and those of agents of its host."""
        return self.agent_count + 1 if self.own_instances and self.isolation is not Isolation.REMOTE else 1

    @property
    def standing_bytes(self) -> int:
        """What all processes take together before they do anything; one agent is never started for a session."""
        if self.runs_alone:
            return _ALONE_BYTES
        if self.isolation is Isolation.REMOTE:
            return _BESIDE_AGENTS_BYTES
        each = _PROCESS_AGENT_BYTES if self.isolation is Isolation.PROCESS else _THREAD_AGENT_BYTES
        return _BESIDE_AGENTS_BYTES + each * self.agent_count

    @property
    def working_bytes(self) -> int:
        """What is left of the budget to work with, and is divided."""
        return self.memory_bytes - self.standing_bytes

    @property
    def least_memory_bytes(self) -> int:
        """The least budget with which these agents can work."""
        return self.standing_bytes + _LEAST_WORKING_BYTES * (self.instances if self.agent_count > 1 else 1)

    @property
    def duckdb_memory_bytes(self) -> int:
        """DuckDB's memory limit in each agent; one share is left to the session's own instance."""
        return self.duckdb_total_bytes // self.instances

    @property
    def duckdb_total_bytes(self) -> int:
        """What all DuckDB instances may use together while there are agents."""
        return int(self.working_bytes * _DUCKDB_SHARE)

    @property
    def duckdb_alone_bytes(self) -> int:
        """What the session's own DuckDB may use while no agent does anything: nothing is shuffled then."""
        return int(self.working_bytes * (_DUCKDB_SHARE + _SHUFFLE_SHARE))

    @property
    def shuffle_bytes(self) -> int:
        """The shuffle pool of one agent; processes leave a share to the session, which has one of its own."""
        pools = self.agent_count if self.isolation is Isolation.THREAD else self.instances
        return int(self.working_bytes * _SHUFFLE_SHARE) // pools

    @property
    def result_bytes(self) -> int:
        """What results may have in memory together; more is kept on disk."""
        return int(self.working_bytes * _RESULT_SHARE)

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
        """This configuration with another number or kind of agents; None keeps what there is.

        The cores are shared anew by them, unless the user said how many threads an agent has.

        Raises:
            ConfigError: there are no such agents, or too little memory for them.
        """
        count = self.agents if agents is None else _parse_agents(agents)
        chooses = self.chooses_agents if agents is None else count == "auto"
        chooses &= self.cluster is not None and isolation is None
        changed = replace(
            self,
            agents=self.cluster_agents if chooses else count,
            chooses_agents=chooses,
            isolation=self.isolation if isolation is None else _parse_isolation(isolation),
            threads=self.threads if agents is None or self.threads_given or self.cluster else _threads(None, count),
        )
        return changed._checked()

    def _checked(self) -> SessionConfig:
        least = self.least_memory_bytes
        if self.memory_bytes >= least:
            return self
        agents = f"{self.agent_count} {self.isolation} agents" if self.agent_count > 1 else "one agent"
        raise ConfigError(
            f"memory_limit is {_mebibytes(self.memory_bytes)}; the least for {agents} is {_mebibytes(least)}, "
            f"of which {_mebibytes(self.standing_bytes)} are taken before a query begins",
            hint="give a higher memory_limit" + (", or fewer agents" if self.agent_count > 1 else ""),
        )


def parse_config(
    database: Any = ":memory:",
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
    cluster: Any = None,
    agent_memory: int | str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    lease_seconds: float | None = None,
) -> SessionConfig:
    """The configuration that the options of :func:`sabot_sql.connect` ask for.

    Raises:
        ConfigError: an option has a wrong type or value.
    """
    if not is_dask_client(database):
        database = path("database", database)
    if is_cluster(database):
        if cluster is not None:
            raise ConfigError("the cluster is named twice: as the first argument and as cluster=")
        database, cluster = ":memory:", database
    files = {
        name: None if file is None else path(name, file)
        for name, file in (("token_file", token_file), ("tls_ca", tls_ca), ("tls_cert", tls_cert), ("tls_key", tls_key))
    }
    chooses = False
    if cluster is None:
        given = {**files, "lease_seconds": lease_seconds, "agent_memory": agent_memory}
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise ConfigError(
                f"{', '.join(unused)}: only for agents of a cluster", hint='connect("grpc+tls://host:port")'
            )
        target = None
    else:
        cluster = cluster if is_dask_client(cluster) else path("cluster", cluster)
        target = parse_cluster(cluster, lease_seconds=lease_seconds, **files)
        if agent_memory is not None and not target.starts_agents:
            raise ConfigError("agent_memory: only for agents that Dask or Ray starts")
        chooses = agents == "auto"
        agents = _agents_of_cluster(cluster, target, agents)
    count = _parse_agents(agents)
    parsed = SessionConfig(
        database=database,
        read_only=flag("read_only", read_only),
        agents=count,
        isolation=_parse_isolation(isolation) if target is None else Isolation.REMOTE,
        memory_bytes=memory_budget_bytes(memory_limit),
        threads=_threads(threads, count),
        threads_given=threads is not None,
        partitions=None if partitions is None else whole("partitions", partitions, least=1, most=MAX_PARTITIONS),
        adaptive=flag("adaptive", adaptive),
        # It is used until the session ends, wherever the process has gone by then.
        spill_directory=str(Path(_spill_directory(spill_directory)).absolute()),
        broadcast_bytes=None if broadcast_limit is None else parse_bytes("broadcast_limit", broadcast_limit),
        duckdb={} if config is None else _parse_duckdb_settings(mapping("config", config)),
        cluster=target,
        agent_memory_bytes=None if agent_memory is None else _agent_memory_bytes(agent_memory),
        chooses_agents=chooses,
        cluster_agents=_agent_count(count) if target is not None else 0,
    )
    return parsed._checked()


def parse_bytes(option: str, value: int | str) -> int:
    """``value`` in bytes; text is a number with a unit as DuckDB reads it (``"2GB"`` is 10⁹, ``"2GiB"`` is 2³⁰).

    Raises:
        ConfigError: it is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return whole(option, value, most=_MAX_BYTES)
    match = (
        re.fullmatch(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    )
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{option}={shown(value)} is not a size", hint='give bytes, or text like "512MiB"')
    return whole(option, int(float(match.group(1)) * unit), most=_MAX_BYTES)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes >> 20}MiB" if size_bytes >= 1 << 20 else f"{size_bytes} bytes"


def _parse_agents(agents: object) -> int | Literal["auto"]:
    if isinstance(agents, str) and agents == "auto":
        return "auto"
    try:
        return whole("agents", agents, least=1, most=MAX_AGENTS)
    except ConfigError as error:
        raise ConfigError(f"{error.message}, or 'auto'") from None


def _agent_memory_bytes(agent_memory: int | str) -> int:
    size_bytes = parse_bytes("agent_memory", agent_memory)
    if size_bytes < _LEAST_AGENT_BYTES:
        least = _mebibytes(_LEAST_AGENT_BYTES)
        raise ConfigError(f"agent_memory is {_mebibytes(size_bytes)}; the least for an agent is {least}")
    return size_bytes


def _agents_of_cluster(cluster: Any, target: ClusterTarget, agents: int | Literal["auto"]) -> int | Literal["auto"]:
    """As many as were asked for, or as there are."""
    if agents != "auto":
        return agents
    return agents_of(cluster) or len(target.addresses) or max(1, machine_cores())


def _agent_count(agents: int | Literal["auto"]) -> int:
    return 1 if agents == "auto" else agents


def _parse_isolation(isolation: object) -> Isolation:
    if isinstance(isolation, str) and isolation in (Isolation.THREAD, Isolation.PROCESS):
        return Isolation(isolation)
    raise ConfigError(f"isolation={shown(isolation)} must be 'thread' or 'process'")


def _threads(threads: object, agents: int | Literal["auto"]) -> int:
    if threads is None:
        return max(1, machine_cores() // _agent_count(agents))
    return whole("threads", threads, least=1, most=MAX_THREADS)


def _spill_directory(directory: str | os.PathLike[str] | None) -> str:
    return tempfile.gettempdir() if directory is None else path("spill_directory", directory)


def _parse_duckdb_settings(settings: Mapping[str, object]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for name, value in settings.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"config: {shown(name)} is not the name of a setting")
        parsed[name] = _setting_text(name, value)
    return parsed


def _setting_text(name: str, value: object) -> str:
    """The value of a setting as DuckDB reads it from text; a list is a DuckDB list."""
    if isinstance(value, bool):
        return str(value).lower()
    if name.lower() in ("threads", "worker_threads", "external_threads"):
        _threads_setting(name, value)
    try:
        text = str(value)
        text.encode()
    except Exception:  # noqa: BLE001  code of the caller's
        raise ConfigError(f"config: {name}={shown(value)} cannot be written as text") from None
    return text


def _threads_setting(name: str, value: object) -> None:
    given = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else value
    whole(f"config: {name}", given, most=MAX_THREADS)


def memory_budget_bytes(memory_limit: int | str | None) -> int:
    """What was asked for, or most of the machine.

    Raises:
        ConfigError: it is no size.
    """
    if memory_limit is None:
        return int(_machine_memory_bytes() * _BUDGET_SHARE_OF_MEMORY)
    return parse_bytes("memory_limit", memory_limit)


def _machine_memory_bytes() -> int:
    """RAM, or what the control group of this process may use where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    for text in _read_texts(limits):
        if text.isdecimal():
            memory = min(memory, int(text))
    return memory


def machine_cores() -> int:
    """Cores this process may run on, under its affinity mask and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for text in _read_texts([Path("/sys/fs/cgroup/cpu.max")]):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def _read_texts(paths: list[Path]) -> list[str]:
    texts = []
    for file in paths:
        try:
            texts.append(file.read_text().strip())
        except OSError:
            continue  # not a control group of this kind
    return texts
