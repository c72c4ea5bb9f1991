"""Job graphs built by hand: the layer below SQL, on the same agents, shuffles and plans as a query."""

from __future__ import annotations

from sabot_planner.job.execution_graph import ExecutionGraph, Task
from sabot_planner.job.operators import OperatorType, ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.controller import DBOSParallelController, Workload
from sabot_sql.jobs.job_graph import Connection, JobGraph
from sabot_sql.jobs.operators import StreamOperatorNode
from sabot_sql.jobs.shuffle_coordinator import ShuffleCoordinator
from sabot_sql.jobs.shuffle_manager import ShuffleManager
from sabot_sql.jobs.sink_targets import Callback, ParquetFile, ParquetFiles, SessionTable

__all__ = [
    "Callback",
    "Connection",
    "DBOSParallelController",
    "ExecutionGraph",
    "JobGraph",
    "OperatorType",
    "ParquetFile",
    "ParquetFiles",
    "SessionTable",
    "ShuffleCoordinator",
    "ShuffleEdge",
    "ShuffleEdgeType",
    "ShuffleManager",
    "StreamOperatorNode",
    "Task",
    "Workload",
]
