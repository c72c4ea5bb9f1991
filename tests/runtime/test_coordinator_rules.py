"""The arithmetic of exchanges: runs of partitions, bounds of ranges, numbers and places of tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, Placement, ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.chained_stages import Stage
from sabot_sql.coordinator.controller import DBOSParallelController, TaskDemand
from sabot_sql.coordinator.edge_book import EdgeBook, EdgeShuffle
from sabot_sql.coordinator.exchange_rules import Read, Reads, share_inputs
from sabot_sql.coordinator.partitions import balanced_runs, even_runs, range_bounds
from sabot_sql.errors import UsageError
from sabot_sql.protocol.task_spec import OutputReport, WriteKind, WriteScheme

pytestmark = pytest.mark.fast


@given(st.integers(0, 50), st.integers(1, 20))
def test_even_runs_cover_every_partition_once(partitions: int, tasks: int) -> None:
    runs = even_runs(partitions, tasks)
    assert [p for first, last in runs for p in range(first, last)] == list(range(partitions))
    assert max(last - first for first, last in runs) - min(last - first for first, last in runs) <= 1


@pytest.mark.parametrize("partitions", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE, ShuffleEdgeType.REBALANCE])
@pytest.mark.parametrize("controller", [None, DBOSParallelController(0, 0, 0), DBOSParallelController(300, 900, 10)])
def test_every_partition_is_read_by_exactly_one_task_in_order(
    kind: ShuffleEdgeType, tasks: int, partitions: int, controller: DBOSParallelController | None
) -> None:
    edge = ShuffleEdge("e", "a", "b", kind, ("k",), partitions, "h", bounds_partitions=partitions)
    stage = Stage(("b",), tasks, Placement.ANY, (edge,), (), frozenset())
    rows = tuple(range(partitions))
    outputs = {i: OutputReport("e", "x", b"", sum(rows), 0, 0, rows, tuple(100 * n for n in rows)) for i in range(2)}
    shuffle = EdgeShuffle("e", WriteScheme(WriteKind.HASH_COLUMN, partitions, "h"), 2, outputs=outputs)
    reads = share_inputs(stage, {"e": shuffle}, controller, [])
    assert [p for read in reads.by_edge["e"] for p in range(read.first, read.last)] == list(range(partitions))
    assert all(read.producers == (0, 1) for read in reads.by_edge["e"])
    assert len(reads.by_edge["e"]) == reads.parallelism


def test_a_broadcast_is_read_whole_however_it_was_written_and_forward_task_by_task() -> None:
    copied = ShuffleEdge("e", "a", "b", ShuffleEdgeType.BROADCAST, written_as=ShuffleEdgeType.HASH, partitions=8)
    forward = ShuffleEdge("f", "c", "b", ShuffleEdgeType.FORWARD)
    stage = Stage(("b",), 3, Placement.ANY, (copied, forward), (), frozenset(), keyed=True)
    shuffles = {
        "e": EdgeShuffle("e", WriteScheme(WriteKind.HASH_COLUMN, 8, "h"), 2),
        "f": EdgeShuffle("f", WriteScheme(WriteKind.ONE_PARTITION), 3),
    }
    reads = share_inputs(stage, shuffles, None, [Reads(3, {}, "")])
    assert reads.by_edge["e"] == (Read((0, 1), 0, 8),) * 3
    assert reads.by_edge["f"] == (Read((0,), 0, 1), Read((1,), 0, 1), Read((2,), 0, 1))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=24), st.integers(1, 10))
def test_balanced_runs_cover_every_partition_once_and_none_is_empty(weights: list[int], tasks: int) -> None:
    runs = balanced_runs(weights, tasks)
    assert [p for first, last in runs for p in range(first, last)] == list(range(len(weights)))
    assert len(runs) == min(tasks, len(weights))
    assert all(last > first for first, last in runs)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 4))
def test_no_other_cut_has_a_lighter_heaviest_run(weights: list[int], tasks: int) -> None:
    def best(first: int, tasks: int) -> int:
        if tasks == 1 or first == len(weights) - 1:
            return sum(weights[first:])
        cuts = range(first + 1, len(weights) - tasks + 2)
        return min(max(sum(weights[first:cut]), best(cut, tasks - 1)) for cut in cuts)

    runs = balanced_runs(weights, tasks)
    assert max(sum(weights[first:last]) for first, last in runs) == best(0, min(tasks, len(weights)))


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.lists(st.binary(max_size=2), max_size=30)), max_size=4),
    st.integers(1, 6),
)
def test_bounds_rise_and_leave_the_first_range_a_key(samples: list[tuple[int, list[bytes]]], ranges: int) -> None:
    bounds = range_bounds(samples, ranges)
    assert len(bounds) < ranges
    assert list(bounds) == sorted(set(bounds))
    keys = [key for _, part in samples for key in part]
    counted = [sum(sum(bound <= key for bound in bounds) == index for key in keys) for index in range(len(bounds) + 1)]
    assert not bounds or all(counted), "every range has a sampled key"


def test_a_large_task_weighs_more_than_a_small_one() -> None:
    small, large = [b"a", b"b"], [b"x", b"y"]
    assert range_bounds([(1, small), (1000, large)], 2) == (b"y",)


def test_one_key_cannot_be_cut() -> None:
    assert range_bounds([(1000, [b"k"] * 100)], 4) == ()


def test_the_controller_says_why() -> None:
    controller = DBOSParallelController(coalesce_bytes=100, grant_bytes=1000)
    few = controller.calculate_optimal_worker_count(150, planned=4, most=16)
    much = controller.calculate_optimal_worker_count(10_000, planned=4, most=16)
    limit = controller.calculate_optimal_worker_count(10**9, planned=4, most=16)
    planned = controller.calculate_optimal_worker_count(1000, planned=4, most=16)
    assert [c.count for c in (few, much, limit, planned)] == [2, 10, 16, 4]
    assert few.reason == "150 B are worth 2 of 4 tasks"
    assert planned.reason == "4 tasks as planned"


def test_few_rows_and_few_bytes_are_one_range() -> None:
    controller = DBOSParallelController(coalesce_bytes=1000, few_rows=10)
    assert controller.calculate_range_count(9, 10**6, planned=4).count == 1
    assert controller.calculate_range_count(10, 10**6, planned=4).count == 4
    assert controller.calculate_range_count(10**6, 1500, planned=4).count == 2
    assert DBOSParallelController(0, 0, 0).calculate_range_count(1, 1, planned=4).count == 4


def test_a_range_fits_the_memory_grant() -> None:
    controller = DBOSParallelController(coalesce_bytes=1000, grant_bytes=10_000)
    assert controller.calculate_range_count(10**6, 40_000, planned=2).count == 4
    assert controller.calculate_range_count(10**6, 10**9, planned=2).count == 128, "bounds come from a sample"


def test_no_input_is_one_task() -> None:
    assert DBOSParallelController().calculate_optimal_worker_count(0, planned=8, most=32).count == 1


def test_tasks_go_where_their_bytes_are_unless_that_agent_is_loaded() -> None:
    controller = DBOSParallelController()
    tasks = [TaskDemand(0, 100, {"b": 100}), TaskDemand(1, 100, {"b": 100}), TaskDemand(2, 10, {"b": 10})]
    assignment = controller.assign_tasks_to_agents(tasks, ["a", "b"])
    assert assignment.agents == {0: "b", 1: "a", 2: "b"} or assignment.agents == {0: "b", 1: "a", 2: "a"}
    assert "bytes to move" in assignment.reason


def test_tasks_of_unknown_size_are_spread_evenly() -> None:
    assignment = DBOSParallelController().assign_tasks_to_agents([TaskDemand(i) for i in range(6)], ["a", "b", "c"])
    assert sorted(assignment.agents.values()) == ["a", "a", "b", "b", "c", "c"]


def test_pinned_tasks_stay_where_they_must() -> None:
    tasks = [TaskDemand(i, 10, pinned="b") for i in range(3)]
    assert set(DBOSParallelController().assign_tasks_to_agents(tasks, ["a", "b"]).agents.values()) == {"b"}


def test_no_agents_cannot_be_assigned_to() -> None:
    with pytest.raises(UsageError, match="no agents"):
        DBOSParallelController().assign_tasks_to_agents([TaskDemand(0)], [])


def sketch(*hashes: int) -> bytes:
    return b"".join(h.to_bytes(8, "little") for h in hashes)


@pytest.mark.parametrize(
    ("kind", "sketches", "keys"),
    [
        (WriteKind.HASH_COLUMN, (sketch(1, 5), sketch(5, 7)), 3),
        (WriteKind.HASH_COLUMNS, (sketch(1, 5), sketch()), 2),
        (WriteKind.HASH_COLUMN, (sketch(), sketch()), 0),
        (WriteKind.HASH_COLUMN, (sketch(1, 5), None), None),
        (WriteKind.ROUND_ROBIN, (sketch(), sketch()), None),
    ],
    ids=["in both tasks", "natively hashed", "no rows", "a task that was stopped", "not hashed"],
)
def test_distinct_keys_are_those_of_all_tasks(
    kind: WriteKind, sketches: tuple[bytes | None, ...], keys: int | None
) -> None:
    outputs = {task: OutputReport("e1", "x", b"", 3, 30, key_sketch=found) for task, found in enumerate(sketches)}
    shuffle = EdgeShuffle("e1", WriteScheme(kind, 2), len(sketches), outputs=outputs)
    assert shuffle.facts().distinct_keys == keys


def test_the_edge_book_tells_each_agent_once_and_sums_what_was_written() -> None:
    graph = OperatorGraph(
        (
            Operator("a", OperatorType.SOURCE, "SELECT 1", 2),
            Operator("b", OperatorType.SINK, "FROM e1"),
        ),
        (ShuffleEdge("e1", "a", "b", ShuffleEdgeType.REBALANCE),),
    )
    shuffles = EdgeBook("q")
    shuffles.initialize(graph.to_execution_graph())
    assert shuffles.register_shuffles_with_agents(["x", "y"]) == {"x": ("e1",), "y": ("e1",)}
    assert shuffles.register_shuffles_with_agents(["y", "z"]) == {"z": ("e1",)}
    shuffle = shuffles.open("e1", WriteScheme(WriteKind.ROUND_ROBIN, 2), 2)
    assert not shuffle.complete
    first = OutputReport("e1", "x", b"", 3, 30, 5, (2, 1), (20, 10), ((9, 2, 0), (7, 1, 0)))
    second = OutputReport("e1", "y", b"", 4, 40, 0, (1, 3), (10, 30), ((9, 3, 1),))
    shuffle = shuffles.update("e1", outputs={0: first, 1: second})
    assert shuffle.complete
    facts = shuffle.facts()
    assert (facts.rows, facts.bytes, facts.partition_rows, facts.partition_bytes) == (7, 70, (3, 4), (30, 40))
    assert facts.heavy == ((9, 5, 1), (7, 1, 0))
