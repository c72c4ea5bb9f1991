"""The plan JSON: the one place that says which fields it has.

Whoever knows of a plan, be it the session or a coordinator, fills in what it knows; ``sabot_sql.plan_view`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PlanDocument = dict[str, Any]

VERSION = 1


def plan_document(
    *,
    sql: str,
    mode: str,
    reason: str,
    agents: int,
    isolation: str,
    state: str,
    query_id: str = "",
    elapsed_ms: float | None = None,
    stages: Sequence[Mapping[str, Any]] = (),
    edges: Sequence[Mapping[str, Any]] = (),
) -> PlanDocument:
    """A whole plan; ``state`` is ``planned``, ``planning``, ``starting``, ``running`` or how it ended."""
    return {
        "version": VERSION,
        "query_id": query_id,
        "sql": sql,
        "mode": mode,
        "reason": reason,
        "agents": agents,
        "isolation": isolation,
        "state": state,
        "elapsed_ms": elapsed_ms,
        "times": None,
        "stages": list(stages),
        "edges": list(edges),
    }


def timed(document: Mapping[str, Any], times_ms: Mapping[str, float]) -> PlanDocument:
    """``document`` with the time of each phase of its query, and their sum."""
    times = {phase: round(spent, 3) for phase, spent in times_ms.items()}
    return {**document, "times": times, "elapsed_ms": round(sum(times.values()), 3)}


def stage_item(
    stage_id: str,
    *,
    label: str,
    kind: str,
    sql: str,
    parallelism: int,
    state: str,
    reason: str = "",
    rows: int | None = None,
    runs_in: str | None = None,
    tasks: Sequence[Mapping[str, Any]] = (),
    operators: Sequence[Mapping[str, Any]] = (),
    progress_percent: float | None = None,
) -> dict[str, Any]:
    """One stage. ``runs_in`` is the stage that computes it as part of its own tasks, which are then these ``tasks``.

    ``operators`` are what DuckDB would do, where it says so, each before those that it reads; ``progress_percent`` is
    its word on how far it is.
    """
    return {
        "id": stage_id,
        "label": label,
        "type": kind,
        "sql": sql,
        "parallelism": parallelism,
        "state": state,
        "reason": reason,
        "rows": rows,
        "runs_in": runs_in,
        "tasks": list(tasks),
        "operators": list(operators),
        "progress_percent": progress_percent,
    }


def task_item(
    task_id: str,
    *,
    agent: str | None = None,
    attempt: int = 0,
    state: str = "waiting",
    rows_in: int | None = None,
    rows: int | None = None,
    size_bytes: int | None = None,
    spilled_bytes: int | None = None,
    started_ms: float | None = None,
    elapsed_ms: float | None = None,
) -> dict[str, Any]:
    """One attempt of one task; times are from the moment at which the query began to run."""
    return {
        "id": task_id,
        "agent": agent,
        "attempt": attempt,
        "state": state,
        "rows_in": rows_in,
        "rows": rows,
        "bytes": size_bytes,
        "spilled_bytes": spilled_bytes,
        "started_ms": None if started_ms is None else round(started_ms, 3),
        "elapsed_ms": None if elapsed_ms is None else round(elapsed_ms, 3),
    }


def edge_item(
    edge_id: str,
    *,
    kind: str,
    source: str,
    target: str,
    keys: Sequence[str] = (),
    partitions: int | None = None,
    rows_estimated: int | None = None,
    estimated_by: str | None = None,
    decided: str = "plan",
    reason: str = "",
    within_task: bool = False,
    rows: int | None = None,
    size_bytes: int | None = None,
    partition_rows: Sequence[int] = (),
    partition_bytes: Sequence[int] = (),
    partition_agents: Sequence[str | None] = (),
    distinct_keys: int | None = None,
    heavy: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """One edge. ``within_task``: one task computes both of its ends, so that nothing is moved or counted.

    ``partition_agents`` are the agents that read the partitions, as far as they are known.
    """
    return {
        "id": edge_id,
        "type": kind,
        "keys": list(keys),
        "source": source,
        "target": target,
        "partitions": partitions,
        "rows": rows,
        "bytes": size_bytes,
        "rows_estimated": rows_estimated,
        "estimated_by": estimated_by,
        "decided": decided,
        "reason": reason,
        "within_task": within_task,
        "partition_rows": list(partition_rows),
        "partition_bytes": list(partition_bytes),
        "partition_agents": list(partition_agents),
        "distinct_keys": distinct_keys,
        "heavy": [dict(item) for item in heavy],
    }


def operator_item(name: str, detail: str, rows_estimated: int | None, read_by: int | None) -> dict[str, Any]:
    """One operator of DuckDB's own plan.

    ``read_by`` is the place in the list of the operator that reads its rows, which stands before it; None for the last
    one of the plan. The list is flat because a tree of a deep statement could not be copied or written as JSON.
    """
    return {"name": name, "detail": detail, "rows_estimated": rows_estimated, "read_by": read_by}
