"""A planner's context over a DuckDB connection, with statistics that a test may set at will."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import duckdb

from sabot_planner import Column, NotDistributed, Placement, PlanSettings, QueryPlan, SourceInfo, plan_query
from sabot_planner.job.plan import Zone
from sabot_planner.logical.build import build
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Node
from sabot_planner.logical.prune import prune
from sabot_planner.logical.rules.apply import apply_rules
from sabot_sql.catalog.connection import UNEXPORTABLE_OPTIMIZERS
from sabot_sql.catalog.estimates import Estimates

_NAME = re.compile(r"""(?:(\w+)\.parquet'|\bmain\.(\w+)$)""")
_ALIASED = re.compile(r"""(?:(\w+)\.parquet'[^'\n]*|\bmain\.(\w+)) AS (r\d+)\(""")
_ROW_BYTES = 50


@dataclass(slots=True)
class FakeContext:
    """Implements ``PlanContext``; only names, types and DuckDB's own estimates are real.

    ``factor`` multiplies the rows of all tables but the ``fixed`` ones, so that plans for large tables can be made over
    small ones; ``rows`` sets single tables by name instead, and then DuckDB is asked for no estimates.
    ``placements`` puts tables by name into the session's memory. ``whole`` tables cannot be cut into slices.
    ``names`` are those of the plan that was built last.
    ``memory`` is what was measured of sub-plans by their names. ``clustered`` gives the zones of (table, column).
    """

    connection: duckdb.DuckDBPyConnection
    agents: int = 3
    settings: PlanSettings = field(default_factory=PlanSettings)
    factor: int = 1
    fixed: frozenset[str] = frozenset()
    rows: Mapping[str, int] = field(default_factory=dict)
    placements: Mapping[str, Placement] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    memory: dict[str, int] = field(default_factory=dict)
    clustered: Mapping[tuple[str, str], tuple[Zone, ...]] = field(default_factory=dict)
    relations: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    names: PlanNames = field(default_factory=PlanNames)
    _sources: dict[tuple[str, tuple[str, ...]], SourceInfo] = field(default_factory=dict)
    _tables: dict[str, str] = field(default_factory=dict)
    _estimates: Estimates | None = None

    # --- what tests use

    def export(self, sql: str) -> str:
        """DuckDB's optimised plan of a query as SQL, made as the product makes it."""
        with _exportable(self.connection):
            exported = str(self._fetch(f"EXPLAIN (SQL) {sql}")[0][1])
            try:
                explained: str | None = str(self._fetch(f"EXPLAIN (FORMAT json) {sql}")[0][1])
            except duckdb.Error:
                explained = None
        self._estimates = Estimates(exported, lambda: explained)
        self._tables = {alias: file or table for file, table, alias in _ALIASED.findall(exported)}
        return exported

    def logical(self, sql: str) -> Node:
        """The logical plan of a query, after the rules and pruned."""
        return prune(apply_rules(self.built(sql), self.names))

    def built(self, sql: str) -> Node:
        """The logical plan of a query as it was built."""
        query = build(self.export(sql), self)
        self.names = query.names
        return query.root

    def planned(self, sql: str) -> QueryPlan | NotDistributed:
        """The plan of a query, if it is distributed."""
        return plan_query(self.export(sql), self)

    def plan(self, sql: str) -> QueryPlan:
        """The plan of a query that is distributed."""
        plan = self.planned(sql)
        assert isinstance(plan, QueryPlan), plan.reason
        return plan

    def undistributed(self, sql: str) -> str:
        """Why a query is not distributed."""
        plan = self.planned(sql)
        assert isinstance(plan, NotDistributed), describe(plan)
        return plan.reason

    # --- PlanContext

    def source(self, relation_sql: str, virtual_columns: Sequence[str]) -> SourceInfo:
        key = relation_sql, tuple(virtual_columns)
        if key not in self._sources:
            self._sources[key] = self._describe(*key)
        return self._sources[key]

    def types(self, expressions: Sequence[str], relation_sql: str) -> tuple[str, ...]:
        return tuple(row[1] for row in self._fetch(f"DESCRIBE SELECT {', '.join(expressions)} FROM {relation_sql}"))

    def aggregates(self) -> frozenset[str]:
        return _functions("function_type = 'aggregate'")

    def volatile_functions(self) -> frozenset[str]:
        return _functions("stability = 'VOLATILE'")

    def is_collated(self) -> bool:
        return False

    def rows_estimated(self, tables: Sequence[str]) -> int | None:
        """DuckDB's estimate, as much larger as the largest of the tables is."""
        if self._estimates is None or self.rows:
            return None
        found = self._estimates.rows(tables)
        factor = 1 if {self._tables.get(table) for table in tables} <= self.fixed else self.factor
        return None if found is None else found * factor

    def check(self) -> None:
        pass

    def recalls(self) -> bool:
        return bool(self.memory)

    def remembered(self, identity: str) -> int | None:
        return self.memory.get(identity)

    def zones(self, source_id: str, column: str) -> tuple[Zone, ...] | None:
        name = next(source.name for source in self._sources.values() if source.source_id == source_id)
        return self.clustered.get((name, column))

    def serialized(self, sql: str) -> str:
        return str(self.connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()[0][0])

    # --- sources

    def _describe(self, relation: str, virtual: tuple[str, ...]) -> SourceInfo:
        extra = "".join(f', "{name}"' for name in virtual)
        described = self._fetch(f"DESCRIBE SELECT *{extra} FROM {relation}")
        columns = tuple(
            Column(name, type_) for i, (name, type_, *_) in enumerate(described) if name not in _names(described[:i])
        )
        match = _NAME.search(relation)
        name = next(filter(None, match.groups())) if match else relation.partition("(")[0].rpartition(".")[2]
        count = int(self._fetch(f"SELECT count(*) FROM {relation}")[0][0])
        rows = self.rows.get(name, count if name in self.fixed else count * self.factor)
        sliced = match is not None and name not in self.whole
        source_id = f"source{len(self._sources)}"
        self.relations[source_id] = (relation, tuple(c.name for c in columns))
        return SourceInfo(
            source_id,
            name,
            columns,
            rows,
            rows * _ROW_BYTES,
            max(1, rows) if sliced else 1,
            self.placements.get(name, Placement.ANY),
            version=f"{relation} times {self.factor}",
        )

    def _fetch(self, sql: str) -> list[tuple[object, ...]]:
        return self.connection.execute(sql).fetchall()


@cache
def _functions(condition: str) -> frozenset[str]:
    rows = duckdb.sql(f"SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE {condition}").fetchall()
    return frozenset(row[0] for row in rows)


def _names(described: Sequence[tuple[object, ...]]) -> set[object]:
    return {row[0] for row in described}


@contextmanager
def _exportable(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute(f"SET disabled_optimizers = '{','.join(UNEXPORTABLE_OPTIMIZERS)}'")
    try:
        yield
    finally:
        # Slices are read by row number, which DuckDB 2.0 cannot materialise late.
        connection.execute("SET disabled_optimizers = 'late_materialization'")


def forced(partitions: int | None = 3, **settings: int | bool) -> PlanSettings:
    """Settings under which nothing is too small to be shuffled."""
    small = {"broadcast_bytes": 0, "gather_rows": 0, "repeat_rows": 0}
    return PlanSettings(**small | {"partitions": partitions} | settings)  # type: ignore[arg-type]


def describe(plan: QueryPlan) -> str:
    """A plan in a few lines, for messages."""
    lines = [f"{plan.mode}: {plan.reason}"]
    lines += [
        f"  {node.operator_id} ×{node.parallelism} [{node.label}] after {','.join(node.start_after)}"
        for node in plan.operator_graph.operators
    ]
    for edge in plan.operator_graph.edges:
        written = f" written as {edge.written_as}" if edge.written_as else ""
        lines.append(
            f"    {edge.edge_id}: {edge.source}→{edge.target} {edge.edge_type.upper()}({', '.join(edge.keys)})"
            f" ×{edge.partitions} ~{edge.rows_estimated} rows{written}; {edge.reason}"
        )
    return "\n".join(lines)
