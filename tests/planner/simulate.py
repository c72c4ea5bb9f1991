"""Runs a plan's fragments task by task on one DuckDB connection: rows without agents.

Stages, outputs and what each task reads are those of the coordinator, by its own functions. Every edge travels as
Arrow, and every source is cut into as many slices as its stage has tasks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa

from sabot_planner import EdgeFacts, OperatorGraph, QueryPlan, ScanInput, ShuffleEdge
from sabot_planner.sql.duck_type import duck_type, is_written
from sabot_planner.sql.edge_values import restored
from sabot_planner.sql.text import edge_column, quote, task_sql
from sabot_sql.coordinator import exchange_rules as rules
from sabot_sql.coordinator.chained_stages import Stage, chained_inputs, stages_of
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.edge_book import EdgePhase, EdgeShuffle
from sabot_sql.protocol.task_spec import EdgeOutput, OutputReport, WriteKind
from tests.planner.context import FakeContext
from tests.support.compare import Rows

_CONTROLLER = DBOSParallelController(coalesce_bytes=0, grant_bytes=0, few_rows=0)
"""Nothing is too small to be split, and heavy partitions are shared out."""


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
    _tables: dict[tuple[str, int], pa.Table] = field(default_factory=dict)
    """(Output, producer task) → its rows, with the column that places them."""
    _shuffles: dict[str, EdgeShuffle] = field(default_factory=dict)
    _reads: dict[str, rules.Reads] = field(default_factory=dict)
    _copied: set[str] = field(default_factory=set)

    def run(self) -> Rows:
        """The rows of the plan."""
        graph = self.graph
        done: set[str] = set()
        result: pa.Table | None = None
        self.connection.execute("SET arrow_lossless_conversion = true")
        while graph.sink not in done:
            _check_reads(graph)
            stage = self._next(graph, done)
            reads = self._share_inputs(stage)
            outputs = [self._run_task(graph, stage, reads, task) for task in range(reads.parallelism)]
            done |= set(stage.operators)
            for output in rules.stage_outputs(graph, stage):
                self._write(output, outputs)
            if stage.stage_id == graph.sink:
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

    def _next(self, graph: OperatorGraph, done: set[str]) -> Stage:
        existing = {node.operator_id for node in graph.operators}
        for stage in stages_of(graph, done):
            written = all(edge.written_id in self._shuffles for edge in stage.inputs)
            if written and stage.start_after & existing <= done:
                return stage
        raise AssertionError(f"nothing can start: {done} of {graph.topological_order()}")

    # --- tasks

    def _share_inputs(self, stage: Stage) -> rules.Reads:
        """What each task reads, once the ranges of sampled inputs are cut."""
        shuffles = {edge.edge_id: self._shuffles[edge.written_id] for edge in stage.inputs}
        sampled = [e for e in stage.inputs if rules.is_sampled(e, shuffles[e.edge_id])]
        undecided = [e.written_id for e in sampled if shuffles[e.edge_id].bounds is None]
        if undecided:
            bounds, _ = rules.decide_bounds(stage, shuffles, _CONTROLLER)
            for written_id in undecided:
                self._shuffles[written_id] = replace(self._shuffles[written_id], bounds=bounds)
                self._measure(written_id)
            shuffles = {edge.edge_id: self._shuffles[edge.written_id] for edge in stage.inputs}
        forward = [self._reads[edge.source] for edge in stage.inputs if edge.edge_type == "forward"]
        reads = rules.share_inputs(stage, shuffles, _CONTROLLER if self.adaptive else None, forward)
        self._reads |= dict.fromkeys(stage.operators, reads)
        return reads

    def _run_task(self, graph: OperatorGraph, stage: Stage, reads: rules.Reads, task: int) -> pa.Table:
        registered = []
        for edge in stage.inputs:
            name = f"__edge_{edge.edge_id}"
            self.connection.register(name, self._read(edge, reads.by_edge[edge.edge_id][task]))
            registered.append(name)
        text = self._fragment(graph, stage, stage.stage_id, task, reads.parallelism)
        try:
            relation = self.connection.sql(text)
            self._types[stage.stage_id] = tuple(zip(relation.columns, map(str, relation.types), strict=True))
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise AssertionError(f"{stage.stage_id}: {error}\n{text}") from error
        finally:
            for name in registered:
                self.connection.unregister(name)

    def _fragment(self, graph: OperatorGraph, stage: Stage, operator_id: str, task: int, tasks: int) -> str:
        node = graph.operator(operator_id)
        chained = chained_inputs(graph, operator_id, stage.operators)
        bindings = [(s.name, s.columns, self._slice(s, task, tasks)) for s in node.scans]
        outer = [edge for edge in graph.inputs_of(operator_id) if edge not in chained]
        bindings += [(e.input_name, (), f"SELECT {self._typed(e)} FROM __edge_{e.edge_id}") for e in outer]
        bindings += [(e.input_name, (), self._fragment(graph, stage, e.source, task, tasks)) for e in chained]
        return task_sql(node.sql, bindings)

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
        return ", ".join(edge_column(name, types[name]) for name in edge.columns)

    # --- edges

    def _write(self, output: EdgeOutput, tables: list[pa.Table]) -> None:
        placing = (output.scheme.column,) if output.scheme.column is not None else ()
        for producer, table in enumerate(tables):
            self._tables[output.edge_id, producer] = table.select([*output.columns, *placing])
        self._shuffles[output.edge_id] = EdgeShuffle(output.edge_id, output.scheme, len(tables))
        self._measure(output.edge_id)

    def _measure(self, written_id: str) -> None:
        """Report what lies in each partition of each producer's output, as it is cut now."""
        shuffle = self._shuffles[written_id]
        scheme, reports = shuffle.scheme, {}
        for producer in range(shuffle.producers):
            parts = [self._part(shuffle, producer, partition) for partition in range(shuffle.partitions)]
            rows = tuple(part.num_rows for part in parts)
            sizes = tuple(part.nbytes * self.bytes_factor for part in parts)
            keys: list[Any] = []
            if scheme.kind is WriteKind.SAMPLED:
                keys = self._tables[written_id, producer][scheme.column].to_pylist()
            sample = tuple(sorted(map(bytes, keys)))
            reports[producer] = OutputReport(
                written_id, "agent", b"", sum(rows), sum(sizes), 0, rows, sizes, sample=sample
            )
        shuffle = replace(shuffle, outputs=reports, phase=EdgePhase.MEASURED)
        distinct = None
        if scheme.kind is WriteKind.HASH_COLUMN:
            tables = [self._tables[written_id, producer] for producer in range(shuffle.producers)]
            distinct = len({h for table in tables for h in table[scheme.column].to_pylist()})
        facts = replace(shuffle.facts(), distinct_keys=distinct)
        self._shuffles[written_id] = replace(shuffle, measured=facts)
        self.facts[written_id] = facts

    def _read(self, edge: ShuffleEdge, read: rules.Read) -> pa.Table:
        shuffle = self._shuffles[edge.written_id]
        parts = [
            self._part(shuffle, producer, partition)
            for producer in read.producers
            for partition in range(read.first, read.last)
        ]
        # Where there are fewer partitions than tasks, some read nothing, but of the right types.
        return pa.concat_tables([self._part(shuffle, 0, 0).slice(0, 0), *parts])

    def _part(self, shuffle: EdgeShuffle, producer: int, partition: int) -> pa.Table:
        table = self._tables[shuffle.edge_id, producer]
        scheme = shuffle.scheme
        values = table[scheme.column].to_pylist() if scheme.column is not None else [None] * len(table)
        placed = [_partition(shuffle, index, value) == partition for index, value in enumerate(values)]
        part = table.filter(pa.array(placed, pa.bool_()))
        return part if scheme.column is None else part.drop_columns([scheme.column])

    def _rows(self, result: pa.Table, types: tuple[tuple[str, str], ...]) -> Rows:
        self.connection.register("__result", result)
        planned = [column.type for column in self.plan.output]
        kinds = [(n, duck_type(t), duck_type(wanted)) for (n, t), wanted in zip(types, planned, strict=True)]
        restored_types = tuple((n, wanted if is_written(wanted) else kind) for n, kind, wanted in kinds)
        items = [restored(quote(n), t) for n, t in restored_types]
        rows = self.connection.execute(f"SELECT {', '.join(items)} FROM __result").fetchall()
        self.connection.unregister("__result")
        return Rows(tuple(c.name for c in self.plan.output), tuple(t.text for _, t in restored_types), tuple(rows))


def _partition(shuffle: EdgeShuffle, index: int, value: Any) -> int:
    """The partition of a producer's row by its place and what places it."""
    match shuffle.scheme.kind:
        case WriteKind.HASH_COLUMN:
            return int(((value >> 32) * shuffle.partitions) >> 32)
        case WriteKind.SAMPLED:
            return sum(bound <= bytes(value) for bound in shuffle.bounds or ())
        case WriteKind.ROUND_ROBIN:
            return index % shuffle.partitions
        case WriteKind.ONE_PARTITION:
            return 0
        case kind:
            raise AssertionError(f"{shuffle.edge_id}: no fragment of the planner is written as {kind}")


def _check_reads(graph: OperatorGraph) -> None:
    """What the planner says of a fragment is what its text says."""
    for edge in graph.edges:
        named = re.findall(rf"\b{edge.input_name}\b", graph.operator(edge.target).sql)
        assert edge.reads == len(named), f"{edge.target} names {edge.edge_id} {len(named)} times, not {edge.reads}"
    for node in graph.operators:
        assert node.exports_states == ("EXPORT_STATE" in node.sql), node
