"""The plan JSON of a statement that runs on one agent."""

from __future__ import annotations

from collections.abc import Sequence

from sabot_planner.job.plan import NotDistributed
from sabot_sql.catalog.effects import CTE_WRITES
from sabot_sql.config import SessionConfig
from sabot_sql.plan_document import VERSION, PlanDocument, PlanJson, PlanOperator, PlanStage, PlanTask


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
    operators: Sequence[PlanOperator] = (),
    progress_percent: float | None = None,
) -> PlanJson:
    """One stage, the statement as it was written, and no edges."""
    elapsed_ms = None if elapsed_ms is None else round(elapsed_ms, 3)
    task = PlanTask(
        "statement_0",
        agent="session",
        state="finished",
        rows=rows,
        started_ms=None if elapsed_ms is None else 0.0,
        elapsed_ms=elapsed_ms,
    )
    stage = PlanStage(
        "statement",
        label="the statement as written",
        type="source",
        sql=sql,
        parallelism=1,
        state=state if state in ("finished", "running") else "waiting",
        rows=rows,
        tasks=(task,) if state == "finished" else (),
        operators=tuple(operators),
        progress_percent=progress_percent,
    )
    isolation = config.isolation.value
    return PlanDocument(
        VERSION, query_id, sql, "single", reason, 1, isolation, state, elapsed_ms, stages=(stage,)
    ).to_json()
