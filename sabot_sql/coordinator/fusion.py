"""A stage of one task and the stage that reads it run as one task, where little is read: a stage costs milliseconds.

The second stage's statement then holds the first one's, as operators that FORWARD edges chain do; the edge between them
is neither written nor measured.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Placement, ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.chained_stages import Stage
from sabot_sql.coordinator.edge_book import EdgeBook


def fuse_readers(
    graph: OperatorGraph,
    stage: Stage,
    waiting: Sequence[Stage],
    shuffles: EdgeBook,
    done: Set[str],
    few_bytes: int,
) -> tuple[Stage, tuple[ShuffleEdge, ...]]:
    """``stage`` with all that can be fused to it, one after the other, and the edges within; see :func:`fuse`."""
    within: list[ShuffleEdge] = []
    while (larger := fuse(graph, stage, waiting, shuffles, done, few_bytes)) is not None:
        within += stage.outputs
        stage = larger
    return stage, tuple(within)


def fuse(
    graph: OperatorGraph,
    stage: Stage,
    waiting: Sequence[Stage],
    shuffles: EdgeBook,
    done: Set[str],
    few_bytes: int,
) -> Stage | None:
    """``stage``, which is to be one task, with the one of ``waiting`` that reads it; None where they stay apart.

    ``done`` are the finished operators. Together they read fewer than ``few_bytes``.
    """
    if len(stage.outputs) != 1 or stage.slices or any(graph.operator(member).scans for member in stage.operators):
        return None
    (edge,) = stage.outputs
    consumer = next((other for other in waiting if edge in other.inputs), None)
    if consumer is None or not _joinable(graph, edge, stage, consumer):
        return None
    others = tuple(other for other in consumer.inputs if other is not edge)
    if consumer.start_after - set(stage.operators) - done or not shuffles.committed(others):
        return None
    inputs = (*stage.inputs, *others)
    if sum(sum(shuffles.edge(e.edge_id).partition_bytes()) for e in inputs) >= few_bytes:
        return None
    return Stage(
        (*stage.operators, *consumer.operators),
        1,
        stage.placement,
        inputs,
        consumer.outputs,
        frozenset(),
        keyed=stage.keyed or consumer.keyed,
        whole=True,
    )


def _joinable(graph: OperatorGraph, edge: ShuffleEdge, stage: Stage, consumer: Stage) -> bool:
    """Whether the consumer may be one task, and its statement may hold the other one's."""
    if consumer.slices or not stage.placement is consumer.placement is Placement.ANY:
        return False
    if any(kept.edge_type is ShuffleEdgeType.FORWARD for kept in (edge, *consumer.outputs)):
        return False  # who reads these has as many tasks as planned
    if any(other.edge_type is ShuffleEdgeType.RANGE for other in consumer.inputs if other is not edge):
        return False
    # An aggregate's state is a value of its own within a statement, and what it is made of on an edge.
    if any(other.rereads == edge.edge_id for other in graph.edges) or graph.operator(edge.source).exports_states:
        return False
    return edge.reads == 1
