"""One call of ``query``: what was asked for and how it is to be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sabot_sql.call.observation import Progress
from sabot_sql.call.running import RunningQuery
from sabot_sql.catalog.catalog import BoundQuery
from sabot_sql.catalog.connection import Stream
from sabot_sql.catalog.frames import Scope
from sabot_sql.catalog.held_rows import HeldRows
from sabot_sql.config import SessionConfig
from sabot_sql.errors import SabotSQLError
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import HeldStore, ResultStore

if TYPE_CHECKING:
    import pyarrow as pa

    from sabot_planner import QueryPlan
    from sabot_sql.coordinator.keeper import Keeper


@dataclass(frozen=True, slots=True)
class Request:
    """``sql`` is the user's whole text, of which one statement runs at a time.

    ``keeper`` has the journal of a query that is to outlive this process.
    """

    sql: str
    config: SessionConfig
    scopes: Sequence[Scope]
    running: RunningQuery
    max_rows: int | None
    progress: Progress
    keeper: Keeper | None = None

    def drain(self, reader: pa.RecordBatchReader, room: ResultRoom, *, borrowed: bool = False) -> ResultStore:
        """The rows of ``reader`` as far as they are wanted; see :meth:`ResultStore.drain`."""
        budget, check = self.config.result_bytes, self.running.check
        return ResultStore.drain(reader, room, budget, max_rows=self.max_rows, borrowed=borrowed, check=check)

    def take(self, stream: Stream | None, room: ResultRoom) -> ResultStore | HeldStore:
        """The rows of a statement that DuckDB ran, as far as they are wanted."""
        if stream is None:
            return ResultStore.empty()
        if isinstance(stream, HeldRows):
            return HeldStore(stream, stream.count(), self.max_rows)
        return self.drain(stream, room)


@dataclass(frozen=True, slots=True)
class PlannedQuery:
    """A query that agents will run, and what it reads."""

    plan: QueryPlan
    bound: BoundQuery


class WriteFailed(Exception):
    """A statement had begun to write when ``error`` came: nothing may run it again."""

    def __init__(self, error: SabotSQLError) -> None:
        super().__init__(error.message)
        self.error = error
