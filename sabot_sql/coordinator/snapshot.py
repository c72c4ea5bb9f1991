"""The plan JSON: a plan with what is known of its run so far."""

from __future__ import annotations

from typing import Any

from sabot_planner.job.job_graph import JobGraph
from sabot_planner.job.operators import Decided, ShuffleEdge
from sabot_planner.job.plan import QueryPlan
from sabot_sql.coordinator.exchange_rules import RESULT_EDGE
from sabot_sql.coordinator.execution import Execution
from sabot_sql.coordinator.shuffle_coordinator import EdgeShuffle
from sabot_sql.coordinator.stage_run import Finished, Running, StageRun, TaskRecord

PlanSnapshot = dict[str, Any]

_VERSION = 1
_HEAVY_SHOWN = 5


def planned_snapshot(plan: QueryPlan, *, query_id: str = "", sql: str = "", isolation: str = "") -> PlanSnapshot:
    """A plan that has not run."""
    snapshot = _head(plan, query_id=query_id, sql=sql, isolation=isolation)
    if plan.job_graph is not None:
        snapshot["stages"] = [_stage(plan.job_graph, op, None) for op in plan.job_graph.topological_order()]
        snapshot["edges"] = [_edge(edge, None, None) for edge in plan.job_graph.edges]
        snapshot["edges"].append(_result_edge(plan.job_graph, None))
    return snapshot


def running_snapshot(execution: Execution, *, sql: str, isolation: str, state: str, now_ms: float) -> PlanSnapshot:
    """A plan while it runs, or after it ended."""
    graph = execution.graph
    run_of = {operator: run for run in execution.runs.values() for operator in run.stage.operators}
    snapshot = _head(execution.plan, query_id=execution.query_id, sql=sql, isolation=isolation)
    snapshot |= {
        "state": state,
        "elapsed_ms": round(now_ms, 3),
        "stages": [_stage(graph, op, run_of.get(op)) for op in graph.topological_order()],
        "edges": [
            _edge(edge, execution.shuffles.find(edge.edge_id), execution.decisions.get(edge.edge_id))
            for edge in graph.edges
        ],
    }
    snapshot["edges"].append(_result_edge(graph, execution.shuffles.find(RESULT_EDGE)))
    return snapshot


def _head(plan: QueryPlan, *, query_id: str, sql: str, isolation: str) -> PlanSnapshot:
    return {
        "version": _VERSION,
        "query_id": query_id,
        "sql": sql,
        "mode": plan.mode.value,
        "reason": plan.reason,
        "agents": plan.agents,
        "isolation": isolation,
        "state": "planned",
        "elapsed_ms": None,
        "stages": [],
        "edges": [],
    }


def _stage(graph: JobGraph, operator_id: str, run: StageRun | None) -> dict[str, Any]:
    node = graph.operator(operator_id)
    # Only the last operator of a chain writes rows that were counted.
    counted = run is not None and run.stage.stage_id == operator_id
    tasks = [_task(run, task, counted=counted) for task in run.tasks] if run else []
    known = [task["rows"] for task in tasks if task["rows"] is not None]
    return {
        "id": operator_id,
        "label": node.label,
        "type": node.operator_type.value,
        "sql": node.sql,
        "parallelism": run.reads.parallelism if run else node.parallelism,
        "state": run.state if run else "waiting",
        "reason": run.reads.reason if run else "",
        "rows": sum(known) if known else None,
        "tasks": tasks,
    }


def _task(run: StageRun, task: TaskRecord, *, counted: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": f"{run.stage.stage_id}_{task.index}",
        "agent": None,
        "attempt": max(0, task.next_attempt - 1),
        "state": "waiting",
        "rows_in": None,
        "rows": None,
        "bytes": None,
        "spilled_bytes": None,
        "started_ms": None,
        "elapsed_ms": None,
    }
    match task.state:
        case Finished() if task.skipped:
            shown["state"] = "skipped"
        case Running(attempt, agent, started_ms):
            shown |= {"state": "running", "agent": agent, "attempt": attempt, "started_ms": round(started_ms, 3)}
        case Finished(attempt, started_ms, report):
            first = report.outputs[0] if report.outputs and counted else None
            shown |= {
                "state": "finished",
                "agent": report.agent_id,
                "attempt": attempt,
                "rows_in": report.rows_in,
                "rows": first.rows if first else None,
                "bytes": sum(output.size_bytes for output in report.outputs) if first else None,
                "spilled_bytes": sum(output.spilled_bytes for output in report.outputs),
                "started_ms": round(started_ms, 3),
                "elapsed_ms": round(report.elapsed_ms, 3),
            }
    return shown


def _edge(edge: ShuffleEdge, shuffle: EdgeShuffle | None, decision: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": edge.edge_id,
        "type": edge.edge_type.name,
        "keys": list(edge.keys),
        "source": edge.source,
        "target": edge.target,
        "partitions": shuffle.partitions if shuffle else edge.partitions,
        "rows": None,
        "bytes": None,
        "rows_estimated": edge.rows_estimated,
        "estimated_by": edge.estimated_by,
        "decided": (Decided.RUN if decision else edge.decided).value,
        "reason": "; ".join(part for part in (edge.reason, decision) if part),
        "partition_rows": [],
        "partition_bytes": [],
        "distinct_keys": None,
        "heavy": [],
    }
    if shuffle is not None and shuffle.measured is not None:
        facts = shuffle.measured
        shown |= {
            "rows": facts.rows,
            "bytes": facts.bytes,
            "partition_rows": list(facts.partition_rows),
            "partition_bytes": list(facts.partition_bytes),
            "distinct_keys": facts.distinct_keys,
            "heavy": [
                {"key": shuffle.key_names.get(key, f"hash {key:016x}"), "rows": rows}
                for key, rows, _ in facts.heavy[:_HEAVY_SHOWN]
            ],
        }
    return shown


def _result_reason(graph: JobGraph) -> str:
    if graph.result_parts is not None:
        return "read in the order of the branches"
    return "read in task order" if graph.ordered else "read as it comes"


def _result_edge(graph: JobGraph, shuffle: EdgeShuffle | None) -> dict[str, Any]:
    facts = shuffle.measured if shuffle is not None else None
    return {
        "id": RESULT_EDGE,
        "type": "FORWARD",
        "keys": [],
        "source": graph.sink,
        "target": "result",
        "partitions": 1,
        "rows": facts.rows if facts else None,
        "bytes": facts.bytes if facts else None,
        "rows_estimated": None,
        "decided": Decided.PLAN.value,
        "reason": _result_reason(graph),
        "partition_rows": [],
        "partition_bytes": [],
        "heavy": [],
    }
