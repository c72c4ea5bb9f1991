"""SQL to a distributed plan: pure functions over sqlglot trees and schemas, no I/O."""

from __future__ import annotations

from sabot_planner.execution_graph import ExecutionGraph, Task, TaskInput, to_execution_graph
from sabot_planner.job_graph import JobGraph
from sabot_planner.operators import (
    Column,
    Decided,
    OperatorType,
    Placement,
    ScanInput,
    ShuffleEdge,
    ShuffleEdgeType,
    StreamOperatorNode,
)
from sabot_planner.plan import EdgeFacts, Mode, PlanContext, PlanSettings, QueryPlan, SourceInfo
from sabot_planner.planner import plan_query

__all__ = [
    "Column",
    "Decided",
    "EdgeFacts",
    "ExecutionGraph",
    "JobGraph",
    "Mode",
    "OperatorType",
    "Placement",
    "PlanContext",
    "PlanSettings",
    "QueryPlan",
    "ScanInput",
    "ShuffleEdge",
    "ShuffleEdgeType",
    "SourceInfo",
    "StreamOperatorNode",
    "Task",
    "TaskInput",
    "plan_query",
    "to_execution_graph",
]
