"""The plan JSON of a statement that runs on one agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sabot_planner.job.plan import NotDistributed
from sabot_sql.catalog.effects import CTE_WRITES
from sabot_sql.config import SessionConfig
from sabot_sql.plan_document import PlanDocument, plan_document, stage_item, task_item


def not_a_query(kind: str) -> NotDistributed:
    """Why a statement of that kind, as DuckDB names it, is not distributed."""
    if kind == "SELECT":
        return NotDistributed(CTE_WRITES)
    if kind == "MULTI":
        return NotDistributed("a PIVOT whose values are not listed is several statements to DuckDB")
    return NotDistributed(f"{kind} is not a query")


def single_document(
    sql: str,
    reason: str,
    config: SessionConfig,
    *,
    state: str,
    query_id: str = "",
    elapsed_ms: float | None = None,
    rows: int | None = None,
    operators: Sequence[Mapping[str, Any]] = (),
    progress_percent: float | None = None,
) -> PlanDocument:
    """One stage, the statement as it was written, and no edges."""
    finished = state == "finished"
    task = task_item(
        "statement_0",
        agent="session",
        state="finished",
        rows=rows,
        started_ms=None if elapsed_ms is None else 0.0,
        elapsed_ms=elapsed_ms,
    )
    stage = stage_item(
        "statement",
        label="the statement as written",
        kind="source",
        sql=sql,
        parallelism=1,
        state=state if state in ("finished", "running") else "waiting",
        rows=rows,
        tasks=[task] if finished else (),
        operators=operators,
        progress_percent=progress_percent,
    )
    return plan_document(
        sql=sql,
        mode="single",
        reason=reason,
        agents=1,
        isolation=config.isolation.value,
        state=state,
        query_id=query_id,
        elapsed_ms=elapsed_ms,
        stages=[stage],
    )
