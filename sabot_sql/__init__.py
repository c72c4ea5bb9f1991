"""Distributed DuckDB SQL: one query over several agents, with DuckDB's own answers."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from sabot_sql.errors import (
    AgentError,
    BindError,
    ConfigError,
    InternalError,
    JobError,
    Location,
    OperatorError,
    QueryCancelled,
    QueryError,
    QueryTimeout,
    ResourceError,
    SabotSQLError,
    SessionClosed,
    SourceError,
    SQLSyntaxError,
    UsageError,
    ValueFailure,
)
from sabot_sql.forks import free_in_children as _free_in_children

if TYPE_CHECKING:
    import distributed

    from sabot_sql.call.observation import Observer
    from sabot_sql.catalog.connection import Parameters
    from sabot_sql.detached.query_handle import QueryHandle
    from sabot_sql.jobs import (
        DBOSParallelController,
        JobGraph,
        OperatorType,
        ParquetFile,
        ParquetFiles,
        SessionTable,
        ShuffleCoordinator,
        ShuffleEdge,
        ShuffleEdgeType,
        ShuffleManager,
        StreamOperatorNode,
        Workload,
    )
    from sabot_sql.plan_view import Plan, UnhappyEnd
    from sabot_sql.result import Result
    from sabot_sql.session import Agents, Session

__all__ = [
    "AgentError",
    "Agents",
    "BindError",
    "ConfigError",
    "DBOSParallelController",
    "InternalError",
    "JobError",
    "JobGraph",
    "Location",
    "Observer",
    "OperatorError",
    "OperatorType",
    "Parameters",
    "ParquetFile",
    "ParquetFiles",
    "Plan",
    "QueryCancelled",
    "QueryError",
    "QueryHandle",
    "QueryTimeout",
    "ResourceError",
    "Result",
    "SQLSyntaxError",
    "SabotSQLError",
    "Session",
    "SessionClosed",
    "SessionTable",
    "ShuffleCoordinator",
    "ShuffleEdge",
    "ShuffleEdgeType",
    "ShuffleManager",
    "SourceError",
    "StreamOperatorNode",
    "UnhappyEnd",
    "UsageError",
    "ValueFailure",
    "Workload",
    "attach",
    "batch",
    "connect",
    "default_session",
    "queries",
    "query",
]

__version__ = "0.1.0"

# DuckDB and pyarrow take a third of a second: they come with the first session, not with the import.
_LATE = {
    "Agents": "sabot_sql.session",
    "DBOSParallelController": "sabot_sql.jobs",
    "JobGraph": "sabot_sql.jobs",
    "Observer": "sabot_sql.call.observation",
    "OperatorType": "sabot_sql.jobs",
    "Parameters": "sabot_sql.catalog.connection",
    "ParquetFile": "sabot_sql.jobs",
    "ParquetFiles": "sabot_sql.jobs",
    "Plan": "sabot_sql.plan_view",
    "QueryHandle": "sabot_sql.detached.query_handle",
    "Result": "sabot_sql.result",
    "Session": "sabot_sql.session",
    "SessionTable": "sabot_sql.jobs",
    "ShuffleCoordinator": "sabot_sql.jobs",
    "ShuffleEdge": "sabot_sql.jobs",
    "ShuffleEdgeType": "sabot_sql.jobs",
    "ShuffleManager": "sabot_sql.jobs",
    "StreamOperatorNode": "sabot_sql.jobs",
    "UnhappyEnd": "sabot_sql.plan_view",
    "Workload": "sabot_sql.jobs",
}

_default_lock = threading.Lock()
_free_in_children(_default_lock)
_default: Session | None = None


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})


def connect(
    database: str | os.PathLike[str] | distributed.Client = ":memory:",
    *,
    agents: Agents = "auto",
    isolation: Literal["thread", "process"] = "thread",
    read_only: bool = False,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    partitions: int | None = None,
    adaptive: bool = True,
    spill_directory: str | os.PathLike[str] | None = None,
    broadcast_limit: int | str | None = None,
    config: Mapping[str, object] | None = None,
    cluster: str | os.PathLike[str] | distributed.Client | None = None,
    agent_memory: int | str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    lease_seconds: float | None = None,
) -> Session:
    """Open a session on a DuckDB database, in memory unless a file is named, or on the agents of a cluster.

    ``agents`` is how many agents run each query. ``"auto"`` is one: the session's own DuckDB, with every core; of a
    cluster it is one or all of its agents, or the session, as is best for the query. Several are threads of this
    process or processes, with a DuckDB each. ``memory_limit`` bounds the whole of it, by default 70 % of the machine;
    ``threads`` are per agent, by default the cores shared by the agents of a query.
    ``partitions`` forces how many partitions a keyed exchange has, ``adaptive=False`` keeps decisions of the plan
    whatever is measured. A join side up to ``broadcast_limit`` may be copied to every agent. ``config`` holds DuckDB's
    own settings.

    ``cluster``, or the first argument, names agents on other hosts: ``"grpc+tls://host:port,…"``, a cluster file
    (``"cluster.toml"``), or ``"local://"`` for services on this host. ``token_file`` and ``tls_ca``
    are those of the agents; ``tls_cert`` and ``tls_key`` are shown to agents that ask for them. An agent that is silent
    for ``lease_seconds`` is lost, by default after 15.

    Dask starts agents beside its workers: ``cluster``, or the first argument, is a ``distributed.Client`` or
    ``"dask://host:port"``, to which ``tls_ca``, ``tls_cert`` and ``tls_key`` belong then. Ray starts one on each node:
    ``"ray"`` is the cluster that this process is connected to, or its host, ``"ray://host:port"`` one of Ray's clients.
    Each agent has ``agent_memory``, by default half of what its worker or node may use, and ``threads``, by default
    those of the worker or node.

    Raises:
        ConfigError: an option is wrong.
        SourceError: the database cannot be opened.
    """
    from sabot_sql.config import parse_config
    from sabot_sql.session import Session

    return Session(
        parse_config(
            database,
            read_only=read_only,
            agents=agents,
            isolation=isolation,
            memory_limit=memory_limit,
            threads=threads,
            partitions=partitions,
            adaptive=adaptive,
            spill_directory=spill_directory,
            broadcast_limit=broadcast_limit,
            config=config,
            cluster=cluster,
            agent_memory=agent_memory,
            token_file=token_file,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            lease_seconds=lease_seconds,
        )
    )


def query(sql: str, params: Parameters = None, **options: Any) -> Result:
    """Run ``sql`` on a session that all calls share; ``options`` are those of :meth:`Session.query`.

    Raises:
        SabotSQLError: see :meth:`Session.query`.
    """
    return default_session().query(sql, params, **options)


def attach(query_id: str) -> QueryHandle:
    """The durable query of that id, whoever of this user's processes submitted it.

    Raises:
        UsageError: there is none.
        ResourceError: the state directory cannot be used.
    """
    from sabot_sql.detached.known_queries import find_query

    return find_query(query_id)


def queries(limit: int = 100) -> Result:
    """The durable queries that are known, the latest first: id, state, SQL's first line, start, progress, agents.

    Raises:
        AgentError: the durable host does not start.
        ResourceError: the state directory cannot be used.
    """
    from sabot_sql.detached.known_queries import list_queries, queries_table

    table = queries_table(list_queries(limit))
    return default_session().query("FROM durable_queries", agents=1, scope={"durable_queries": table})


def batch(
    queries: Iterable[str | tuple[str, Any]],
    *,
    session: Session | None = None,
    priority: int = 0,
    timeout: float | None = None,
) -> list[QueryHandle]:
    """Hand many queries to the durable host, which runs as many at a time as it has memory for.

    Each is SQL, or a pair of SQL and parameters, asked on ``session`` or on the one that all calls share. Those with
    the lowest ``priority``, from 0, come first. ``timeout`` is in seconds, of each.

    Raises:
        UsageError: one of them cannot be handed over; then none is.
        SabotSQLError: as of :meth:`Session.submit`.
    """
    from sabot_sql.detached.known_queries import submit_all

    return submit_all(session or default_session(), queries, priority=priority, timeout=timeout)


def default_session() -> Session:
    """The session of :func:`query` and of ``%%sabot`` cells; made when it is first asked for, or was closed."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = connect()
        return _default


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext sabot_sql``: load the notebook layer, which is found by its entry point."""
    _notebook_layer().load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext sabot_sql``."""
    _notebook_layer().unload_ipython_extension(shell)


def _notebook_layer() -> Any:
    from importlib.metadata import entry_points

    found = list(entry_points(group="sabot_sql.ipython"))
    if not found:
        raise ConfigError("the notebook layer is not installed", code="NO_MAGICS")
    return found[0].load()
