"""Agents beside the workers of real Dask clusters: with TLS and without, workers that leave, come, and are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql.errors import AgentError, ConfigError
from tests.support.processes import agent_services, runs, wait_until

distributed = pytest.importorskip("distributed")

# Dask's own, of its event loops and sockets when a cluster ends.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

GROUPS = "SELECT i % 101 AS k, count(*), sum(i) FROM range(400000) t(i) GROUP BY k ORDER BY k"
EXPECTED = [(k, len(range(k, 400_000, 101)), sum(range(k, 400_000, 101))) for k in range(101)]
NO_TLS = "has no TLS: whoever can reach it can run any code"


def security() -> Any:
    return distributed.Security.temporary()


@contextlib.contextmanager
def cluster(workers: int, **options: Any) -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit="1GiB",
        dashboard_address=":0",
        silence_logs=50,
        **options,
    ) as made:
        made.wait_for_workers(workers)
        yield made


@pytest.fixture(scope="module")
def secure() -> Iterator[Any]:
    with cluster(2, security=security()) as made, made.get_client() as client:
        yield client


def test_a_query_runs_on_agents_beside_the_workers(secure: Any) -> None:
    frame = pa.table({"a": range(100_000), "b": [i % 11 for i in range(100_000)]})
    with sabot_sql.connect(secure, agent_memory="256MiB", threads=1) as session:
        assert session.query(GROUPS).plan.reason.startswith("one agent: it reads about 3.2 MB")
        result = session.query(GROUPS, agents=2)
        assert result.fetchall() == EXPECTED
        assert result.stats["mode"] == "distributed"
        assert session.query("SELECT b, sum(a) FROM frame GROUP BY b ORDER BY b").fetchall() == [
            (b, sum(range(b, 100_000, 11))) for b in range(11)
        ]
        running = agent_services()
        assert len(running) == 2
        workers = secure.run(os.getpid).values()
        assert sorted(process.ppid() for process in running) == sorted(workers)
        for process in running:
            command = process.cmdline()
            assert command[command.index("--memory") + 1] == f"{256 << 20}B"
            assert not any("PRIVATE" in part or len(part) == 64 for part in command)
    assert frame.num_rows == 100_000
    wait_until(lambda: not agent_services())
    assert not [name for names in secure.run(plugins).values() for name in names if "sabot" in name]


def plugins(dask_worker: Any) -> list[str]:
    return list(dask_worker.plugins)


def test_workers_that_leave_are_drained_and_later_ones_serve_the_next_query() -> None:
    with cluster(2, security=security()) as made, made.get_client() as client:
        with sabot_sql.connect(client, agent_memory="256MiB") as session:
            assert session.query(GROUPS).fetchall() == EXPECTED
            before = {process.pid for process in agent_services()}
            assert len(before) == 2
            made.scale(1)
            wait_until(lambda: len(agent_services()) == 1)
            assert session.query(GROUPS).fetchall() == EXPECTED
            made.scale(2)
            client.wait_for_workers(2)
            # An agent that joins is none of a query that has begun: each begins another try.
            wait_until(lambda: session.query(GROUPS).fetchall() == EXPECTED and len(agent_services()) == 2)
            assert len({process.pid for process in agent_services()} & before) == 1
        wait_until(lambda: not agent_services())


def test_an_agent_ends_with_its_worker_however_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabot_sql.cluster.dask_provider.LAUNCH_SECONDS", 10.0)
    with (
        cluster(1, security=security()) as made,
        made.get_client() as client,
        sabot_sql.connect(client, agents=2, agent_memory="256MiB") as session,
    ):
        with pytest.warns(RuntimeWarning, match="skipped: 1 of 2 agents: Dask has 1 workers"):
            assert session.query(GROUPS).fetchall() == EXPECTED
        (agent,) = agent_services()
        os.kill(agent.ppid(), signal.SIGKILL)
        wait_until(lambda: not runs(agent))
        client.wait_for_workers(1)
        wait_until(lambda: answers(session))
        assert agent not in agent_services()


def answers(session: sabot_sql.Session) -> bool:
    """Whether a query is answered; it may have met a worker that is only coming back."""
    try:
        return session.query(GROUPS).fetchall() == EXPECTED
    except AgentError:
        return False


def test_a_cluster_by_its_address(secure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for option, name in (("tls_ca", "tls_ca_file"), ("tls_cert", "tls_client_cert"), ("tls_key", "tls_client_key")):
        files[option] = tmp_path / option
        files[option].write_text(getattr(secure.security, name))
    address = secure.scheduler.address.replace("tls://", "dask://")
    with sabot_sql.connect(address, agents=2, agent_memory="256MiB", **files) as session:
        assert session.query(GROUPS).fetchall() == EXPECTED
        assert len(agent_services()) == 2
    wait_until(lambda: not agent_services())
    monkeypatch.setattr("sabot_sql.cluster.dask_provider._CONNECT_SECONDS", 5.0)
    with sabot_sql.connect(address, agents=2) as session, pytest.raises(AgentError, match="cannot be reached"):
        session.query(GROUPS)


SESSION_THAT_IS_KILLED = f"""
import os, sys, warnings, sabot_sql
from sabot_sql.cluster import agent_order
agent_order.IDLE_SECONDS = 10.0
session = sabot_sql.connect(sys.argv[1], agents=2, agent_memory="256MiB", lease_seconds=2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    rows = session.query({GROUPS!r}).fetchall()
assert any({NO_TLS!r} in str(warning.message) for warning in caught), caught
print(len(rows), flush=True)
os._exit(0)
"""


def test_a_cluster_without_tls_is_warned_of_and_agents_do_not_stay_without_their_session() -> None:
    with cluster(2) as made:
        command = [sys.executable, "-c", SESSION_THAT_IS_KILLED, made.scheduler_address.replace("tcp://", "dask://")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert ended.stdout == "101\n", ended.stderr
        assert len(agent_services()) == 2
        wait_until(lambda: not agent_services(), 60)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dask://h:1", {}, "agents=N"),
        ("dask://h:1/x", {"agents": 2}, "is no address"),
        ("dask://h", {"agents": 2, "token_file": "token"}, "get one of the session"),
        ("dask://h", {"agents": 2, "agent_memory": "1MiB"}, "the least for an agent is 32MiB"),
        ("grpc://h", {"agents": 2, "agent_memory": "1GiB"}, "only for agents that Dask or Ray starts"),
        (":memory:", {"agent_memory": "1GiB"}, "only for agents of a cluster"),
    ],
)
def test_what_cannot_be_asked_of_dask(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sabot_sql.connect(name, **options)
