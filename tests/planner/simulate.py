"""Runs a plan's fragments task by task on one DuckDB connection: rows without any runtime.

Every edge travels as Arrow, and every source is cut into as many slices as its operator has tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa

from sabot_planner import (
    EdgeFacts,
    Operator,
    OperatorGraph,
    QueryPlan,
    ScanInput,
    ShuffleEdge,
    ShuffleEdgeType,
    Task,
)
from sabot_planner.job.execution_graph import task_input
from sabot_planner.sql.duck_type import duck_type, is_written
from sabot_planner.sql.edge_values import restored
from sabot_planner.sql.text import quote, task_sql
from tests.planner.context import FakeContext
from tests.support.compare import Rows


@dataclass(slots=True)
class Simulation:
    """One run of a plan; ``plan`` is the revised one at the end, ``facts`` what was measured of each edge.

    ``bytes_factor`` makes every measurement so many times larger than it is.
    """

    context: FakeContext
    plan: QueryPlan
    adaptive: bool = True
    bytes_factor: int = 1
    facts: dict[str, EdgeFacts] = field(default_factory=dict)
    _types: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    _parts: dict[tuple[str, int, int], pa.Table] = field(default_factory=dict)
    _partitions: dict[str, int] = field(default_factory=dict)
    _copied: set[str] = field(default_factory=set)

    def run(self) -> Rows:
        """The rows of the plan."""
        graph = self.graph
        done: dict[str, Operator] = {}
        result: pa.Table | None = None
        self.connection.execute("SET arrow_lossless_conversion = true")
        while graph.sink not in done:
            node = self._next(graph, done)
            outputs = [self._run_task(graph, node, index) for index in range(node.parallelism)]
            done[node.operator_id] = node
            for edge in {edge.written_id: edge for edge in graph.outputs_of(node.operator_id)}.values():
                self._write(edge, outputs)
            if node.operator_id == graph.sink:
                result = self._result(graph, outputs)
            if self.adaptive:
                self.plan = self.plan.revise(dict(self.facts), frozenset(done))
                graph = self.graph
        assert result is not None
        return self._rows(result, self._types[graph.sink])

    def _result(self, graph: OperatorGraph, outputs: list[pa.Table]) -> pa.Table:
        """The sink's rows as they are read: task by task, or part by part."""
        parts = graph.result_parts
        if parts is None:
            return pa.concat_tables(outputs)
        self._types[graph.sink] = tuple(t for t in self._types[graph.sink] if t[0] != parts.column)
        pieces = []
        for part in range(parts.count):
            for table in outputs:
                held = [((h >> 32) * parts.count) >> 32 == part for h in table[parts.column].to_pylist()]
                pieces.append(table.filter(pa.array(held, pa.bool_())).drop_columns([parts.column]))
        return pa.concat_tables(pieces)

    @property
    def graph(self) -> OperatorGraph:
        return self.plan.operator_graph

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return self.context.connection

    def _next(self, graph: OperatorGraph, done: dict[str, Operator]) -> Operator:
        for operator_id in graph.topological_order():
            node = graph.operator(operator_id)
            ready = {e.source for e in graph.inputs_of(operator_id)} | set(node.start_after)
            if operator_id not in done and ready <= done.keys():
                return node
        raise AssertionError(f"nothing can start: {done.keys()} of {graph.topological_order()}")

    def _run_task(self, graph: OperatorGraph, node: Operator, index: int) -> pa.Table:
        bindings = [(s.name, s.columns, self._slice(s, index, node.parallelism)) for s in node.scans]
        registered = []
        for edge in graph.inputs_of(node.operator_id):
            table = self._read(edge, graph, Task(node.operator_id, index, node.parallelism))
            name = f"__edge_{edge.edge_id}"
            self.connection.register(name, table)
            registered.append(name)
            bindings.append((edge.input_name, (), f"SELECT {self._typed(edge)} FROM {name}"))
        text = task_sql(node.sql, bindings)
        try:
            relation = self.connection.sql(text)
            self._types[node.operator_id] = tuple(zip(relation.columns, map(str, relation.types), strict=True))
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise AssertionError(f"{node.operator_id}: {error}\n{text}") from error
        finally:
            for name in registered:
                self.connection.unregister(name)

    def _slice(self, scan: ScanInput, index: int, count: int) -> str:
        relation, columns = self.context.relations[scan.source_id]
        copy = f"copy_of_{scan.source_id}"
        names = ", ".join(map(quote, columns))
        if scan.source_id not in self._copied:
            self.connection.execute(
                f'CREATE OR REPLACE TEMP TABLE {copy} AS SELECT row_number() OVER () - 1 AS "slice row", {names}'
                f" FROM {relation}"
            )
            self._copied.add(scan.source_id)
        if not scan.sliced:
            return f"SELECT {names} FROM {copy}"
        if scan.split is not None:
            bounds = scan.split.between(*scan.split.share(index, count))
            if bounds is None:
                return f"SELECT {names} FROM {copy} WHERE false"
            low, high = bounds
            column = quote(scan.split.column)
            terms = [f"{column} >= {low}"] * (low is not None) + [f"{column} < {high}"] * (high is not None)
            return f"SELECT {names} FROM {copy} WHERE {' AND '.join(terms) or 'TRUE'}"
        return (
            f"SELECT {names} FROM {copy}"
            f' WHERE "slice row" * {count} // (SELECT greatest(count(*), 1) FROM {copy}) = {index}'
        )

    def _typed(self, edge: ShuffleEdge) -> str:
        types = dict(self._types[edge.source])
        return ", ".join(
            f"CAST({quote(c)} AS {types[c]}) AS {quote(c)}" if "ENUM(" in types[c] else quote(c) for c in edge.columns
        )

    # --- edges

    def _write(self, edge: ShuffleEdge, outputs: list[pa.Table]) -> None:
        written = edge.write_type
        count = edge.bounds_partitions if written is ShuffleEdgeType.RANGE else edge.partitions
        bounds = _bounds(edge, outputs, count) if written is ShuffleEdgeType.RANGE else []
        rows, sizes = [0] * count, [0] * count
        for producer, table in enumerate(outputs):
            kept = table.select(list(edge.columns))
            for partition, indices in enumerate(_placed(edge, table, count, bounds)):
                part = kept.take(pa.array(indices, pa.int64()))
                self._parts[edge.written_id, producer, partition] = part
                rows[partition] += part.num_rows
                sizes[partition] += part.nbytes
        self._partitions[edge.written_id] = count
        sizes = [size * self.bytes_factor for size in sizes]
        distinct = None
        if written is ShuffleEdgeType.HASH and edge.partition_by is not None:
            distinct = len({h for table in outputs for h in table[edge.partition_by].to_pylist()})
        self.facts[edge.written_id] = EdgeFacts(
            sum(rows), sum(sizes), tuple(rows), tuple(sizes), distinct_keys=distinct
        )

    def _read(self, edge: ShuffleEdge, graph: OperatorGraph, task: Task) -> pa.Table:
        written_as = edge.written_id
        written = replace(edge, partitions=self._partitions[written_as])
        read = task_input(written, task, graph.operator(edge.source).parallelism)
        parts = [
            self._parts[written_as, producer, partition]
            for producer in read.producers
            for partition in range(read.first_partition, read.last_partition)
        ]
        # Where there are fewer partitions than tasks, some read nothing, but of the right types.
        return pa.concat_tables([self._parts[written_as, 0, 0].slice(0, 0), *parts])

    def _rows(self, result: pa.Table, types: tuple[tuple[str, str], ...]) -> Rows:
        self.connection.register("__result", result)
        planned = [column.type for column in self.plan.output]
        kinds = [(n, duck_type(t), duck_type(wanted)) for (n, t), wanted in zip(types, planned, strict=True)]
        restored_types = tuple((n, wanted if is_written(wanted) else kind) for n, kind, wanted in kinds)
        items = [restored(quote(n), t) for n, t in restored_types]
        rows = self.connection.execute(f"SELECT {', '.join(items)} FROM __result").fetchall()
        self.connection.unregister("__result")
        return Rows(tuple(c.name for c in self.plan.output), tuple(t.text for _, t in restored_types), tuple(rows))


def _placed(edge: ShuffleEdge, table: pa.Table, count: int, bounds: list[bytes]) -> list[list[int]]:
    """Which rows of a producer's output go to each partition."""
    parts: list[list[int]] = [[] for _ in range(count)]
    values: list[Any] = table.column(edge.partition_by).to_pylist() if edge.partition_by else [None] * len(table)
    for index, value in enumerate(values):
        match edge.write_type:
            case ShuffleEdgeType.HASH:
                partition = ((value >> 32) * count) >> 32
            case ShuffleEdgeType.RANGE:
                partition = sum(bound <= value for bound in bounds)
            case _:
                partition = index % count
        parts[partition].append(index)
    return parts


def _bounds(edge: ShuffleEdge, outputs: list[pa.Table], count: int) -> list[bytes]:
    keys = sorted({bytes(key) for table in outputs for key in table.column(edge.partition_by).to_pylist()})
    return [keys[len(keys) * i // count] for i in range(1, count)] if len(keys) >= count else keys[1:count]
