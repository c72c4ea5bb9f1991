"""How edges are written and read: the rules that turn an edge and measurements into schemes, ranges and reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sabot_planner.errors import InvalidGraph
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Column, ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.chained_stages import Stage
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.edge_book import EdgeBook, EdgeShuffle
from sabot_sql.coordinator.partitions import balanced_runs, even_runs, range_bounds
from sabot_sql.coordinator.skew import HashShare, split_heavy
from sabot_sql.protocol.task_spec import EdgeInput, EdgeOutput, TaskReport, WriteKind, WriteScheme

RESULT_EDGE = "result"


@dataclass(frozen=True, slots=True)
class Read:
    """What one task reads of one edge: partitions [first, last) of these producer tasks, in this order."""

    producers: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reads:
    """How the tasks of a stage share its inputs, and why there are so many."""

    parallelism: int
    by_edge: Mapping[str, tuple[Read, ...]]
    reason: str
    runs: tuple[tuple[int, int], ...] = ()
    """The hash buckets [first, last) of each task; consumers over a FORWARD edge must keep to them."""
    split_edges: tuple[str, ...] = ()
    """Edges of which a heavy partition is shared out; ``reason`` says which."""


def write_scheme(graph: OperatorGraph, edge: ShuffleEdge) -> WriteScheme:
    """How the producers of ``edge`` place their rows.

    Raises:
        InvalidGraph: the edge does not say by what.
    """
    kind = edge.write_type
    partitions = max(edge.partitions, graph.operator(edge.target).parallelism)
    if kind is ShuffleEdgeType.HASH and partitions > 1:
        if edge.partition_by is not None:
            return WriteScheme(WriteKind.HASH_COLUMN, partitions, edge.partition_by)
        if not edge.keys:
            raise InvalidGraph(f"HASH edge {edge.edge_id!r} has neither keys nor a partition_by column")
        return WriteScheme(WriteKind.HASH_COLUMNS, partitions, keys=edge.keys)
    if kind is ShuffleEdgeType.RANGE and edge.bounds_partitions > 1:
        if edge.partition_by is None:
            raise InvalidGraph(f"RANGE edge {edge.edge_id!r} has no partition_by column")
        return WriteScheme(WriteKind.SAMPLED, 1, edge.partition_by)
    if kind is ShuffleEdgeType.REBALANCE and partitions > 1:
        return WriteScheme(WriteKind.ROUND_ROBIN, partitions, edge.partition_by)
    return WriteScheme(WriteKind.ONE_PARTITION, 1, edge.partition_by)


def stage_outputs(graph: OperatorGraph, stage: Stage) -> tuple[EdgeOutput, ...]:
    """What the tasks of ``stage`` write to its edges: one output for all edges that read the same one."""
    own_last = sorted(stage.outputs, key=lambda edge: edge.rereads is None)
    written = {edge.written_id: edge for edge in own_last}
    return tuple(
        EdgeOutput(written_id, write_scheme(graph, edge), edge.columns) for written_id, edge in written.items()
    )


def result_scheme(graph: OperatorGraph, *, to_files: bool) -> WriteScheme:
    """How the sink's tasks place their rows; what writes files commits the numbers of them instead."""
    parts = graph.result_parts
    if parts is None or to_files:
        return WriteScheme(WriteKind.ONE_PARTITION, 1, parts.column if parts is not None else None)
    return WriteScheme(WriteKind.HASH_COLUMN, parts.count, parts.column)


def decide_bounds(
    stage: Stage, shuffles: Mapping[str, EdgeShuffle], controller: DBOSParallelController
) -> tuple[tuple[bytes, ...], str]:
    """The bounds that all RANGE inputs of ``stage`` share, and the reason; no bounds mean one range."""
    ranged = [edge for edge in stage.inputs if is_sampled(edge, shuffles[edge.edge_id])]
    outputs = [output for edge in ranged for output in shuffles[edge.edge_id].outputs.values()]
    rows = sum(output.rows for output in outputs)
    size_bytes = sum(output.size_bytes for output in outputs)
    planned = max((edge.bounds_partitions for edge in ranged), default=1)
    worth = controller.calculate_range_count(rows, size_bytes, planned=planned)
    if worth.count == 1:
        return (), worth.reason
    bounds = range_bounds([(output.rows, output.sample) for output in outputs], worth.count)
    sampled = sum(len(output.sample) for output in outputs)
    return bounds, f"{len(bounds) + 1} ranges of {rows:,} rows from {sampled:,} sampled keys"


def is_sampled(edge: ShuffleEdge, shuffle: EdgeShuffle) -> bool:
    """Whether the ranges of this input are still to be cut, or were cut, from a sample."""
    return edge.edge_type is ShuffleEdgeType.RANGE and shuffle.scheme.kind is WriteKind.SAMPLED


def share_inputs(
    stage: Stage,
    shuffles: Mapping[str, EdgeShuffle],
    controller: DBOSParallelController | None,
    producers: Sequence[Reads],
) -> Reads:
    """What each task of ``stage`` reads.

    Without a ``controller`` the planned parallelism stands. ``producers`` are how the stages behind FORWARD inputs were
    shared out, task by task.
    """
    # A consumer over FORWARD may join it task by task with another stage that is partitioned alike: neither may adapt.
    fixed = any(edge.edge_type is ShuffleEdgeType.FORWARD for edge in stage.outputs)
    controller = None if fixed else controller
    forward = producers[0] if producers else None
    hashed = [edge for edge in stage.inputs if edge.edge_type is ShuffleEdgeType.HASH]
    parallelism, reason = stage.parallelism, f"{stage.parallelism} tasks as planned"
    runs: tuple[tuple[int, int], ...] = ()
    shares: tuple[HashShare, ...] = ()
    ranged = [edge for edge in stage.inputs if edge.edge_type is ShuffleEdgeType.RANGE]
    if not _agree(producers):
        parallelism, reason = 1, "one task: its inputs were shared out differently"
    elif ranged:
        parallelism = max(shuffles[edge.edge_id].partitions for edge in ranged)
        reason = f"a task for each of {parallelism} ranges"
    elif forward is not None and (stage.keyed or (not stage.slices and _alike(forward, hashed, shuffles))):
        parallelism, runs, reason = forward.parallelism, forward.runs, f"{forward.parallelism} tasks, one per producer"
        if parallelism > 1 and not _alike(forward, hashed, shuffles):
            raise InvalidGraph(f"the FORWARD and HASH inputs of {stage.stage_id!r} are not partitioned alike")
        shares = tuple(HashShare(first, last) for first, last in runs)
    elif hashed:
        weights = _bucket_bytes(stage, hashed, shuffles)
        if controller is not None and not stage.slices:
            worker_count = controller.calculate_optimal_worker_count(
                sum(weights), planned=stage.parallelism, most=len(weights)
            )
            parallelism, reason = worker_count.count, worker_count.reason
        split = split_heavy(hashed, shuffles, weights, parallelism) if controller is not None else None
        if split is None:
            runs = even_runs(len(weights), parallelism) if fixed else balanced_runs(weights, parallelism)
            shares = tuple(HashShare(first, last) for first, last in runs)
        else:
            shares, reason = split.tasks, split.reason
        parallelism = len(shares)
    reads = {
        edge.edge_id: tuple(
            _read(stage, edge, shuffles[edge.edge_id], task, parallelism, shares) for task in range(parallelism)
        )
        for edge in stage.inputs
    }
    split_edges = tuple(dict.fromkeys(share.split for share in shares if share.split is not None))
    return Reads(parallelism, reads, reason, runs, split_edges)


def read_whole(stage: Stage, shuffles: EdgeBook, reason: str) -> Reads:
    """One task that reads all of every input."""
    by_edge = {}
    for edge in stage.inputs:
        shuffle = shuffles.edge(edge.edge_id)
        by_edge[edge.edge_id] = (Read(tuple(range(shuffle.producers)), 0, shuffle.partitions),)
    return Reads(1, by_edge, reason)


def _agree(producers: Sequence[Reads]) -> bool:
    """Whether task i of each of these stages holds the same keys, as far as they are partitioned by keys."""
    runs = {reads.runs for reads in producers if reads.runs}
    return len(runs) <= 1 and len({reads.parallelism for reads in producers}) <= 1


def _alike(forward: Reads, hashed: list[ShuffleEdge], shuffles: Mapping[str, EdgeShuffle]) -> bool:
    """Whether the hashed inputs have the buckets that the producer of the FORWARD input was shared out by."""
    return all(forward.runs and forward.runs[-1][1] == shuffles[edge.edge_id].partitions for edge in hashed)


def _bucket_bytes(stage: Stage, hashed: list[ShuffleEdge], shuffles: Mapping[str, EdgeShuffle]) -> list[int]:
    counts = {shuffles[edge.edge_id].partitions for edge in hashed}
    if len(counts) != 1:
        # Equal keys would meet in different tasks: rows would be lost without a word.
        raise InvalidGraph(f"the HASH inputs of {stage.stage_id!r} have {sorted(counts)} partitions; they must agree")
    per_edge = [shuffles[edge.edge_id].partition_bytes() for edge in hashed]
    return [sum(values) for values in zip(*per_edge, strict=True)]


def _read(
    stage: Stage, edge: ShuffleEdge, shuffle: EdgeShuffle, task: int, parallelism: int, shares: tuple[HashShare, ...]
) -> Read:
    every = tuple(range(shuffle.producers))
    match edge.edge_type:
        case ShuffleEdgeType.FORWARD if shuffle.producers == parallelism:
            return Read((task,), 0, shuffle.partitions)
        case ShuffleEdgeType.FORWARD if parallelism != 1 and stage.keyed:
            raise InvalidGraph(
                f"FORWARD edge {edge.edge_id!r} joins {shuffle.producers} tasks to {parallelism}; it needs equal ones"
            )
        case ShuffleEdgeType.FORWARD:
            first, last = even_runs(shuffle.producers, parallelism)[task]
            return Read(every[first:last], 0, shuffle.partitions) if first < last else Read(every[:1], 0, 0)
        case ShuffleEdgeType.BROADCAST:
            return Read(every, 0, shuffle.partitions)
        case _ if parallelism == 1:
            return Read(every, 0, shuffle.partitions)
        case ShuffleEdgeType.HASH if shares:
            share = shares[task]
            return Read(share.producers if share.split == edge.edge_id else every, share.first, share.last)
        case ShuffleEdgeType.RANGE:
            return Read(every, task, task + 1) if task < shuffle.partitions else Read(every, 0, 0)
        case _:
            return Read(every, *even_runs(shuffle.partitions, parallelism)[task])


def edge_input(edge: ShuffleEdge, shuffle: EdgeShuffle, read: Read) -> EdgeInput:
    """``read`` with the manifests of its producers; producers without a row in it are left out, all but one."""
    producers = [p for p in read.producers if any(shuffle.outputs[p].partition_rows[read.first : read.last])]
    producers = producers or list(read.producers[:1])
    manifests = tuple(shuffle.outputs[producer].manifest for producer in producers)
    return EdgeInput(edge.edge_id, edge.input_name, shuffle.columns, tuple(producers), manifests, read.first, read.last)


def stored_columns(output: EdgeOutput, report: TaskReport) -> tuple[Column, ...]:
    """The columns that consumers see of an output: without the one that placed the rows."""
    by_name = {column.name: column for column in report.columns}
    names = output.columns or tuple(column.name for column in report.columns)
    return tuple(by_name[name] for name in names if name != output.scheme.column)
