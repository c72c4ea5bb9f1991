"""Which shuffle edge each connection of a job graph is, found by rule, with the reason in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sabot_planner.job.execution_graph import ExecutionGraph, Task
from sabot_planner.job.operators import OperatorType, ShuffleEdge, ShuffleEdgeType
from sabot_sql.errors import JobError
from sabot_sql.jobs.key_survival import join_kind_keeps, keeps_keys
from sabot_sql.jobs.source_sizes import size_bytes

if TYPE_CHECKING:
    from sabot_sql.jobs.job_graph import Connection, JobGraph
    from sabot_sql.jobs.operators import StreamOperatorNode

SMALL_BYTES = 16 << 20
"""A side of a join whose measured size is at most this is copied to every task."""

Partitioned = tuple[tuple[str, ...], int]
"""The keys that rows are partitioned by, and into how many parts."""


def execution_graph(job: JobGraph, sizes: Mapping[str, int] | None = None) -> ExecutionGraph:
    """The tasks and edges of a valid job; ``sizes`` are bytes of sources that were measured, by operator."""
    edges = shuffle_edges(job, {**_sizes_of_sides(job), **(sizes or {})})
    chained = {edge.source: edge.target for edge in edges if is_chained(job, edge)}
    tasks = []
    for operator_id in job.topological_sort():
        last = operator_id
        while last in chained:
            last = chained[last]
        count = job.operator(operator_id).parallelism
        tasks += [Task(operator_id, index, count, runs_in=f"{last}_{index}") for index in range(count)]
    return ExecutionGraph(edges, tuple(tasks))


def is_chained(job: JobGraph, edge: ShuffleEdge) -> bool:
    """Whether one task computes both ends of the edge: nothing moves, and nothing else reads its source."""
    if edge.edge_type is not ShuffleEdgeType.FORWARD or len(job.outputs_of(edge.source)) > 1:
        return False
    return job.operator(edge.source).function is None and job.operator(edge.target).function is None


def shuffle_edges(job: JobGraph, sizes: Mapping[str, int]) -> tuple[ShuffleEdge, ...]:
    """An edge for each connection, in their order: ``edge_1``, ``edge_2`` and so on."""
    found: dict[int, ShuffleEdge] = {}
    offers: dict[str, Partitioned | None] = {}
    for operator_id in job.topological_sort():
        node = job.operator(operator_id)
        edges = _edges_into(job, node, job.inputs_of(operator_id), offers, sizes)
        numbers = (number for number, c in enumerate(job.connections, 1) if c.target == operator_id)
        for number, edge in zip(numbers, edges, strict=True):
            found[number] = replace(edge, edge_id=f"edge_{number}")
        offers[operator_id] = _offered(node, edges, offers)
    return tuple(found[number] for number in sorted(found))


def _edges_into(
    job: JobGraph,
    node: StreamOperatorNode,
    inputs: tuple[Connection, ...],
    offers: Mapping[str, Partitioned | None],
    sizes: Mapping[str, int],
) -> list[ShuffleEdge]:
    copied = _copied(node, inputs, sizes)
    edges = []
    keys: tuple[str, ...]
    for place, connection in enumerate(inputs):
        producer = job.operator(connection.source)
        if place in copied:
            edge_type, reason, keys = ShuffleEdgeType.BROADCAST, copied[place], ()
        elif copied and node.base_type is OperatorType.JOIN:
            edge_type, reason = _unkeyed(producer, node)
            reason, keys = f"the other side is copied; {reason}", ()
        else:
            edge_type, reason, keys = _by_rule(producer, node, inputs, offers)
        edges.append(
            ShuffleEdge(
                "edge",
                connection.source,
                connection.target,
                edge_type,
                keys=keys,
                partitions=_partitions(edge_type, node),
                bounds_partitions=node.parallelism if edge_type is ShuffleEdgeType.RANGE else 1,
                reason=reason,
            )
        )
    return edges


def _partitions(edge_type: ShuffleEdgeType, node: StreamOperatorNode) -> int:
    if edge_type is ShuffleEdgeType.HASH:
        return node.key_partitions
    return node.parallelism if edge_type is ShuffleEdgeType.REBALANCE else 1


def _by_rule(
    producer: StreamOperatorNode,
    node: StreamOperatorNode,
    inputs: tuple[Connection, ...],
    offers: Mapping[str, Partitioned | None],
) -> tuple[ShuffleEdgeType, str, tuple[str, ...]]:
    if node.base_type is OperatorType.SORT:
        return ShuffleEdgeType.RANGE, f"sorted by {', '.join(node.sort_order)}: each task one range", node.sort_order
    keyed = bool(node.key_by) or node.operator_type is OperatorType.DISTINCT
    if not keyed:
        edge_type, reason = _unkeyed(producer, node)
        return edge_type, reason, ()
    keys = tuple(node.key_by)
    shown = ", ".join(keys) or "all columns"
    if node.parallelism == 1:
        edge_type, reason = _unkeyed(producer, node)
        return edge_type, f"{reason}; every key is there", keys if edge_type is not ShuffleEdgeType.FORWARD else ()
    if _already(node, inputs, offers):
        reason = f"already partitioned by {shown} into {node.parallelism}"
        return ShuffleEdgeType.FORWARD, reason, ()
    same = f", although both have {node.parallelism} tasks" if producer.parallelism == node.parallelism else ""
    return ShuffleEdgeType.HASH, f"keyed by {shown}: equal keys meet in one task{same}", keys


def _unkeyed(producer: StreamOperatorNode, node: StreamOperatorNode) -> tuple[ShuffleEdgeType, str]:
    if producer.parallelism == node.parallelism:
        return ShuffleEdgeType.FORWARD, f"no keys, and {node.parallelism} tasks at both ends"
    return ShuffleEdgeType.REBALANCE, f"no keys, {producer.parallelism} tasks to {node.parallelism}: dealt evenly"


def _already(
    node: StreamOperatorNode, inputs: tuple[Connection, ...], offers: Mapping[str, Partitioned | None]
) -> bool:
    """Whether every input that moves lies by keys as ``node`` needs it, in as many parts as it has tasks."""
    wanted = tuple(node.key_by)
    for connection in inputs:
        offer = None if connection.broadcast else offers.get(connection.source)
        if connection.broadcast:
            continue
        if offer is None or offer[1] != node.parallelism or node.key_partitions != node.parallelism:
            return False
        # Rows that are equal in all keys are equal in some; two sides of a join must lie by the same ones.
        enough = offer[0] == wanted if len(inputs) > 1 else bool(offer[0]) and set(offer[0]) <= set(wanted)
        if not enough:
            return False
    return bool(wanted)


def _offered(
    node: StreamOperatorNode, edges: list[ShuffleEdge], offers: Mapping[str, Partitioned | None]
) -> Partitioned | None:
    """How the rows that ``node`` gives are partitioned, as far as its keys reach its output unchanged."""
    moved = [edge for edge in edges if edge.edge_type is not ShuffleEdgeType.BROADCAST]
    if not moved:
        return None
    found = {_arrives(edge, node, offers) for edge in moved}
    arrived = found.pop() if len(found) == 1 else None
    if arrived is None or not keeps_keys(node, arrived[0]):
        return None
    return arrived


def _arrives(
    edge: ShuffleEdge, node: StreamOperatorNode, offers: Mapping[str, Partitioned | None]
) -> Partitioned | None:
    if edge.edge_type is ShuffleEdgeType.FORWARD:
        return offers.get(edge.source)
    if edge.edge_type is ShuffleEdgeType.HASH and edge.keys and node.key_partitions == node.parallelism:
        return edge.keys, node.parallelism
    return None


def _copied(node: StreamOperatorNode, inputs: tuple[Connection, ...], sizes: Mapping[str, int]) -> dict[int, str]:
    """Which inputs every task gets whole, by their place, and why.

    Raises:
        JobError: an input that was declared small may not be copied, since unmatched rows of it would come once for
            each task.
    """
    copied = {place: "declared small: every task has all of it" for place, c in enumerate(inputs) if c.broadcast}
    if node.parallelism > 1:
        for place in copied:
            if not join_kind_keeps(node, [c.name for c in inputs], place):
                reason = f"its rows without a match would come once for each of {node.parallelism} tasks"
                raise JobError(
                    f"operator {node.operator_id!r}: input {inputs[place].source!r} may not be copied: {reason}",
                    code="BROADCAST",
                    hint="leave broadcast out, so that both sides are hashed by key_by",
                    operator=node.operator_id,
                )
    measurable = node.base_type is OperatorType.JOIN and not copied and not node.sql and node.parallelism > 1
    if not measurable or node.operator_type is OperatorType.ASOF_JOIN:
        return copied
    small = [
        (sizes[c.source], place)
        for place, c in enumerate(inputs)
        if sizes.get(c.source, SMALL_BYTES + 1) <= SMALL_BYTES and join_kind_keeps(node, ["", ""], place)
    ]
    if not small:
        return {}
    size_bytes, place = min(small)
    return {place: f"measured: {size_bytes} bytes are few, every task has all of it"}


def _sizes_of_sides(job: JobGraph) -> dict[str, int]:
    """Bytes of the sources that a join reads from first hand, as far as they can be told without reading them."""
    joins = [node.operator_id for node in job.operators if node.base_type is OperatorType.JOIN]
    read = {connection.source for join in joins for connection in job.inputs_of(join)}
    sides = (node for node in job.operators if node.operator_id in read and node.operator_type is OperatorType.SOURCE)
    sizes = {node.operator_id: size_bytes(node.source) for node in sides}
    return {operator_id: size for operator_id, size in sizes.items() if size is not None}
