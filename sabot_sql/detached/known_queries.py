"""The durable queries of this user: found again, listed, and asked many at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sabot_sql import arguments
from sabot_sql.arguments import shown
from sabot_sql.detached.host_client import HostClient
from sabot_sql.detached.messages import HostState, ListQueries, QueryState, QueryStates
from sabot_sql.detached.query_handle import QueryHandle
from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.errors import UsageError

if TYPE_CHECKING:
    from sabot_sql.session import Session

_LISTED = 100

_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("state", pa.string()),
        ("sql", pa.string()),
        ("started", pa.timestamp("ms")),
        ("seconds", pa.float64()),
        ("progress", pa.float64()),
        ("agents", pa.int64()),
        ("rows", pa.int64()),
        ("error", pa.string()),
    ]
)


def find_query(query_id: str) -> QueryHandle:
    """The durable query of that id.

    Raises:
        UsageError: there is none.
    """
    state = StateDirectory.chosen()
    if not state.query(query_id).is_dir():
        known = [path.name for path in state.queries.iterdir()]
        raise UsageError(
            f"no durable query {query_id}",
            code="NO_SUCH_QUERY",
            candidates=get_close_matches(query_id, known),
            hint="sabot_sql.queries() lists them",
        )
    return QueryHandle(query_id, HostClient(state))


def list_queries(limit: int = _LISTED) -> list[QueryState]:
    """The durable queries that are known, the latest first; a host is started only where there are some.

    Raises:
        AgentError: the host does not start.
    """
    limit = arguments.whole("limit", limit, least=1)
    state = StateDirectory.chosen()
    if not any(state.queries.iterdir()):
        return []
    return list(HostClient(state).ask(ListQueries(limit), QueryStates).queries)


def queries_table(states: Iterable[QueryState]) -> pa.Table:
    """A table of queries: id, state, the first line of the SQL, when it started, seconds, progress, agents, rows."""
    return pa.Table.from_pylist([_row(state) for state in states], schema=_COLUMNS)


def submit_all(
    session: Session, queries: Iterable[Any], *, priority: int = 0, timeout: float | None = None
) -> list[QueryHandle]:
    """Hand many queries over; the host runs as many at a time as have memory, and the others wait.

    Raises:
        UsageError: one of them is neither SQL nor a pair of SQL and parameters; none was handed over then.
        SabotSQLError: see :meth:`Session.submit`. Those before it were handed over, and are cancelled.
    """
    asked = [_pair(query) for query in queries]
    handles: list[QueryHandle] = []
    try:
        for sql, params in asked:
            handles.append(session.submit(sql, params, priority=priority, timeout=timeout, scope={}))
    except BaseException:
        for handle in handles:
            handle.cancel()
        raise
    return handles


def host_state() -> HostState | None:
    """What the durable host says of itself; None where none runs."""
    from sabot_sql.detached.messages import DescribeHost

    client = HostClient(StateDirectory.chosen())
    return client.ask(DescribeHost(), HostState, start=False) if client.runs() else None


def _pair(query: Any) -> tuple[str, Any]:
    if isinstance(query, str):
        return query, None
    if isinstance(query, tuple) and len(query) == 2 and isinstance(query[0], str):
        return query
    raise UsageError(f"{shown(query)} is neither SQL nor a pair of SQL and its parameters")


def _row(state: QueryState) -> dict[str, Any]:
    ends = state.ended_ms
    seconds = (ends - state.started_ms) / 1e3 if ends is not None and state.started_ms is not None else None
    finished = 1.0 if state.state == "finished" else None
    return {
        "id": state.query_id,
        "state": state.state,
        "sql": state.sql,
        "started": None if state.started_ms is None else dt.datetime.fromtimestamp(state.started_ms / 1e3),
        "seconds": seconds,
        "progress": finished if state.progress_percent is None else state.progress_percent / 100,
        "agents": state.agents,
        "rows": state.rows,
        "error": state.error or None,
    }
