"""The interface below SQL, call by call: the listing that people were shown, on several managers and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections import Counter
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa
import pytest

from sabot_sql import (
    DBOSParallelController,
    JobError,
    JobGraph,
    OperatorType,
    ResourceError,
    SessionClosed,
    ShuffleCoordinator,
    ShuffleEdgeType,
    ShuffleManager,
    StreamOperatorNode,
    UsageError,
    Workload,
)
from sabot_sql.jobs.shuffle_manager import Shuffle, scheme_of

SCHEMA = pa.schema([("user_id", pa.int64()), ("amount", pa.float64())])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def batch(begin: int, rows: int = 1000, users: int = 50) -> pa.RecordBatch:
    ids = [i % users for i in range(begin, begin + rows)]
    return pa.RecordBatch.from_pydict({"user_id": ids, "amount": [float(i) for i in ids]}, schema=SCHEMA)


def test_the_listing_runs_as_written() -> None:
    asyncio.run(_listing(free_port(), free_port()))


async def _listing(first_port: int, second_port: int) -> None:
    job = JobGraph(job_id="fraud_detection")
    source = StreamOperatorNode(operator_type=OperatorType.SOURCE, parallelism=10)
    fraud = StreamOperatorNode(operator_type=OperatorType.GROUP_BY, parallelism=5, stateful=True, key_by=["user_id"])
    job.add_operator(source)
    job.add_operator(fraud)
    job.connect(source.operator_id, fraud.operator_id)
    exec_graph = job.to_execution_graph()

    controller = DBOSParallelController(max_workers=64)
    workload = Workload(rows=10_000_000)
    parallelism = controller.calculate_optimal_worker_count(workload)
    assert 1 <= parallelism <= 64
    assert "tasks" in parallelism.reason
    StreamOperatorNode(operator_type=OperatorType.SOURCE, parallelism=parallelism)
    assignments = controller.assign_tasks_to_agents(exec_graph.tasks)
    assert set(assignments) == {task.task_id for task in exec_graph.tasks}

    coordinator = ShuffleCoordinator(exec_graph)
    places = [f"agent-1:localhost:{first_port}", f"agent-2:localhost:{second_port}"]
    await coordinator.initialize({f"task_{i}": places[i % 2] for i in range(15)})
    manager = ShuffleManager(agent_id=b"agent-1", agent_host=b"localhost", agent_port=first_port)
    await manager.start()
    other = ShuffleManager(agent_id="agent-2", agent_host="localhost", agent_port=second_port)
    await other.start()
    managers = {"agent-1": manager, "agent-2": other}
    await coordinator.register_shuffles_with_agents(managers)
    await coordinator.set_task_locations(managers)
    for each in managers.values():
        shuffle_id = each.register_shuffle(
            operator_id=source.operator_id,
            partition_keys=["user_id"],
            edge_type=ShuffleEdgeType.HASH,
            schema=SCHEMA,
        )
    for partition_id in range(10):
        managers[f"agent-{partition_id % 2 + 1}"].write_partition(shuffle_id, partition_id, batch(partition_id * 1000))
    metrics = coordinator.get_shuffle_metrics()
    assert metrics["total_rows_shuffled"] == 10_000
    assert metrics["total_batches_shuffled"] == 10 * 5, "each batch has rows for every reader"
    assert metrics["total_bytes_shuffled"] > 0
    assert sum(metrics["edges"]["edge_1"]["partition_rows"]) == 10_000
    edge = metrics["edges"]["edge_1"]
    assert {task: figures["rows"] for task, figures in edge["tasks"].items()} == {str(i): 1000 for i in range(10)}
    assert (sum(edge["partition_bytes"]), sum(edge["partition_batches"])) == (edge["bytes"], edge["batches"])
    assert set(metrics["agents"]) == {"agent-1", "agent-2"}

    # The readers, wherever they are, have each user once, and all rows.
    seen: dict[int, int] = {}
    counted: Counter[int] = Counter()
    for partition_id in range(5):
        for each in managers.values():
            rows = each.read_partition(shuffle_id, partition_id).read_all()
            users = Counter(rows["user_id"].to_pylist())
            assert all(seen.setdefault(user, partition_id) == partition_id for user in users)
        counted += users
    assert counted == Counter(dict.fromkeys(range(50), 200))
    for each in managers.values():
        await each.stop()


def test_the_controller_keeps_chained_tasks_together_and_spreads_every_operator() -> None:
    job = JobGraph("fraud")
    for name, kind, parallelism, keys in (
        ("source", OperatorType.SOURCE, 10, []),
        ("enrich", OperatorType.MAP, 10, []),
        ("fraud", OperatorType.GROUP_BY, 5, ["user_id"]),
        ("alerts", OperatorType.SINK, 2, []),
    ):
        job.add_operator(StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, key_by=keys))
    for edge in ("source>enrich", "enrich>fraud", "fraud>alerts"):
        job.connect(*edge.split(">"))
    tasks = job.to_execution_graph().tasks
    controller = DBOSParallelController(max_workers=64)
    placed = controller.assign_tasks_to_agents(tasks, [f"agent-{i}" for i in range(1, 6)])
    assert all(placed[f"source_{i}"] == placed[f"enrich_{i}"] for i in range(10))
    for name, most in (("source", 2), ("fraud", 1), ("alerts", 1)):
        assert max(Counter(agent for task, agent in placed.items() if task.startswith(name)).values()) == most
    assert "27 tasks on 5 of 5 agents" in placed.reason
    assert "10 are chained" in placed.reason
    assert len(set(DBOSParallelController(max_workers=3).assign_tasks_to_agents(tasks).values())) == 3
    with pytest.raises(UsageError, match="no agents"):
        controller.assign_tasks_to_agents(tasks, [])
    with pytest.raises(UsageError):
        DBOSParallelController(max_workers=0)


def test_a_workload_gets_as_many_tasks_as_it_is_worth() -> None:
    controller = DBOSParallelController(max_workers=16)
    assert controller.calculate_optimal_worker_count(1000) == 1
    assert controller.calculate_optimal_worker_count(10 << 30) == 16
    assert 1 < controller.calculate_optimal_worker_count(Workload(input_bytes=20 << 20)) < 16
    assert controller.calculate_optimal_worker_count(Workload(input_bytes=20 << 20, tasks=2)) == 2


@pytest.mark.parametrize("edge_type", list(ShuffleEdgeType))
def test_every_edge_type_has_a_native_scheme(edge_type: ShuffleEdgeType) -> None:
    """The mapping to the native side is total: a new member fails here and in mypy."""
    shuffle = Shuffle("s", "o", ("k",), edge_type, 3, None, bounds=(b"a", b"b"))
    partitions = scheme_of(shuffle).partitions
    assert partitions == (3 if edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE) else 1)


def expected_reads(edge_type: ShuffleEdgeType) -> list[list[int]]:
    """Values that readers 0 to 2 get of the batches [0, 1], [2, 3], … [10, 11] of tasks 0 to 5."""
    rows = [[2 * i, 2 * i + 1] for i in range(6)]
    match edge_type:
        case ShuffleEdgeType.FORWARD:
            return rows[:3]
        case ShuffleEdgeType.BROADCAST:
            return [list(range(12))] * 3
        case ShuffleEdgeType.RANGE:
            return [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        case ShuffleEdgeType.REBALANCE:
            return [rows[i] + rows[i + 3] for i in range(3)]
        case _:
            return []


@pytest.mark.parametrize("edge_type", list(ShuffleEdgeType))
def test_rows_of_every_edge_type_arrive_where_they_belong(edge_type: ShuffleEdgeType) -> None:
    async def run() -> list[list[int]]:
        async with ShuffleManager("a") as manager:
            keys = {ShuffleEdgeType.HASH: ["v"], ShuffleEdgeType.RANGE: ["k"]}.get(edge_type, [])
            bounds = [(4).to_bytes(1, "big"), (8).to_bytes(1, "big")] if edge_type is ShuffleEdgeType.RANGE else []
            shuffle = manager.register_shuffle("o", keys, edge_type, num_partitions=3, bounds=bounds)
            for task in range(3 if edge_type is ShuffleEdgeType.FORWARD else 6):
                values = [2 * task, 2 * task + 1]
                rows = {"v": values, "k": [value.to_bytes(1, "big") for value in values]}
                assert manager.write_partition(shuffle, task, pa.RecordBatch.from_pydict(rows)) == 2
            if edge_type is ShuffleEdgeType.FORWARD:
                with pytest.raises(JobError, match="nobody reads what task 3 writes"):
                    manager.write_partition(shuffle, 3, pa.RecordBatch.from_pydict(rows))
            return [sorted(manager.read_partition(shuffle, i).read_all()["v"].to_pylist()) for i in range(3)]

    reads = asyncio.run(run())
    if edge_type is ShuffleEdgeType.HASH:
        assert sorted(value for read in reads for value in read) == list(range(12))
    else:
        assert reads == expected_reads(edge_type)


def _writer(channel: Connection) -> None:
    async def run() -> None:
        async with ShuffleManager(b"far", token="s" * 32) as manager:
            shuffle = manager.register_shuffle("o", ["user_id"], ShuffleEdgeType.HASH, SCHEMA, num_partitions=3)
            for task in range(4):
                manager.write_partition(shuffle, task, batch(task * 1000))
            place = f"{manager.agent_id}:{manager.agent_host}:{manager.agent_port}"
            channel.send((place, [manager.ticket(shuffle, partition) for partition in range(3)]))
            channel.recv()

    asyncio.run(run())


def test_another_process_fetches_what_was_written_here() -> None:
    near, far = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_writer, args=(far,))
    child.start()
    try:
        assert near.poll(60)
        place, tickets = near.recv()

        async def fetch(token: str) -> Counter[int]:
            async with ShuffleManager("near", token=token) as manager:
                parts = [manager.fetch(place, ticket).read_all()["user_id"].to_pylist() for ticket in tickets]
            assert all(not set(a) & set(b) for a in parts for b in parts if a is not b)
            return Counter(user for part in parts for user in part)

        assert asyncio.run(fetch("s" * 32)) == Counter(dict.fromkeys(range(50), 80))
        with pytest.raises(Exception, match="has no token of this session"):
            asyncio.run(fetch("x" * 32))
    finally:
        near.send("end")
        child.join(30)
    assert child.exitcode == 0


def test_what_does_not_fit_is_refused() -> None:
    async def run() -> None:
        graph = JobGraph("g")
        graph.add_operator(StreamOperatorNode(operator_type=OperatorType.SOURCE, operator_id="s", parallelism=2))
        graph.add_operator(
            StreamOperatorNode(operator_type=OperatorType.GROUP_BY, operator_id="g", parallelism=2, key_by=["user_id"])
        )
        graph.connect("s", "g")
        coordinator = ShuffleCoordinator(graph.to_execution_graph())
        for locations, words in (
            ({"task_9": "a:h:1"}, "no task 'task_9'"),
            ({"s_0": "a:h"}, "not of the form agent:host:port"),
            ({"s_0": "a:h:1", "s_1": "a:h:2"}, "is at"),
        ):
            with pytest.raises(JobError, match=words):
                await coordinator.initialize(locations)
        await coordinator.initialize({"s_0": "a:localhost:1", "g_0": "b:localhost:2"})
        with pytest.raises(JobError, match="no manager and no location is given for a, b"):
            await coordinator.register_shuffles_with_agents({})
        manager = ShuffleManager("a")
        with pytest.raises(SessionClosed, match="not started"):
            manager.register_shuffle("o", ["k"])
        async with manager:
            for call, words in (
                (lambda: manager.register_shuffle("o"), "HASH needs partition_keys"),
                (lambda: manager.register_shuffle("o", ["k"], schema=SCHEMA), "key 'k' is none of user_id, amount"),
                (lambda: manager.register_shuffle("o", ["k"], ShuffleEdgeType.RANGE, num_partitions=3), "2 bounds"),
                (lambda: manager.write_partition("none", 0, batch(0)), "has no shuffle 'none'"),
            ):
                with pytest.raises(JobError, match=words):
                    call()
            shuffle = manager.register_shuffle("o", ["user_id"], schema=SCHEMA)
            with pytest.raises(JobError, match="is HASH by user_id, not HASH by amount"):
                manager.register_shuffle("o", ["amount"])
            other: Any = pa.RecordBatch.from_pydict({"user_id": ["x"]})
            with pytest.raises(JobError, match="gave columns") as caught:
                manager.write_partition(shuffle, 0, other)
            assert caught.value.code == "SCHEMA_CHANGED"
            with pytest.raises(JobError, match="partitions 0 to 0, not 1"):
                manager.read_partition(shuffle, 1)
            with pytest.raises(ResourceError, match="cannot listen"):
                await ShuffleManager("b", agent_port=manager.agent_port).start()

    asyncio.run(run())


def test_a_location_that_is_not_the_one_of_the_tasks_is_refused() -> None:
    job = JobGraph("g")
    job.add_operator(StreamOperatorNode(operator_type=OperatorType.SOURCE, operator_id="source", parallelism=1))
    coordinator = ShuffleCoordinator(job.to_execution_graph())

    async def tell(place: str) -> None:
        await coordinator.initialize({"task_0": "agent-1:127.0.0.1:9000"})
        await coordinator.register_shuffles_with_agents({"agent-1": place})

    asyncio.run(tell("agent-1:127.0.0.1:9000"))
    with pytest.raises(JobError, match="is at agent-1:127.0.0.1:9001 now; its tasks were said to be at agent-1:127"):
        asyncio.run(tell("agent-1:127.0.0.1:9001"))
