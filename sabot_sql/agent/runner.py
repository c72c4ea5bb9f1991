"""Runs a fragment on DuckDB and commits its rows: the only place where a fragment meets DuckDB."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import sabot_native
from sabot_planner.operators import Column
from sabot_planner.sql_text import quote, task_sql
from sabot_sql.agent.task_spec import (
    EdgeInput,
    EdgeOutput,
    Fragment,
    OutputReport,
    QueryContext,
    ScanBinding,
    SplitReport,
    SplitSpec,
    TaskReport,
    TaskSpec,
    WriteKind,
    WriteScheme,
)

if TYPE_CHECKING:
    import duckdb

_PRIVATE = "__sabot_"


class Attempt:
    """One attempt while it runs; :meth:`cancel` may be called by any thread, any number of times."""

    def __init__(self) -> None:
        self.token = sabot_native.CancelToken()
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None

    def cancel(self) -> None:
        """Stop it soon.

        An interrupt that comes before DuckDB starts to execute is lost: whoever cancels repeats it until the attempt
        has ended.
        """
        self.token.cancel()
        with self._lock:
            if self._cursor is not None:
                self._cursor.interrupt()

    def uses(self, cursor: duckdb.DuckDBPyConnection | None) -> None:
        """From now on a cancel interrupts ``cursor``."""
        with self._lock:
            self._cursor = cursor


class Runner:
    """Runs one task at a time, each on a cursor of its own of ``connection``.

    A cursor is a connection of its own and does not inherit what was SET on another one: where the instance itself was
    not set up with a query's settings, every cursor is.
    """

    def __init__(
        self,
        agent_id: str,
        connection: duckdb.DuckDBPyConnection,
        manager: sabot_native.ShuffleManager,
        *,
        settings_on_cursor: bool = True,
    ) -> None:
        self.agent_id = agent_id
        self.manager = manager
        self._connection = connection
        self._settings_on_cursor = settings_on_cursor

    def run(self, spec: TaskSpec, context: QueryContext, attempt: Attempt) -> TaskReport:
        """Run the fragment and commit all of its outputs, or none of them and raise."""
        began = time.monotonic()
        streams = {edge.edge_id: self._open(edge, spec, attempt) for edge in spec.fragment.all_edges()}
        cursor = self._connection.cursor()
        try:
            attempt.uses(cursor)
            if self._settings_on_cursor:
                for name, value in context.settings:
                    cursor.execute(setting_sql(name, value))
            _register(cursor, spec.fragment.all_scans(), streams)
            relation = cursor.sql(fragment_sql(spec.fragment))
            columns = tuple(Column(n, str(t)) for n, t in zip(relation.columns, relation.types, strict=True))
            outputs = [_native_output(spec, output, columns) for output in spec.outputs]
            manifests = self.manager.write(relation, outputs, cancel=attempt.token, deadline_ms=spec.deadline_ms)
            del relation
        finally:
            attempt.uses(None)
            cursor.close()
        return TaskReport(
            spec.id,
            self.agent_id,
            columns,
            tuple(output_report(manifest, self.agent_id) for manifest in manifests),
            sum(stream.rows for stream in streams.values()),
            (time.monotonic() - began) * 1e3,
        )

    def split(self, spec: SplitSpec) -> SplitReport:
        """Cut a committed sampled output into ranges; it takes the place of the sampled one."""
        manifest = sabot_native.Manifest.from_bytes(spec.manifest)
        cut = self.manager.split(manifest, list(spec.bounds), spec.id.attempt)
        return SplitReport(spec.id, self.agent_id, output_report(cut, self.agent_id))

    def _open(self, edge: EdgeInput, spec: TaskSpec, attempt: Attempt) -> sabot_native.PartitionStream:
        manifests = [sabot_native.Manifest.from_bytes(data) for data in edge.manifests]
        return self.manager.read(manifests, edge.first, edge.last, cancel=attempt.token, deadline_ms=spec.deadline_ms)


def fragment_sql(fragment: Fragment) -> str:
    """The fragment with its inputs bound, as one statement."""
    bindings = [(scan.name, scan.columns, scan.sql) for scan in fragment.scans]
    bindings += [(edge.name, (), edge_sql(edge)) for edge in fragment.edges]
    bindings += [(name, (), fragment_sql(inner)) for name, inner in fragment.chained]
    return task_sql(fragment.sql, bindings)


def edge_sql(edge: EdgeInput) -> str:
    """A SELECT of the edge's columns with their DuckDB types.

    A column that only placed the rows is left out. Arrow knows no ENUM: its values come back as text and would sort
    otherwise. The state of an aggregate comes as what it is made of; the planner's SQL makes a state of it again.
    """
    items = []
    for column in edge.columns:
        name = quote(column.name)
        items.append(f"CAST({name} AS {column.type}) AS {name}" if "ENUM(" in column.type else name)
    return f"SELECT {', '.join(items)} FROM {_private(edge.edge_id)}"


def output_report(manifest: sabot_native.Manifest, agent_id: str) -> OutputReport:
    """What a coordinator needs to know of an output that ``agent_id`` committed; agents may share a manager."""
    return OutputReport(
        edge_id=manifest.edge_id,
        agent_id=agent_id,
        manifest=manifest.to_bytes(),
        rows=manifest.rows,
        size_bytes=manifest.bytes,
        spilled_bytes=manifest.spilled_bytes,
        partition_rows=tuple(manifest.partition_rows),
        partition_bytes=tuple(manifest.partition_bytes),
        heavy=tuple(manifest.heavy),
        sample=tuple(manifest.sample),
    )


def setting_sql(name: str, value: str) -> str:
    """The statement that gives a setting a value."""
    return f"SET {quote(name)} = '{value.replace(chr(39), chr(39) * 2)}'"


def _register(
    cursor: duckdb.DuckDBPyConnection,
    scans: Sequence[ScanBinding],
    streams: Mapping[str, sabot_native.PartitionStream],
) -> None:
    for name, value in {name: value for scan in scans for name, value in scan.registrations.items()}.items():
        cursor.register(name, value)
    for edge_id, stream in streams.items():
        cursor.register(_PRIVATE + edge_id, stream)


def _private(edge_id: str) -> str:
    return quote(_PRIVATE + edge_id)


def _native_output(spec: TaskSpec, output: EdgeOutput, columns: Sequence[Column]) -> sabot_native.Output:
    scheme = output.scheme
    stored = tuple(name for name in output.columns or tuple(column.name for column in columns) if name != scheme.column)
    if scheme.kind is WriteKind.SAMPLED and scheme.column is not None:
        stored = (*stored, scheme.column)
    return sabot_native.Output(
        query_id=spec.id.query_id,
        edge_id=output.edge_id,
        task=spec.id.task,
        attempt=spec.id.attempt,
        scheme=_native_scheme(scheme),
        columns=stored,
    )


def _native_scheme(scheme: WriteScheme) -> sabot_native.Scheme:
    match scheme:
        case WriteScheme(WriteKind.HASH_COLUMN, partitions, str(column)):
            return sabot_native.Scheme.hash_column(column, partitions)
        case WriteScheme(WriteKind.HASH_COLUMNS, partitions, _, keys):
            return sabot_native.Scheme.hash_columns(keys, partitions)
        case WriteScheme(WriteKind.RANGE_COLUMN, _, str(column), _, bounds):
            return sabot_native.Scheme.range_column(column, bounds)
        case WriteScheme(WriteKind.SAMPLED, _, str(column)):
            return sabot_native.Scheme.sampled(column)
        case WriteScheme(WriteKind.ROUND_ROBIN, partitions):
            return sabot_native.Scheme.round_robin(partitions)
        case _:
            return sabot_native.Scheme.single()
