"""Runs a fragment on DuckDB and commits its rows: the only place where a fragment meets DuckDB."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import duckdb
import pyarrow as pa

import sabot_native
from sabot_planner.job.operators import Column
from sabot_planner.sql.text import edge_column, quote, task_sql
from sabot_sql.agent.guard import require_query
from sabot_sql.agent.output_writer import OutputWriter, OwnWriter, output_report
from sabot_sql.duck.streams import StartedStatement, batch_rows, is_too_wide
from sabot_sql.errors import InternalError
from sabot_sql.protocol.task_spec import (
    BatchStream,
    EdgeInput,
    EdgeOutput,
    FileSink,
    Fragment,
    OutputReport,
    QueryContext,
    ScanRead,
    SplitReport,
    SplitSpec,
    TaskId,
    TaskReport,
    TaskSpec,
    WriteKind,
)
from sabot_sql.transport.interface import EdgeStream, PartsLost, Transport
from sabot_sql.transport.kept_segments import KeptStream, OnlyKept, keep, kept_or
from sabot_sql.transport.this_host import ThisHost

_PRIVATE = "__sabot_"
_EDGE_SETTINGS = (
    ("arrow_lossless_conversion", "true"),
    ("errors_as_json", "true"),
    # The view over a stream that is registered calls a function by its bare name: no macro of a user's may be found.
    ("search_path", "system.main"),
)
"""HUGEINT, UUID, TIMETZ and others lose their value or type on an edge without the first."""


class InputLost(Exception):
    """A committed input cannot be read any more; ``lost`` are the (edge, producer task) it came from."""

    def __init__(self, message: str, lost: tuple[tuple[str, int], ...]) -> None:
        super().__init__(message)
        self.lost = lost


class Attempt:
    """One attempt while it runs; :meth:`cancel` may be called by any thread, any number of times."""

    def __init__(self) -> None:
        self.token = sabot_native.CancelToken()
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._streams: tuple[EdgeStream, ...] = ()

    def cancel(self) -> None:
        """Stop it soon.

        An interrupt that comes before DuckDB starts to execute is lost: whoever cancels repeats it until the attempt
        has ended.
        """
        self.token.cancel()
        with self._lock:
            if self._cursor is not None:
                self._cursor.interrupt()
            streams = self._streams
        for stream in streams:
            stream.cancel()

    def reads(self, streams: tuple[EdgeStream, ...]) -> None:
        """From now on a cancel ends what of ``streams`` is under way."""
        with self._lock:
            self._streams = streams
        if self.token.cancelled:
            self.cancel()

    def uses(self, cursor: duckdb.DuckDBPyConnection | None) -> None:
        """From now on a cancel interrupts ``cursor``."""
        with self._lock:
            self._cursor = cursor


class Runner:
    """Runs one task at a time on a cursor of ``connection``, which must serve nobody else meanwhile.

    A cursor is a connection of its own and does not inherit what was SET on another one: where the instance itself was
    not set up with a query's settings, the cursor is. It is kept for the next task, as long as none failed on it.
    ``transport`` opens what tasks read and ``writer`` keeps what they write, in place of the manager of this process.
    """

    def __init__(
        self,
        agent_id: str,
        connection: duckdb.DuckDBPyConnection,
        manager: sabot_native.ShuffleManager,
        *,
        settings_on_cursor: bool = True,
        transport: Transport | None = None,
        writer: OutputWriter | None = None,
    ) -> None:
        self.agent_id = agent_id
        self.manager = manager
        self._transport = transport or ThisHost(manager)
        self._writer = writer or OwnWriter(agent_id, manager)
        self._connection = connection
        self._settings_on_cursor = settings_on_cursor
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._cursor_settings: tuple[tuple[str, str], ...] = ()
        self._row_bytes: tuple[tuple[str, str], float] | None = None

    def run(self, spec: TaskSpec, context: QueryContext, attempt: Attempt) -> TaskReport:
        """Run the fragment and commit all of its outputs, or none of them and raise."""
        # The rows of a stage are about as wide in one task as in another.
        known = self._row_bytes
        row_bytes = known[1] if known and known[0] == (spec.id.query_id, spec.id.stage) else None
        transport = kept_or(self._transport, context.kept_segments)
        try:
            return self._run(spec, context, attempt, transport, batch_rows(row_bytes))
        except (duckdb.Error, sabot_native.StreamError) as error:
            if not is_too_wide(str(error)):
                raise
            return self._run(spec, context, attempt, transport, 1)
        except InputLost:
            # It went while it was read. Its file is there, if the query keeps them: nothing runs again for that.
            if not context.kept_segments:
                raise
            return self._run(spec, context, attempt, OnlyKept(context.kept_segments), batch_rows(row_bytes))

    def _run(
        self, spec: TaskSpec, context: QueryContext, attempt: Attempt, transport: Transport, batch_size: int
    ) -> TaskReport:
        began = time.monotonic()
        streams = {edge.edge_id: _open(transport, edge, spec, attempt) for edge in spec.fragment.all_edges()}
        attempt.reads(tuple(streams.values()))
        registrations = {
            name: value for scan in spec.fragment.all_scans() for name, value in scan.registrations.items()
        }
        registrations |= {stream_name(edge_id): stream for edge_id, stream in streams.items()}
        cursor = self._fitting_cursor(context)
        attempt.uses(cursor)
        changed: BatchStream | None = None
        try:
            for name, value in registrations.items():
                cursor.register(name, value)
            sql = fragment_sql(spec.fragment)
            require_query(cursor, sql)
            statement = sql if spec.sink is None else _copy_sql(sql, spec.sink, spec.id)
            started = StartedStatement(cursor, statement, None, batch_size)
            columns = tuple(Column(name, type_name) for name, type_name in started.columns)
            rows: StartedStatement | BatchStream = started
            for function in spec.fragment.functions.values():
                rows = changed = function.over(started, spec.id.task)
                columns = function.columns
            names = [column.name for column in columns]
            if len(set(names)) != len(names):
                raise InternalError(f"the columns of a fragment repeat names: {', '.join(names)}")
            outputs = [_stored(output, columns) for output in spec.outputs]
            reports = self._writer.write(rows, spec.id, outputs, attempt.token, spec.deadline_ms)
            del started, rows
            for report in reports:
                self._keep(report, context, attempt)
            for name in registrations:
                cursor.unregister(name)
        except BaseException:
            attempt.uses(None)
            self.close()
            # DuckDB has made text of what its inputs failed with; they still know it by type.
            _raise_input_error(spec.fragment.all_edges(), streams)
            if changed is not None and changed.error is not None:
                raise changed.error from None
            raise
        attempt.uses(None)
        if reports and reports[0].rows:
            self._row_bytes = (spec.id.query_id, spec.id.stage), reports[0].size_bytes / reports[0].rows
        return TaskReport(
            spec.id,
            self.agent_id,
            columns,
            reports,
            sum(stream.rows for stream in streams.values()),
            (time.monotonic() - began) * 1e3,
            tuple(ScanRead(scan.name, scan.sliced, scan.spans) for scan in spec.fragment.all_scans()),
        )

    def split(self, spec: SplitSpec, context: QueryContext, attempt: Attempt) -> SplitReport:
        """Cut a committed sampled output into ranges; it takes the place of the sampled one."""
        manifest = sabot_native.Manifest.from_bytes(spec.manifest)
        try:
            cut = self.manager.split(manifest, list(spec.bounds), spec.id.attempt)
        except sabot_native.CorruptSegment:
            if not context.kept_segments:
                raise
            cut = self._split_kept(manifest, spec, context, attempt)
        report = output_report(cut, self.agent_id)
        self._keep(report, context, attempt)
        return SplitReport(spec.id, self.agent_id, report)

    def _split_kept(
        self, manifest: sabot_native.Manifest, spec: SplitSpec, context: QueryContext, attempt: Attempt
    ) -> sabot_native.Manifest:
        """Cut an output whose agent is gone; the column of sort keys is the last one that a sampled output has."""
        stream = KeptStream(context.kept_segments, [manifest], 0, 1)
        *columns, key = pa.RecordBatchReader.from_stream(stream).schema.names
        output = sabot_native.Output(
            query_id=spec.id.query_id,
            edge_id=spec.edge_id,
            task=spec.id.task,
            attempt=spec.id.attempt,
            scheme=sabot_native.Scheme.range_column(key, list(spec.bounds)),
            columns=columns,
        )
        (cut,) = self.manager.write_partition(stream, [output], cancel=attempt.token)
        return cut

    def _keep(self, report: OutputReport, context: QueryContext, attempt: Attempt) -> None:
        """Write an output to where it outlives this agent, if the query wants that."""
        if not context.kept_segments:
            return
        manifest = sabot_native.Manifest.from_bytes(report.manifest)
        keep(
            context.kept_segments,
            manifest,
            lambda number: self._transport.open([manifest], number, number + 1, cancel=attempt.token),
        )

    def close(self) -> None:
        """Close the cursor; the next task gets a new one."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def _fitting_cursor(self, context: QueryContext) -> duckdb.DuckDBPyConnection:
        if self._cursor is not None and self._cursor_settings == context.settings:
            return self._cursor
        self.close()
        self._cursor = self._connection.cursor()
        self._cursor_settings = context.settings
        if self._settings_on_cursor:
            for name, value in (*_EDGE_SETTINGS, *context.settings):
                self._cursor.execute(f"SET SESSION {quote(name)} = {_text(value)}")
        return self._cursor


def _open(transport: Transport, edge: EdgeInput, spec: TaskSpec, attempt: Attempt) -> EdgeStream:
    manifests = [sabot_native.Manifest.from_bytes(data) for data in edge.manifests]
    try:
        return transport.open(manifests, edge.first, edge.last, cancel=attempt.token, deadline_ms=spec.deadline_ms)
    except PartsLost as error:
        raise _lost(edge, error) from error


def fragment_sql(fragment: Fragment) -> str:
    """The fragment with its inputs bound, as one statement."""
    bindings = [(scan.name, scan.columns, scan.sql) for scan in fragment.scans]
    bindings += [(edge.name, (), edge_sql(edge)) for edge in fragment.edges]
    bindings += [(name, (), fragment_sql(inner)) for name, inner in fragment.chained]
    return task_sql(fragment.sql, bindings)


def _copy_sql(sql: str, sink: FileSink, task_id: TaskId) -> str:
    columns = ", ".join(f"c{i}" for i in range(len(sink.items)))
    path = _text(sink.path(task_id.task, task_id.attempt))
    return f"COPY (SELECT {', '.join(sink.items)} FROM ({sql}) AS rows_of_task({columns})) TO {path} ({sink.options})"


def edge_sql(edge: EdgeInput) -> str:
    """A SELECT of the edge's columns with their DuckDB types.

    A column that only placed the rows is left out. The state of an aggregate comes as what it is made of; the planner's
    SQL makes a state of it again.
    """
    items = ", ".join(edge_column(column.name, column.type) for column in edge.columns)
    return f"SELECT {items} FROM {quote(stream_name(edge.edge_id))}"


def stream_name(edge_id: str) -> str:
    """The name under which the stream of an edge is registered."""
    return _PRIVATE + edge_id


def _lost(edge: EdgeInput, error: PartsLost) -> InputLost:
    return InputLost(str(error), tuple((edge.edge_id, edge.producers[at]) for at in error.lost))


def _raise_input_error(edges: Sequence[EdgeInput], streams: Mapping[str, EdgeStream]) -> None:
    for edge in edges:
        try:
            streams[edge.edge_id].raise_lost()
        except PartsLost as error:
            raise _lost(edge, error) from error


def _stored(output: EdgeOutput, columns: Sequence[Column]) -> EdgeOutput:
    """The output with the names of the columns that are kept."""
    scheme = output.scheme
    stored = tuple(name for name in output.columns or tuple(column.name for column in columns) if name != scheme.column)
    if scheme.kind is WriteKind.SAMPLED and scheme.column is not None:
        stored = (*stored, scheme.column)
    return replace(output, columns=stored)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
