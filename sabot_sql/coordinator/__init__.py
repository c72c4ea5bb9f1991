"""The coordinator: decides which task runs where and when, and what happens when one fails."""

from __future__ import annotations

from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.driver import FinishedQuery, run_job, run_query
from sabot_sql.coordinator.edge_book import EdgeBook
from sabot_sql.coordinator.snapshot import PlanSnapshot, planned_snapshot

__all__ = [
    "DBOSParallelController",
    "EdgeBook",
    "FinishedQuery",
    "PlanSnapshot",
    "planned_snapshot",
    "run_job",
    "run_query",
]
