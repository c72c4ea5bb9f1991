"""The plan JSON of a statement that runs on one agent."""

from __future__ import annotations

from typing import Any

from sabot_sql.catalog.effects import CTE_WRITES
from sabot_sql.config import SessionConfig


def not_a_query(kind: str) -> str:
    """Why a statement of that kind, as DuckDB names it, is not distributed."""
    if kind == "SELECT":
        return CTE_WRITES
    if kind == "MULTI":
        return "a PIVOT whose values are not listed is several statements to DuckDB"
    return f"{kind} is not a query"


def single_document(
    sql: str,
    reason: str,
    config: SessionConfig,
    *,
    state: str,
    query_id: str = "",
    elapsed_ms: float | None = None,
    rows: int | None = None,
) -> dict[str, Any]:
    """One stage, the statement as it was written, and no edges."""
    task = {
        "id": "statement_0",
        "agent": "session",
        "attempt": 0,
        "state": "finished" if state == "finished" else "waiting",
        "rows_in": None,
        "rows": rows,
        "bytes": None,
        "spilled_bytes": None,
        "started_ms": None if elapsed_ms is None else 0.0,
        "elapsed_ms": elapsed_ms,
    }
    stage = {
        "id": "statement",
        "label": "the statement as written",
        "type": "source",
        "sql": sql,
        "parallelism": 1,
        "state": task["state"],
        "reason": "",
        "rows": rows,
        "tasks": [task] if state == "finished" else [],
    }
    return {
        "version": 1,
        "query_id": query_id,
        "sql": sql,
        "mode": "single",
        "reason": reason,
        "agents": 1,
        "isolation": config.isolation.value,
        "state": state,
        "elapsed_ms": elapsed_ms,
        "stages": [stage],
        "edges": [],
    }
