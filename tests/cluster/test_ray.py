"""Agents on the nodes of real Ray clusters, with Ray's tokens: nodes that leave and come, actors and agents killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql.errors import AgentError, ConfigError
from tests.support.processes import agent_services, runs, wait_until

# Ray reads them when it is loaded.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "token-of-a-ray-cluster-of-a-test-0123456789"}
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings(
    # Ray's own: of its files and processes when a cluster ends, and of what will be in later versions.
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
)

GROUPS = "SELECT i % 101 AS k, count(*), sum(i) FROM range(400000) t(i) GROUP BY k ORDER BY k"
EXPECTED = [(k, len(range(k, 400_000, 101)), sum(range(k, 400_000, 101))) for k in range(101)]
NODE = {"num_cpus": 1, "memory": 1 << 30, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        made.add_node(**NODE)
        ray.init(address=made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_a_query_runs_on_agents_one_a_node(cluster: Any) -> None:
    frame = pa.table({"a": range(100_000), "b": [i % 11 for i in range(100_000)]})
    with sabot_sql.connect("ray", agent_memory="256MiB") as session:
        result = session.query(GROUPS, agents=2)
        assert result.fetchall() == EXPECTED
        assert result.stats["mode"] == "distributed"
        assert session.query("SELECT b, sum(a) FROM frame GROUP BY b ORDER BY b").fetchall() == [
            (b, sum(range(b, 100_000, 11))) for b in range(11)
        ]
        running = agent_services()
        assert len(running) == 2
        assert len({process.ppid() for process in running}) == 2
        # Each has the CPU of its node, as Ray knows.
        wait_until(lambda: ray.available_resources().get("CPU", 0) == 0)
    assert frame.num_rows == 100_000
    wait_until(lambda: not agent_services())
    assert ray.is_initialized()


def test_what_does_not_come_is_skipped_and_named_and_nodes_that_come_and_go(cluster: Any) -> None:
    with sabot_sql.connect("ray", agents=3, agent_memory="256MiB") as session:
        with pytest.warns(RuntimeWarning, match="skipped: 1 of 3 agents: Ray has 2 nodes"):
            assert session.query(GROUPS).fetchall() == EXPECTED
        node = cluster.add_node(**NODE)
        wait_until(lambda: session.query(GROUPS).fetchall() == EXPECTED and len(agent_services()) == 3, 60)
        cluster.remove_node(node)
        wait_until(lambda: len(agent_services()) == 2)
        assert session.query(GROUPS).fetchall() == EXPECTED
    wait_until(lambda: not agent_services())


def test_an_agent_ends_with_its_actor_and_is_started_anew(cluster: Any) -> None:
    with sabot_sql.connect("ray", agents=2, agent_memory="256MiB") as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        killed = agent_services()[0]
        os.kill(killed.ppid(), signal.SIGKILL)
        wait_until(lambda: not runs(killed))
        wait_until(lambda: session.query(GROUPS).fetchall() == EXPECTED and len(agent_services()) == 2, 60)
    wait_until(lambda: not agent_services())


class Busy:
    def begun(self) -> bool:
        return True


def test_a_node_without_a_free_cpu_is_skipped_at_the_deadline(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabot_sql.cluster.ray_provider.LAUNCH_SECONDS", 10.0)
    busy = ray.remote(Busy).options(num_cpus=1).remote()
    assert ray.get(busy.begun.remote(), timeout=60)
    with (
        sabot_sql.connect("ray", agents=2, agent_memory="256MiB") as session,
        pytest.warns(RuntimeWarning, match="nothing within 10 s; are 1 CPUs of it free"),
    ):
        assert session.query(GROUPS).fetchall() == EXPECTED
    ray.kill(busy)
    wait_until(lambda: not agent_services())


def test_no_agent_at_all_is_an_error(cluster: Any) -> None:
    with (
        sabot_sql.connect("ray", agents=2, threads=64) as session,
        pytest.raises(AgentError, match="no agent came up on the Ray cluster: .*is infeasible"),
    ):
        session.query(GROUPS)
    with (
        sabot_sql.connect("ray://127.0.0.1:1", agents=2) as session,
        pytest.raises(AgentError, match="connected to a Ray cluster already"),
    ):
        session.query(GROUPS)


def test_a_cluster_without_tokens_is_warned_of(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabot_sql.cluster.ray_provider._asks_for_a_secret", lambda: False)
    with sabot_sql.connect("ray", agent_memory="256MiB") as session, pytest.warns(RuntimeWarning, match="no token"):
        assert session.query(GROUPS).fetchall() == EXPECTED


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ray://h:1", {}, "agents=N"),
        ("ray://h:1/x", {"agents": 2}, "is no address"),
        ("ray", {"agents": 2, "token_file": "token"}, "get one of the session"),
        ("ray", {"agents": 2, "tls_ca": "ca.pem"}, "tls_ca: not for agents that Ray starts"),
    ],
)
def test_what_cannot_be_asked_of_ray(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sabot_sql.connect(name, **options)
