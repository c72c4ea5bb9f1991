"""Shuffle managers on hosts of their own, over TLS with a token: each host runs the listing for its own tasks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sabot_sql import ShuffleManager
from tests.support import hosts
from tests.support.certificates import Authority

pytestmark = pytest.mark.skipif(hosts.why_not() is not None, reason=f"no hosts: {hosts.why_not()}")

TOKEN = "t" * 32
PORT = 9000
ROWS = 1000
PROGRAM = """
import asyncio, json, sys
from pathlib import Path

import pyarrow as pa
from sabot_sql import (
    DBOSParallelController, JobGraph, OperatorType, ShuffleCoordinator, ShuffleEdgeType, ShuffleManager,
    StreamOperatorNode,
)

own, token, folder, port, rows = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
addresses = json.loads(sys.argv[6])


async def run():
    job = JobGraph(job_id="fraud_detection")
    source = StreamOperatorNode(operator_type=OperatorType.SOURCE, operator_id="source", parallelism=10)
    fraud = StreamOperatorNode(
        operator_type=OperatorType.GROUP_BY, operator_id="fraud", parallelism=5, stateful=True, key_by=["user_id"]
    )
    job.add_operator(source)
    job.add_operator(fraud)
    job.connect(source.operator_id, fraud.operator_id)
    exec_graph = job.to_execution_graph()
    placed = DBOSParallelController(max_workers=64).assign_tasks_to_agents(exec_graph.tasks, sorted(addresses))
    coordinator = ShuffleCoordinator(exec_graph)
    await coordinator.initialize({task: f"{agent}:{addresses[agent]}:{port}" for task, agent in placed.items()})
    tls = {"tls_certificate": (folder / f"{own}.pem").read_bytes(), "tls_key": (folder / f"{own}.key").read_bytes()}
    tls["tls_ca"] = (folder / "ca.pem").read_bytes()
    async with ShuffleManager(own, addresses[own], port, token=token, **tls) as manager:
        managers = {agent: f"{agent}:{address}:{port}" for agent, address in addresses.items()} | {own: manager}
        await coordinator.register_shuffles_with_agents(managers)
        await coordinator.set_task_locations(managers)
        (edge,) = exec_graph.edges
        schema = pa.schema([("user_id", pa.int64()), ("amount", pa.float64())])
        shuffle = manager.register_shuffle(
            operator_id=source.operator_id, partition_keys=["user_id"], edge_type=ShuffleEdgeType.HASH, schema=schema
        )
        mine = [task for task in exec_graph.tasks_of("source") if placed[task.task_id] == own]
        for task in mine:
            ids = [(task.index * rows + i) % 97 for i in range(rows)]
            manager.write_partition(
                shuffle, task.index, pa.RecordBatch.from_pydict({"user_id": ids, "amount": [1.0] * rows}, schema=schema)
            )
        tickets = [manager.ticket(shuffle, partition).hex() for partition in range(5)]
        metrics = coordinator.get_shuffle_metrics()
        print(json.dumps({"tickets": tickets, "tasks": len(mine), "rows": metrics["total_rows_shuffled"]}), flush=True)
        try:
            manager.read_partition(shuffle, 0)
        except Exception as error:
            print(json.dumps(str(error)), flush=True)
        sys.stdin.read()


asyncio.run(run())
"""


@pytest.fixture
def network() -> Iterator[hosts.Network]:
    with hosts.hosts(2, mbit=1000) as made:
        yield made


def test_each_host_runs_the_listing_for_its_own_tasks(network: hosts.Network, tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "tls")
    (tmp_path / "ca.pem").write_bytes(authority.root)
    addresses = {f"agent-{number}": network.address(name) for number, name in enumerate(network.names, 1)}
    children = []
    for (agent, address), name in zip(addresses.items(), network.names, strict=True):
        certificate, key = authority.issue(agent, f"IP:{address}")
        (tmp_path / f"{agent}.pem").write_bytes(certificate)
        (tmp_path / f"{agent}.key").write_bytes(key)
        arguments = [agent, TOKEN, str(tmp_path), str(PORT), str(ROWS), json.dumps(addresses)]
        command = [*network.inside(name), sys.executable, "-c", PROGRAM, *arguments]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        told = []
        for child in children:
            assert child.stdout is not None
            told.append(json.loads(child.stdout.readline()))
            assert "in another process: read them by fetch()" in json.loads(child.stdout.readline())
        assert [one["tasks"] for one in told] == [5, 5]
        assert [one["rows"] for one in told] == [5 * ROWS, 5 * ROWS]
        places = [f"{agent}:{address}:{PORT}" for agent, address in addresses.items()]

        async def fetch(token: str, root: bytes) -> list[Counter[int]]:
            async with ShuffleManager("reader", token=token, tls_ca=root) as reader:
                return [
                    Counter(
                        user
                        for place, one in zip(places, told, strict=True)
                        for user in reader.fetch(place, bytes.fromhex(one["tickets"][partition]))
                        .read_all()[0]
                        .to_pylist()
                    )
                    for partition in range(5)
                ]

        parts = asyncio.run(fetch(TOKEN, authority.root))
        wanted = Counter((task * ROWS + i) % 97 for task in range(10) for i in range(ROWS))
        assert sum(parts, Counter()) == wanted
        assert sum(len(part) for part in parts) == 97, "equal keys of both hosts are in one partition"
        with pytest.raises(Exception, match="has no token of this session"):
            asyncio.run(fetch("x" * 32, authority.root))
        stranger = Authority.make(tmp_path / "stranger")
        with pytest.raises(Exception, match="certificate|handshake|connect"):
            asyncio.run(fetch(TOKEN, stranger.root))
    finally:
        for child in children:
            if child.stdin is not None:
                child.stdin.close()
        ends = [child.wait(30) for child in children]
        for child in children:
            if child.stdout is not None:
                child.stdout.close()
    assert ends == [0, 0]
