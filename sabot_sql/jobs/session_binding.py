"""What making a job executable asks of a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sabot_planner import NotDistributed, PlannerError, QueryPlan, plan_query
from sabot_planner.job.operators import Column, Placement
from sabot_sql.call.request import Request
from sabot_sql.catalog.catalog import BoundQuery, Catalog
from sabot_sql.catalog.connection import Statement
from sabot_sql.catalog.frames import Scope
from sabot_sql.catalog.query_sources import FRAGMENT_SETTINGS
from sabot_sql.catalog.select_types import SelectTypes
from sabot_sql.config import Isolation
from sabot_sql.errors import JobError
from sabot_sql.jobs.compiler import BoundSource
from sabot_sql.jobs.source_readers import RELATION, SqlSource

if TYPE_CHECKING:
    import pyarrow as pa

    from sabot_sql.result import Result

RunSelect = Callable[[Statement, Sequence[Scope]], "Result"]
"""Runs a SELECT as a query of the session."""


class SessionBinding:
    """Binds sources on a session's DuckDB; see :class:`sabot_sql.jobs.compiler.Binding`.

    A SELECT that the tasks of one operator cannot share, because it groups, sorts or limits, is run as a query first.
    Close it, or use it as a context manager.
    """

    def __init__(self, catalog: Catalog, request: Request, run: RunSelect) -> None:
        self._catalog = catalog
        self._request = request
        self._run = run
        processes = request.config.isolation is not Isolation.THREAD
        connection = catalog.connection
        with request.running.asking(connection):
            settings = connection.process_settings() if processes else connection.session_settings()
        self.settings: Mapping[str, str] = {**settings, **FRAGMENT_SETTINGS}
        self.function_placement = Placement.SESSION if processes else Placement.ANY
        self._types = SelectTypes(self.settings)

    def columns(self, sql: str, inputs: Mapping[str, Sequence[Column]]) -> tuple[Column, ...]:
        """The columns of a SELECT over ``inputs``."""
        return self._types.columns(sql, inputs)

    def of_arrow(self, schema: pa.Schema) -> tuple[Column, ...]:
        """The columns that DuckDB makes of Arrow data."""
        return self._types.of_arrow(schema)

    def to_arrow(self, columns: Sequence[Column]) -> pa.Schema:
        """The Arrow schema of rows that leave DuckDB."""
        return self._types.to_arrow(columns)

    def bind(self, source: SqlSource, tasks: int) -> BoundSource:
        """Bind a SELECT so that up to ``tasks`` tasks share its rows."""
        statements = self._catalog.split(source.sql, None)
        if len(statements) != 1 or not statements[0].is_query:
            raise JobError("a source is one SELECT that changes nothing", code="NOT_A_QUERY")
        scopes = (*([source.objects] if source.objects else []), *self._request.scopes)
        found = self._shared(statements[0], scopes, tasks)
        if found is None and source.objects.get(RELATION) is None:
            rows = self._run(statements[0], scopes).to_arrow_table()
            return self.bind(SqlSource(f"SELECT * FROM {RELATION}", {RELATION: rows}), tasks)
        if found is None:
            raise JobError("what it reads cannot be read by agents", code="SOURCE")
        return found

    def close(self) -> None:
        """Close the database that binds SELECTs."""
        self._types.close()

    def __enter__(self) -> SessionBinding:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shared(self, statement: Statement, scopes: Sequence[Scope], tasks: int) -> BoundSource | None:
        """The SELECT as one operator, if it is no more than that: its rows are shared, and nothing has to move."""
        config = replace(self._request.config, agents=max(2, self._request.config.agent_count), partitions=tasks)
        bound = self._catalog.bind(statement, scopes, replace(config, adaptive=False), self._request.running)
        if isinstance(bound, NotDistributed):
            return None
        plan = _planned(bound)
        if plan is None and tasks > 1:
            bound.sources.settings = replace(bound.sources.settings, partitions=1)
            plan = _planned(bound)
        if plan is None:
            return None
        graph = plan.operator_graph
        if graph.edges or len(graph.operators) != 1 or graph.operators[0].first_rows is not None:
            return None
        operator = graph.operators[0]
        if operator.parallelism > 1 and not all(scan.sliced for scan in operator.scans):
            return None
        return BoundSource(
            operator.sql, operator.scans, operator.parallelism, plan.output, bound.sources, operator.placement
        )


def _planned(bound: BoundQuery) -> QueryPlan | None:
    try:
        plan = plan_query(bound.exported_sql, bound.sources)
    except PlannerError:
        return None
    return None if isinstance(plan, NotDistributed) else plan
