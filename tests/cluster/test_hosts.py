"""Agents on hosts of their own, over TLS with tokens: right answers, and what happens to hosts and links."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql.call import distributed
from sabot_sql.errors import AgentError, SabotSQLError, SourceError
from sabot_sql.result_store import batches
from tests.support import hosts
from tests.support.clusters import PORT, Cluster, make
from tests.support.engine import answer
from tests.support.oracle import Oracle, Verdict
from tests.support.processes import wait_until
from tests.support.services import Service
from tests.support.tpch.data import queries, tpch, views

pytestmark = pytest.mark.skipif(hosts.why_not() is not None, reason=f"no hosts: {hosts.why_not()}")

SCALE = 0.01
QUERIES = queries()
JOIN = """
    WITH l AS (SELECT i, i % 1000 AS k FROM range(4000000) t(i)), r AS (SELECT i AS k, i * 2 AS v FROM range(1000) t(i))
    SELECT v % 10 AS g, count(*), sum(l.i), count(DISTINCT l.i % 5000) FROM l JOIN r USING (k) GROUP BY g ORDER BY g
"""


@pytest.fixture(scope="module")
def data() -> Path:
    return tpch(SCALE)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Cluster]:
    """A cluster that nothing happens to, at 1 Gbit/s, and 1 ms where the kernel can."""
    delay_ms = 0.5 if hosts.has_netem() else 0
    with hosts.hosts(3, mbit=1000, delay_ms=delay_ms) as network:
        cluster = make(tmp_path_factory.mktemp("steady"), network, data)
        yield cluster
        for service in cluster.services:
            service.stop()


@pytest.fixture
def cluster(tmp_path: Path, data: Path) -> Iterator[Cluster]:
    """A cluster for one test."""
    with hosts.hosts(3, mbit=1000) as network:
        cluster = make(tmp_path, network, data)
        yield cluster
        for service in cluster.services:
            service.stop()


@pytest.fixture(scope="module")
def oracle(data: Path) -> Iterator[Oracle]:
    with Oracle(views(data)) as judge:
        yield judge


@pytest.fixture(scope="module", params=["adaptive", "all hashed"])
def session(request: pytest.FixtureRequest, steady: Cluster, data: Path) -> Iterator[sabot_sql.Session]:
    hashed = {"partitions": 5, "adaptive": False, "broadcast_limit": 0}
    with steady.connect(**hashed if request.param == "all hashed" else {}) as session:
        for view in views(data):
            session.query(view)
        yield session


@pytest.mark.parametrize("name", QUERIES)
def test_tpch_is_right_on_three_hosts(name: str, session: sabot_sql.Session, oracle: Oracle) -> None:
    given = answer(session, QUERIES[name])
    verdict, found = oracle.judge(QUERIES[name], given.rows)
    assert verdict is Verdict.EQUAL, f"{given.mode}: {given.reason}\n{found}"
    assert given.mode == "distributed", given.reason


def test_rows_went_from_host_to_host(session: sabot_sql.Session, steady: Cluster) -> None:
    before = [steady.network.sent_bytes(name) for name in steady.network.names]
    session.query("SELECT l_partkey, sum(l_quantity) FROM lineitem GROUP BY l_partkey")
    after = [steady.network.sent_bytes(name) for name in steady.network.names]
    assert all(last - first > 1000 for first, last in zip(before, after, strict=True))


def test_frames_reach_agents_that_cannot_dial_the_session(session: sabot_sql.Session) -> None:
    frame = pa.table({"k": [i % 1500 for i in range(200_000)], "x": range(200_000), "t": ["a" * 20] * 200_000})
    session.register("frame", frame)
    sql = "SELECT c_mktsegment, count(*), sum(x), max(t) FROM frame JOIN customer ON k = c_custkey GROUP BY ALL"
    given = answer(session, f"{sql} ORDER BY 1")
    assert given.mode == "distributed", given.reason
    with sabot_sql.connect() as alone:
        for view in views(tpch(SCALE)):
            alone.query(view)
        alone.register("frame", frame)
        assert given.rows.rows == answer(alone, f"{sql} ORDER BY 1").rows.rows


def test_an_error_of_the_user_s_comes_from_another_host_as_it_is(session: sabot_sql.Session) -> None:
    with pytest.raises(SabotSQLError, match="Could not convert string"):
        session.query("SELECT sum(CAST(l_shipmode AS INTEGER)), l_partkey FROM lineitem GROUP BY l_partkey")


def test_one_agent_killed_at_a_random_moment(cluster: Cluster, data: Path, oracle: Oracle) -> None:
    chance = random.Random(20)
    with cluster.connect(partitions=5, adaptive=False, broadcast_limit=0) as session:
        for view in views(data):
            session.query(view)
        session.query(QUERIES["q01"])
        for name in chance.sample(sorted(QUERIES), 5):
            victim = chance.randrange(3)
            timer = threading.Timer(chance.random() * 0.6, cluster.services[victim].kill)
            timer.start()
            given = answer(session, QUERIES[name])
            timer.join()
            verdict, found = oracle.judge(QUERIES[name], given.rows)
            assert verdict is Verdict.EQUAL, f"{name}: {given.reason}\n{found}"
            cluster.services[victim].process.wait(10)
            cluster.services[victim].start()
            cluster.services[victim].wait_ready()


def test_an_agent_that_dies_while_its_rows_are_handed_over(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT i % 50000 AS k, sum(i) AS s FROM range(500000) t(i) GROUP BY k"
    expected = sorted(sabot_sql.query(sql).fetchall())
    with cluster.connect(partitions=6) as session:
        assert sorted(session.query(sql).fetchall()) == expected
        victim = cluster.services[cluster.service_of(cluster.agents(session)[1])]
        killed: list[int] = []

        def batches_of_the_dead(stream: Any) -> Any:
            if not killed:
                killed.append(1)
                victim.kill()
                victim.process.wait(10)
            return batches(stream)

        monkeypatch.setattr(distributed, "batches", batches_of_the_dead)
        assert sorted(session.query(sql).fetchall()) == expected
        assert killed
        victim.start()
        victim.wait_ready()


def test_a_killed_agent_is_noticed_within_a_second(cluster: Cluster) -> None:
    with cluster.connect() as session:
        session.query(JOIN)
        victim = cluster.agents(session)[0]
        began = time.monotonic()
        cluster.services[cluster.service_of(victim)].kill()
        while victim.alive:
            assert time.monotonic() - began < 5
            time.sleep(0.01)
        assert time.monotonic() - began < 1.5
        assert session.query(JOIN).fetchall() == sabot_sql.query(JOIN).fetchall()


def test_a_query_goes_on_after_the_link_of_the_session_was_cut_for_ten_seconds(cluster: Cluster) -> None:
    expected = sabot_sql.query(JOIN).fetchall()
    with cluster.connect() as session:
        assert session.query(JOIN).fetchall() == expected
        before = {agent.agent_id for agent in cluster.agents(session)}
        cut = threading.Event()

        def observe(plan: Any) -> None:
            if plan["state"] == "running" and not cut.is_set():
                cluster.network.cut(hosts.OURS)
                threading.Timer(10, cluster.network.mend, (hosts.OURS,)).start()
                cut.set()

        # A query that ends between two pictures of its plan shows none of it running.
        give_up = time.monotonic() + 30
        while not cut.is_set():
            assert time.monotonic() < give_up
            began = time.monotonic()
            assert session.query(JOIN, observer=observe).fetchall() == expected
        assert 9 < time.monotonic() - began < 40
        assert {agent.agent_id for agent in cluster.agents(session)} == before


def test_a_stopped_agent_is_lost_with_its_lease_and_its_late_commit_is_refused(cluster: Cluster) -> None:
    expected = sabot_sql.query(JOIN).fetchall()
    with cluster.connect(lease_seconds=4) as session:
        assert session.query(JOIN).fetchall() == expected
        victim = cluster.agents(session)[1]
        service = cluster.services[cluster.service_of(victim)]
        stopped = threading.Event()

        def observe(plan: Any) -> None:
            if plan["state"] == "running" and not stopped.is_set():
                service.kill(signal.SIGSTOP)
                stopped.set()

        # A query that ends between two pictures of its plan shows none of it running.
        give_up = time.monotonic() + 30
        while not stopped.is_set():
            assert time.monotonic() < give_up
            assert session.query(JOIN, observer=observe).fetchall() == expected
        # What it had to do may have been done before it was stopped: its lease ends all the same.
        wait_until(lambda: not victim.alive)
        service.kill(signal.SIGCONT)
        # Its service is there again: another agent is opened on it, under another name.
        give_up = time.monotonic() + 30
        while len(cluster.agents(session)) < 3:
            assert time.monotonic() < give_up
            assert session.query(JOIN).fetchall() == expected
        assert victim.agent_id not in {agent.agent_id for agent in cluster.agents(session)}


def test_a_link_between_agents_that_is_cut_and_mended(cluster: Cluster) -> None:
    expected = sabot_sql.query(JOIN).fetchall()
    with cluster.connect() as session:
        assert session.query(JOIN).fetchall() == expected
        name = cluster.network.names[2]
        cluster.network.cut(name)
        timer = threading.Timer(8, cluster.network.mend, (name,))
        timer.start()
        assert session.query(JOIN).fetchall() == expected
        timer.join()


def test_an_agent_that_the_others_cannot_reach_is_refused_and_the_pair_named(tmp_path: Path, data: Path) -> None:
    with hosts.hosts(2) as network:
        cluster = make(tmp_path, network, data)
        try:
            cluster.services[1].stop()
            lost = Service(
                tmp_path / "lost",
                cluster.services[1].listen,
                [*cluster.services[1].options, "--advertise", f"{network.subnet}.77:{PORT}"],
                network.inside(network.names[1]),
            )
            cluster.services.append(lost)
            lost.wait_ready()
            with (
                cluster.connect() as session,
                pytest.raises(AgentError, match=f"cannot reach agent .* as {network.subnet}.77"),
            ):
                session.query(JOIN)
        finally:
            for service in cluster.services:
                service.stop()


def test_a_file_that_only_the_session_has_is_sent_to_the_agents(cluster: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.parquet"
    pq.write_table(pa.table({"i": range(100_000)}), other)
    with cluster.connect() as session:
        given = answer(session, f"SELECT i % 10 AS k, count(*) FROM '{other}' GROUP BY k ORDER BY k")
        assert given.mode == "distributed", given.reason
        assert [tuple(row) for row in given.rows.rows] == [(k, 10_000) for k in range(10)]


def test_a_file_that_is_another_one_on_an_agent_is_named_with_both(
    cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sabot_sql.catalog import query_sources

    there = query_sources.FileVersion
    monkeypatch.setattr(query_sources, "FileVersion", lambda path, size, mtime: there(path, size + 1, mtime))
    size = (data / "lineitem.parquet").stat().st_size
    said = (
        f"lineitem.parquet is another file on agent agent-.*{size} bytes of .*, {size + 1} bytes of .* at the session"
    )
    with cluster.connect() as session, pytest.raises(SourceError, match=said):
        session.query(f"SELECT l_partkey, count(*) FROM '{data}/lineitem.parquet' GROUP BY l_partkey")
