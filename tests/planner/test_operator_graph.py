"""Job graphs are checked when they are made; execution graphs are their tasks and channels."""

from __future__ import annotations

import pytest

from sabot_planner import (
    Operator,
    OperatorGraph,
    OperatorType,
    ShuffleEdge,
    ShuffleEdgeType,
)
from sabot_planner.errors import InvalidGraph

pytestmark = pytest.mark.fast


def node(operator_id: str, parallelism: int = 1, kind: OperatorType = OperatorType.MAP) -> Operator:
    return Operator(operator_id, kind, "SELECT 1", parallelism)


def edge(source: str, target: str, kind: ShuffleEdgeType, partitions: int = 1) -> ShuffleEdge:
    return ShuffleEdge(f"{source}_{target}", source, target, kind, partitions=partitions)


@pytest.fixture
def fraud() -> OperatorGraph:
    """The fraud-detection pipeline."""
    return OperatorGraph(
        (
            node("source", 10, OperatorType.SOURCE),
            node("enrich", 10),
            node("fraud", 5, OperatorType.GROUP_BY),
            node("alerts", 2, OperatorType.SINK),
        ),
        (
            edge("source", "enrich", ShuffleEdgeType.FORWARD),
            edge("enrich", "fraud", ShuffleEdgeType.HASH, 5),
            edge("fraud", "alerts", ShuffleEdgeType.REBALANCE, 2),
        ),
    )


def test_the_fraud_pipeline_has_27_tasks_and_10_50_10_connections(fraud: OperatorGraph) -> None:
    execution = fraud.to_execution_graph()
    assert len(execution.tasks) == 27
    assert [len(execution.connections(e.edge_id)) for e in fraud.edges] == [10, 50, 10]
    assert execution.connections("source_enrich") == tuple((f"source_{i}", f"enrich_{i}") for i in range(10))
    assert fraud.sink == "alerts"
    assert [t.task_id for t in execution.tasks_of("alerts")] == ["alerts_0", "alerts_1"]


def test_tasks_come_producers_first(fraud: OperatorGraph) -> None:
    operators = [task.operator_id for task in fraud.to_execution_graph().tasks]
    assert operators == sorted(operators, key=["source", "enrich", "fraud", "alerts"].index)


@pytest.mark.parametrize(
    ("operators", "edges", "message"),
    [
        ((node("a"), node("a")), (), "duplicate operator"),
        ((node("a"), node("b")), (edge("a", "b", ShuffleEdgeType.HASH),) * 2, "duplicate edge"),
        ((node("a"),), (edge("a", "z", ShuffleEdgeType.HASH),), "names operator 'z'"),
        (
            (node("a"), node("b"), node("c")),
            (
                edge("a", "b", ShuffleEdgeType.HASH),
                edge("b", "a", ShuffleEdgeType.HASH),
                edge("a", "c", ShuffleEdgeType.HASH),
            ),
            "cycle",
        ),
        ((node("a", 2), node("b", 3)), (edge("a", "b", ShuffleEdgeType.FORWARD),), "parallelism 2 to 3"),
        ((node("a"), node("b")), (), "name the sink"),
    ],
)
def test_a_graph_that_cannot_run_is_refused(
    operators: tuple[Operator, ...], edges: tuple[ShuffleEdge, ...], message: str
) -> None:
    with pytest.raises(InvalidGraph, match=message):
        OperatorGraph(operators, edges)


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "../a", "ä", "x" * 65, "a\n"])
def test_ids_are_harmless_as_file_and_relation_names(bad: str) -> None:
    with pytest.raises(InvalidGraph, match="must match"):
        node(bad)


def test_there_is_no_operator_without_a_task_and_no_edge_without_a_partition() -> None:
    with pytest.raises(InvalidGraph, match="at least 1"):
        node("a", 0)
    with pytest.raises(InvalidGraph, match="at least 1"):
        edge("a", "b", ShuffleEdgeType.HASH, 0)


def test_an_edge_that_became_broadcast_is_still_written_as_it_was() -> None:
    late = ShuffleEdge("e", "a", "b", ShuffleEdgeType.BROADCAST, written_as=ShuffleEdgeType.HASH, partitions=8)
    assert late.write_type is ShuffleEdgeType.HASH
    assert edge("a", "b", ShuffleEdgeType.RANGE).write_type is ShuffleEdgeType.RANGE
    assert late.input_name == "e"
