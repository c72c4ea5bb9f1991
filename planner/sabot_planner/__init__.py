"""SQL to a distributed plan: pure functions over sqlglot trees and schemas, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sabot_planner.errors import PlannerError
from sabot_planner.job.execution_graph import ExecutionGraph, Task
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import (
    Column,
    Decided,
    Operator,
    OperatorType,
    Placement,
    RangeSplit,
    ScanInput,
    ShuffleEdge,
    ShuffleEdgeType,
)
from sabot_planner.job.plan import (
    EdgeFacts,
    Mode,
    NotDistributed,
    PlanContext,
    PlanSettings,
    QueryPlan,
    SourceInfo,
    Zone,
)

if TYPE_CHECKING:
    from sabot_planner.planner import plan_query

__all__ = [
    "Column",
    "Decided",
    "EdgeFacts",
    "ExecutionGraph",
    "Mode",
    "NotDistributed",
    "Operator",
    "OperatorGraph",
    "OperatorType",
    "Placement",
    "PlanContext",
    "PlanSettings",
    "PlannerError",
    "QueryPlan",
    "RangeSplit",
    "ScanInput",
    "ShuffleEdge",
    "ShuffleEdgeType",
    "SourceInfo",
    "Task",
    "Zone",
    "plan_query",
]


def __getattr__(name: str) -> Any:
    # sqlglot takes a tenth of a second to load, and agents need nothing but the types.
    if name != "plan_query":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sabot_planner.planner import plan_query

    return plan_query
