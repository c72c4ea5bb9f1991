"""A job graph made executable: schemas checked, every operator one SELECT or one Python function, sources bound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import (
    Column,
    Operator,
    OperatorType,
    Placement,
    ScanInput,
    ShuffleEdge,
    ShuffleEdgeType,
)
from sabot_planner.sql.duck_type import duck_type, is_written, lost_on_edges
from sabot_planner.sql.edge_values import restored, written
from sabot_planner.sql.text import quote, task_sql
from sabot_sql.errors import JobError, QueryError, SourceError
from sabot_sql.jobs.batch_functions import Generator, RowsFunction, plain_schema, probed_schema
from sabot_sql.jobs.job_graph import JobGraph
from sabot_sql.jobs.job_sources import JobSources
from sabot_sql.jobs.key_survival import may_be_copied
from sabot_sql.jobs.operator_sql import UNWINDOWED, Input, is_windowed, operator_sql, sort_columns, sort_key
from sabot_sql.jobs.operators import StreamOperatorNode
from sabot_sql.jobs.shuffle_detection import execution_graph
from sabot_sql.jobs.sink_targets import Target, parsed_target
from sabot_sql.jobs.source_readers import GeneratedSource, SqlSource, first_schema, source_of, table_of

if TYPE_CHECKING:
    import pyarrow as pa

    from sabot_sql.catalog.query_sources import QuerySources

_PARTS = "parts"
SINK_EDGE = "sink_"
"""Begins the ids of the edges from several sinks to the operator that has the rows of all of them."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,14}\Z")


@dataclass(frozen=True, slots=True)
class BoundSource:
    """A SELECT over sources, of which each of ``tasks`` tasks computes its share; ``columns`` are what it gives.

    ``fragment`` gives the columns under other names, in the same order.
    """

    fragment: str
    scans: tuple[ScanInput, ...]
    tasks: int
    columns: tuple[Column, ...]
    sources: QuerySources
    placement: Placement


class Binding(Protocol):
    """What making a job executable needs of the session."""

    def bind(self, source: SqlSource, tasks: int) -> BoundSource:
        """Bind a SELECT so that up to ``tasks`` tasks share its rows."""
        ...

    def columns(self, sql: str, inputs: Mapping[str, Sequence[Column]]) -> tuple[Column, ...]:
        """The columns of a SELECT over ``inputs``."""
        ...

    def of_arrow(self, schema: pa.Schema) -> tuple[Column, ...]:
        """The columns that DuckDB makes of Arrow data."""
        ...

    def to_arrow(self, columns: Sequence[Column]) -> pa.Schema:
        """The Arrow schema of rows that leave DuckDB."""
        ...

    @property
    def settings(self) -> Mapping[str, str]:
        """The session's settings that change answers."""
        ...

    @property
    def function_placement(self) -> Placement:
        """Where Python functions run."""
        ...


@dataclass(frozen=True, slots=True)
class Sink:
    """A SINK of a job: its columns, and where its rows go; no target is the result."""

    operator_id: str
    columns: tuple[Column, ...]
    target: Target | None


@dataclass(frozen=True, slots=True)
class ExecutableJob:
    """A job whose operators are all known to fit together.

    ``sinks`` give the rows of the graph's sink; where they are several, its column ``sink`` says whose a row is.
    ``schemas`` are the columns that each operator of the job gives.
    """

    graph: OperatorGraph
    sources: JobSources
    sinks: tuple[Sink, ...]
    columns: tuple[Column, ...]
    schemas: Mapping[str, tuple[Column, ...]]


def executable(job: JobGraph, binding: Binding) -> ExecutableJob:
    """Make ``job`` executable, or say what is wrong with it before anything runs.

    Raises:
        JobError: it is not valid, or a key, column or type does not fit.
        QueryError: the SQL of an operator is wrong.
        SourceError: a source cannot be read.
    """
    job.validate()
    return _Compiler(job, binding).compiled()


@dataclass(slots=True)
class _Draft:
    """An operator of the engine's while it is put together; ``hidden`` are columns that place rows on edges."""

    operator_id: str
    node: StreamOperatorNode
    sql: str
    columns: tuple[Column, ...]
    parallelism: int
    scans: tuple[ScanInput, ...] = ()
    function: str = ""
    placement: Placement = Placement.ANY
    hidden: dict[str, str] = field(default_factory=dict)
    label: str = ""

    def operator(self) -> Operator:
        items = [f"{written(quote(c.name), duck_type(c.type))} AS {quote(c.name)}" for c in self.columns]
        items += [f"{value} AS {quote(name)}" for name, value in self.hidden.items()]
        changed = any(is_written(duck_type(column.type)) for column in self.columns)
        sql = f"SELECT {', '.join(items)} FROM ({self.sql}) AS rows_of_task" if self.hidden or changed else self.sql
        return Operator(
            self.operator_id,
            self.node.operator_type,
            sql,
            self.parallelism,
            self.scans,
            tuple(self.node.key_by),
            self.node.stateful,
            self.placement,
            label=self.label,
            function=self.function,
        )


class _Compiler:
    def __init__(self, job: JobGraph, binding: Binding) -> None:
        self._job = job
        self._binding = binding
        self._sources = JobSources(binding.settings)
        self._drafts: dict[str, _Draft] = {}
        self._edges: list[ShuffleEdge] = []
        self._columns: dict[str, tuple[Column, ...]] = {}
        self._placed: dict[tuple[str, str], str] = {}

    def compiled(self) -> ExecutableJob:
        order = self._job.topological_sort()
        for operator_id in order:
            if self._job.operator(operator_id).operator_type is OperatorType.SOURCE:
                self._source(self._job.operator(operator_id))
        declared = execution_graph(self._job).edges
        for operator_id in order:
            node = self._job.operator(operator_id)
            if node.operator_type is not OperatorType.SOURCE:
                self._operator(node, [edge for edge in declared if edge.target == operator_id])
        sinks, sink = self._finish()
        graph = OperatorGraph(
            tuple(draft.operator() for draft in self._drafts.values()), tuple(self._edges), sink, self._ordered(sink)
        )
        columns = self._drafts[sink].columns
        return ExecutableJob(graph, self._sources, sinks, columns, self._columns)

    # ----------------------------------------------------------------------------------------------------- sources

    def _source(self, node: StreamOperatorNode) -> None:
        source = source_of(node)
        if isinstance(source, GeneratedSource):
            self._generated(node, source)
        else:
            self._bound(node, node.operator_id, source, node.parallelism)
        self._check_columns(node, self._drafts[node.operator_id].columns)
        self._columns[node.operator_id] = self._drafts[node.operator_id].columns

    def _bound(self, node: StreamOperatorNode, operator_id: str, source: SqlSource, tasks: int) -> None:
        """Operators that give the rows of ``source`` as ``operator_id`` in ``tasks`` tasks."""
        with _named(node):
            bound = self._binding.bind(source, tasks)
        self._sources.add(operator_id, bound.sources)
        scans = tuple(
            replace(scan, source_id=JobSources.source_id(operator_id, scan.source_id)) for scan in bound.scans
        )
        # The planner's own names of columns end here.
        names = ", ".join(quote(f"c{i}") for i in range(len(bound.columns)))
        items = ", ".join(
            f"{restored(quote(f'c{i}'), duck_type(c.type))} AS {quote(c.name)}" for i, c in enumerate(bound.columns)
        )
        sql = f"SELECT {items} FROM ({bound.fragment}) AS bound_rows({names})"
        label = _label(node)
        draft = _Draft(
            operator_id, node, sql, bound.columns, bound.tasks, scans, placement=bound.placement, label=label
        )
        if bound.tasks == tasks:
            self._drafts[operator_id] = draft
            return
        reader = replace(draft, operator_id=f"{operator_id}_read", label=f"{label} (cannot be cut)", hidden={})
        self._drafts[reader.operator_id] = reader
        edge_id = f"{_PARTS}_{len(self._edges) + 1}"
        reason = f"its source gives {bound.tasks} part{'s' * (bound.tasks != 1)}: dealt evenly to {tasks} tasks"
        self._edge(ShuffleEdge(edge_id, reader.operator_id, operator_id, ShuffleEdgeType.REBALANCE, reason=reason))
        self._drafts[operator_id] = _Draft(
            operator_id, node, self._input_sql(edge_id, bound.columns), bound.columns, tasks, label=label
        )

    def _generated(self, node: StreamOperatorNode, source: GeneratedSource) -> None:
        schema = node.schema or first_schema(source, node.operator_id, node.parallelism)
        columns = self._arrow_columns(node, schema)
        tasks = node.parallelism if source.per_task else 1
        generator = Generator(node.operator_id, source.call, source.per_task, tasks, columns, schema)
        self._sources.add_function(node.operator_id, generator)
        reader_id = node.operator_id if tasks == node.parallelism else f"{node.operator_id}_read"
        label = _label(node)
        self._drafts[reader_id] = _Draft(
            reader_id,
            node,
            "SELECT 1 AS begin",
            columns,
            tasks,
            function=node.operator_id,
            placement=self._binding.function_placement,
            label=f"{label} (Python)",
        )
        if reader_id == node.operator_id:
            return
        edge_id = f"{_PARTS}_{len(self._edges) + 1}"
        reason = f"one generator: dealt evenly to {node.parallelism} tasks"
        self._edge(ShuffleEdge(edge_id, reader_id, node.operator_id, ShuffleEdgeType.REBALANCE, reason=reason))
        sql = self._input_sql(edge_id, columns)
        self._drafts[node.operator_id] = _Draft(node.operator_id, node, sql, columns, node.parallelism, label=label)

    # --------------------------------------------------------------------------------------------------- operators

    def _operator(self, node: StreamOperatorNode, edges: list[ShuffleEdge]) -> None:
        inputs = self._inputs(node)
        for (_, columns), edge in zip(inputs, edges, strict=True):
            self._check_edge(node, edge, columns)
        self._check_join(node, edges, inputs)
        sql = operator_sql(node, inputs)
        tables = {name: self._small_table(node, name, table) for name, table in node.tables.items()}
        relations = {**dict(inputs), **{name: known for name, (_, known) in tables.items()}}
        with _named(node):
            columns = self._binding.columns(sql, relations)
        self._check_columns(node, columns)
        bindings = [
            (name, (), self._input_sql(edge.edge_id, known)) for (name, known), edge in zip(inputs, edges, strict=True)
        ]
        bindings += [(name, (), self._input_sql(edge_id, known)) for name, (edge_id, known) in tables.items()]
        draft = _Draft(node.operator_id, node, task_sql(sql, bindings), columns, node.parallelism, label=_label(node))
        if node.function is not None:
            draft = self._through_function(node, draft)
        for edge in edges:
            self._edge(self._prepared(node, edge))
        self._drafts[node.operator_id] = draft
        self._columns[node.operator_id] = draft.columns

    def _through_function(self, node: StreamOperatorNode, draft: _Draft) -> _Draft:
        if node.function is None:
            return draft
        for column in draft.columns:
            if is_written(duck_type(column.type)):
                reason = f"a Python function cannot take column {column.name!r} of type {column.type}"
                raise _error(node, reason, "TYPE")
        arrives = plain_schema(self._binding.to_arrow(draft.columns))
        schema = node.schema
        if node.operator_type is OperatorType.FILTER:
            schema = arrives
        elif schema is None:
            schema = probed_schema(node.operator_id, node.operator_type, node.function, arrives)
        columns = draft.columns if schema == arrives else self._arrow_columns(node, schema)
        function = RowsFunction(
            node.operator_id, node.operator_type, node.function, columns, schema, tuple(node.key_by)
        )
        self._sources.add_function(node.operator_id, function)
        self._check_columns(node, columns)
        label, placement = f"{draft.label} (Python)", self._binding.function_placement
        return replace(draft, columns=columns, function=node.operator_id, placement=placement, label=label)

    def _small_table(self, node: StreamOperatorNode, name: str, table: object) -> tuple[str, tuple[Column, ...]]:
        """The edge and the columns of a table that every task of ``node`` has all of."""
        if not _NAME.match(name) or name in dict(self._inputs(node)):
            raise _error(node, f"{name!r} cannot be the name of a table beside its input", "INPUT_NAME")
        if node.parallelism > 1 and not may_be_copied(node.sql, name):
            reason = f"rows of {name!r} without a match would come once for each of {node.parallelism} tasks"
            raise _error(node, reason, "BROADCAST", "join it so that rows of the input decide, or use a JOIN by key_by")
        source = table_of(table, node.operator_id)
        if isinstance(source, GeneratedSource):
            raise _error(node, f"table {name!r} is a function; give a table, files or a SELECT", "SOURCE")
        operator_id = f"{node.operator_id}_{name}"
        self._bound(node, operator_id, source, 1)
        draft = self._drafts[operator_id]
        draft.label = name
        self._check_columns(node, draft.columns)
        edge_id = f"table_{len(self._edges) + 1}"
        reason = "declared small: every task has all of it"
        self._edge(
            ShuffleEdge(
                edge_id,
                operator_id,
                node.operator_id,
                ShuffleEdgeType.BROADCAST,
                columns=tuple(c.name for c in draft.columns),
                reason=reason,
            )
        )
        return edge_id, draft.columns

    def _inputs(self, node: StreamOperatorNode) -> list[Input]:
        connections = self._job.inputs_of(node.operator_id)
        if is_windowed(node):
            return [(UNWINDOWED, self._columns[connections[0].source])]
        unnamed = sum(not c.name for c in connections)
        names = iter(["input"] if unnamed == 1 else [f"input_{number}" for number in range(1, unnamed + 1)])
        return [(c.name or next(names), self._columns[c.source]) for c in connections]

    def _prepared(self, node: StreamOperatorNode, edge: ShuffleEdge) -> ShuffleEdge:
        """``edge`` with what the engine needs to write it."""
        columns = self._columns[edge.source]
        names = tuple(column.name for column in columns)
        if edge.edge_type is ShuffleEdgeType.RANGE and edge.bounds_partitions > 1:
            place = f"place_{edge.edge_id}"
            self._place_rows(edge.source, edge.edge_id).hidden[place] = sort_key(node)
            source = self._placed.get((edge.source, edge.edge_id), edge.source)
            return replace(edge, source=source, partition_by=place, columns=names)
        if edge.edge_type is ShuffleEdgeType.HASH and not edge.keys:
            edge = replace(edge, keys=names)
        return replace(edge, columns=names)

    def _place_rows(self, source: str, edge_id: str) -> _Draft:
        """The operator that can compute a column more of the rows of ``source``."""
        draft = self._drafts[source]
        if not draft.function:
            return draft
        through, inner = f"{source}_keys", f"{edge_id}_in"
        if through not in self._drafts:
            sql = self._input_sql(inner, draft.columns)
            label = f"{draft.label}, with the keys it is sorted by"
            self._drafts[through] = _Draft(through, draft.node, sql, draft.columns, draft.parallelism, label=label)
            reason = "what Python made goes back to DuckDB"
            self._edge(ShuffleEdge(inner, source, through, ShuffleEdgeType.FORWARD, reason=reason))
        self._placed[source, edge_id] = through
        return self._drafts[through]

    def _edge(self, edge: ShuffleEdge) -> None:
        self._edges.append(edge)

    def _input_sql(self, edge_id: str, columns: Sequence[Column]) -> str:
        items = [f"{restored(quote(c.name), duck_type(c.type))} AS {quote(c.name)}" for c in columns]
        return f"SELECT {', '.join(items)} FROM {quote(edge_id)}"

    # -------------------------------------------------------------------------------------------------------- ends

    def _finish(self) -> tuple[tuple[Sink, ...], str]:
        """The sinks, and the operator whose rows are those of all of them."""
        ends = [node for node in self._job.operators if not self._job.outputs_of(node.operator_id)]
        writing = [node for node in ends if node.operator_type is OperatorType.SINK]
        if writing and len(writing) != len(ends):
            unread = next(node for node in ends if node not in writing)
            raise _error(unread, "nothing reads it", "SHAPE", "connect it to a SINK, or leave it out")
        if len(ends) > 1 and not writing:
            ids = ", ".join(repr(node.operator_id) for node in ends)
            hint = "give each a SINK that says where its rows go"
            raise JobError(f"job {self._job.job_id!r} has several ends: {ids}", code="SHAPE", hint=hint)
        sinks = tuple(
            Sink(
                node.operator_id,
                self._columns[node.operator_id],
                parsed_target(node.sink, node.operator_id, node.parallelism),
            )
            for node in ends
        )
        if len(sinks) == 1:
            return sinks, sinks[0].operator_id
        return sinks, self._together(ends, sinks)

    def _together(self, ends: Sequence[StreamOperatorNode], sinks: Sequence[Sink]) -> str:
        """One operator with the rows of several sinks: whose a row is, and the row in a column for each sink."""
        empty = [f"CAST(NULL AS {_struct(sink.columns)})" for sink in sinks]
        branches = []
        for number, (node, sink) in enumerate(zip(ends, sinks, strict=True)):
            edge_id = f"{SINK_EDGE}{number}"
            names = ", ".join(f"{quote(c.name)} := {quote(c.name)}" for c in sink.columns)
            rows = [f"struct_pack({names})" if place == number else value for place, value in enumerate(empty)]
            items = ", ".join(f"{value} AS s{place}" for place, value in enumerate(rows))
            source = self._input_sql(edge_id, sink.columns)
            branches.append(f"SELECT {number}::INTEGER AS sink, {items} FROM ({source})")
            stored = tuple(c.name for c in sink.columns)
            reason = "the rows of all sinks are kept until everything has succeeded"
            self._edge(
                ShuffleEdge(
                    edge_id, node.operator_id, "sinks", ShuffleEdgeType.REBALANCE, columns=stored, reason=reason
                )
            )
        columns = [Column("sink", "INTEGER"), *(Column(f"s{i}", _struct(s.columns)) for i, s in enumerate(sinks))]
        node = StreamOperatorNode(operator_type=OperatorType.SINK, operator_id="sinks")
        self._drafts["sinks"] = _Draft("sinks", node, " UNION ALL ".join(branches), tuple(columns), 1, label="sinks")
        return "sinks"

    def _ordered(self, sink: str) -> bool:
        """Whether the rows of ``sink`` come in the order of a SORT, if its tasks are read one after the other."""
        if self._job_has(sink) and self._job.operator(sink).operator_type is OperatorType.SORT:
            return True
        edges = [edge for edge in self._edges if edge.target == sink]
        kinds = (OperatorType.SINK, OperatorType.MAP, OperatorType.FILTER, OperatorType.FLAT_MAP)
        if not self._job_has(sink) or self._job.operator(sink).base_type not in kinds:
            return False
        moved = [edge for edge in edges if edge.edge_type is not ShuffleEdgeType.BROADCAST]
        return len(moved) == 1 and moved[0].edge_type is ShuffleEdgeType.FORWARD and self._ordered(moved[0].source)

    def _job_has(self, operator_id: str) -> bool:
        return any(node.operator_id == operator_id for node in self._job.operators)

    # ------------------------------------------------------------------------------------------------------ checks

    def _check_columns(self, node: StreamOperatorNode, columns: Sequence[Column]) -> None:
        names = [column.name.lower() for column in columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise _error(node, f"gives column {twice[0]!r} twice", "COLUMN_TWICE", "give each a name of its own")
        if not columns:
            raise _error(node, "gives no columns", "NO_COLUMNS")
        for column in columns:
            lost = lost_on_edges(duck_type(column.type))
            if lost is not None:
                reason = f"column {column.name!r} has {lost}, which no edge can carry"
                raise _error(node, reason, "TYPE", "cast it to another type")

    def _check_edge(self, node: StreamOperatorNode, edge: ShuffleEdge, columns: Sequence[Column]) -> None:
        types = {column.name: column.type for column in columns}
        keys = sort_columns(node) if node.base_type is OperatorType.SORT else tuple(node.key_by)
        if edge.edge_type is ShuffleEdgeType.BROADCAST and node.base_type is not OperatorType.JOIN:
            return
        for key in keys:
            if key not in types:
                raise _error(
                    node,
                    f"key {key!r} is no column of {edge.source!r}, which has {', '.join(types)}",
                    "KEY_NOT_IN_SCHEMA",
                    candidates=[name for name in types if name.lower() == key.lower()],
                )
        moves = edge.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE) and node.parallelism > 1
        if not moves:
            return
        for key in keys or types:
            if is_written(duck_type(types[key])):
                reason = f"key {key!r} is of type {types[key]}, by which rows cannot be placed"
                raise _error(node, reason, "TYPE", "cast it in an operator before")

    def _check_join(self, node: StreamOperatorNode, edges: Sequence[ShuffleEdge], inputs: Sequence[Input]) -> None:
        """Keys of different types are equal in SQL and lie apart: such rows would never meet."""
        hashed = [
            {column.name: column.type for column in columns}
            for (_, columns), edge in zip(inputs, edges, strict=True)
            if edge.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.FORWARD)
        ]
        if node.base_type not in (OperatorType.JOIN, OperatorType.UNION) or len(hashed) < 2 or node.parallelism == 1:
            return
        for key in node.key_by:
            types = {side[key] for side in hashed}
            if len(types) > 1:
                reason = f"key {key!r} is {' on one side and '.join(sorted(types))} on the other"
                raise _error(node, reason, "KEY_TYPES_DIFFER", "cast one of them in an operator before")

    def _arrow_columns(self, node: StreamOperatorNode, schema: pa.Schema) -> tuple[Column, ...]:
        with _named(node):
            columns = self._binding.of_arrow(schema)
        for column in columns:
            if is_written(duck_type(column.type)):
                reason = f"Python cannot give column {column.name!r} of type {column.type}"
                raise _error(node, reason, "TYPE", "give it as text or numbers")
        return columns


def _struct(columns: Sequence[Column]) -> str:
    return f"STRUCT({', '.join(f'{quote(c.name)} {c.type}' for c in columns)})"


def _label(node: StreamOperatorNode) -> str:
    if node.label:
        return node.label
    keys = ", ".join(node.sort_order if node.base_type is OperatorType.SORT else node.key_by)
    return f"{node.operator_type.value.upper()}{f' by {keys}' if keys else ''}"


@contextmanager
def _named(node: StreamOperatorNode) -> Iterator[None]:
    """Whatever is wrong with SQL inside is said of this operator."""
    try:
        yield
    except (QueryError, SourceError) as error:
        error.message = f"operator {node.operator_id!r}: {error.message}"
        raise


def _error(
    node: StreamOperatorNode, reason: str, code: str, hint: str | None = None, candidates: Sequence[str] = ()
) -> JobError:
    message = f"operator {node.operator_id!r}: {reason}"
    return JobError(message, code=code, hint=hint, operator=node.operator_id, candidates=candidates)
