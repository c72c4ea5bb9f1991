"""A task that runs out of memory: once more with less, then a typed error; the session stays usable."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_sql
from benchmarks.memory import tree_memory
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, ScanInput, ShuffleEdge, ShuffleEdgeType
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.call.memory_ladder import ClimbedRungs, Rung
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.coordinator import execution
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.errors import ResourceError
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    FailureKind,
    Fragment,
    Outcome,
    QueryContext,
    TaskFailure,
    TaskId,
    TaskReport,
    TaskSpec,
    WriteKind,
    WriteScheme,
)
from tests.runtime.simulated import Simulation
from tests.support.budgets import budget, with_budget


def group_by(buckets: int = 4) -> OperatorGraph:
    """source ×2 ──HASH──▶ group ×2 ──▶ sink"""
    operators = [("source", 2), ("group", 2), ("sink", 1)]
    return OperatorGraph(
        tuple(Operator(name, OperatorType.MAP, f"SELECT * FROM {name}", n) for name, n in operators),
        (
            ShuffleEdge("e1", "source", "group", ShuffleEdgeType.HASH, partition_by="h", partitions=buckets),
            ShuffleEdge("e2", "group", "sink", ShuffleEdgeType.REBALANCE),
        ),
    )


def grouping(buckets: int = 4) -> Simulation:
    run = Simulation(group_by(buckets))
    run.finish("source_0")
    run.finish("source_1")
    assert set(run.running) == {"group_0", "group_1"}
    return run


def out_of_memory(run: Simulation, task: str) -> None:
    run.fail(task, FailureKind.RESOURCE, error=ResourceError("out of memory", code="OUT_OF_MEMORY"))


def test_the_task_runs_again_alone_and_a_bucket_at_a_time() -> None:
    run = grouping()
    out_of_memory(run, "group_0")
    assert set(run.running) == {"group_1"}
    run.finish("group_1")
    ran = []
    while "sink_0" not in run.running:
        (name,) = run.running
        read = run.running[name].inputs["e1"]
        ran.append((name, read.first, read.last))
        run.finish(name)
    assert ran == [("group_0", 0, 1), ("group_2", 1, 2)]
    assert len(run.running["sink_0"].inputs["e2"].manifests) == 3
    run.finish_all()
    assert (run.finished, run.error) == (True, None)


def test_a_task_of_one_bucket_runs_again_alone() -> None:
    run = grouping(buckets=2)
    out_of_memory(run, "group_0")
    out_of_memory(run, "group_1")
    assert set(run.running) == {"group_0"}
    run.finish("group_0")
    assert set(run.running) == {"group_1"}
    run.finish_all()
    assert (run.finished, run.error) == (True, None)


def test_a_task_that_runs_out_of_memory_alone_ends_the_query() -> None:
    run = grouping()
    out_of_memory(run, "group_0")
    run.finish("group_1")
    out_of_memory(run, "group_0")
    assert isinstance(run.error, ResourceError)
    assert run.error.code == "OUT_OF_MEMORY"


def test_a_full_disk_is_not_tried_again() -> None:
    run = grouping()
    run.fail("group_0", FailureKind.RESOURCE, error=ResourceError("disk full", code="DISK_FULL"))
    assert isinstance(run.error, ResourceError)


def scanning() -> Simulation:
    """scan ×2, in slices ──HASH──▶ group ×2"""
    scan = ScanInput("scan_0", "t", ("k",))
    operators = (
        Operator("scan", OperatorType.MAP, "SELECT * FROM scan_0", 2, scans=(scan,)),
        Operator("group", OperatorType.MAP, "SELECT * FROM e1", 2),
    )
    edge = ShuffleEdge("e1", "scan", "group", ShuffleEdgeType.HASH, partition_by="h", partitions=4)
    return Simulation(OperatorGraph(operators, (edge,)))


def test_a_stage_that_reads_slices_begins_anew_with_smaller_ones() -> None:
    run = scanning()
    out_of_memory(run, "scan_0")
    overtaken = run.running.pop("scan_1")
    assert run.stopped == [overtaken.id], "nobody wants what it makes"
    assert set(run.running) == {"scan_0"}, "the other agent is busy"
    assert run.running["scan_0"].parallelism == 16
    run.tell(run.report(overtaken))
    assert run.running["scan_1"].id.attempt > overtaken.id.attempt
    run.finish_all()
    assert (run.finished, run.error) == (True, None)
    read = next(c for c in run.started if c.id.stage == "group").inputs["e1"]
    assert read.producers == tuple(range(16)), "what the overtaken task wrote is not read"


def test_slices_become_smaller_as_long_as_that_helps() -> None:
    run = scanning()
    for tasks in (16, 128):
        out_of_memory(run, "scan_0")
        run.tell(run.report(run.running.pop("scan_1")))
        assert {c.parallelism for c in run.running.values()} == {tasks}
    out_of_memory(run, "scan_0")
    assert isinstance(run.error, ResourceError)


@pytest.mark.parametrize("copied_bytes", [4_000, 5_000])
def test_a_copied_side_of_half_a_grant_does_not_shrink_with_the_slices(copied_bytes: int) -> None:
    scan = ScanInput("scan_0", "t", ("k",))
    operators = (
        Operator("build", OperatorType.MAP, "SELECT 1 AS k"),
        Operator("probe", OperatorType.JOIN, "SELECT * FROM scan_0", 2, scans=(scan,)),
    )
    edge = ShuffleEdge("e1", "build", "probe", ShuffleEdgeType.BROADCAST)
    run = Simulation(
        OperatorGraph(operators, (edge,)),
        controller=DBOSParallelController(0, grant_bytes=9_000, few_rows=0),
        rows=lambda edge, task: copied_bytes // 100,
    )
    run.finish("build_0")
    out_of_memory(run, "probe_0")
    assert isinstance(run.error, ResourceError) is (copied_bytes > 4_500)
    assert run.execution.runs["probe"].reads.parallelism == (2 if run.error else 16)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_an_attempt_that_was_overtaken_is_interrupted_and_no_other(isolation: str) -> None:
    config = parse_config(agents=1, isolation=isolation, threads=1)
    forever = "SELECT count(*) AS n FROM range(10_000_000) a, range(10_000_000) b WHERE a.range + b.range = -1"
    connection = Connection(config, "/tmp")
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    with start_agents(config, connection.plain_cursor()) as pool:
        (agent,) = pool.agents
        agent.begin(QueryContext("q", edges=("e",)))
        ids = [TaskId("q", "s", 0, attempt) for attempt in range(3)]
        output = EdgeOutput("e", WriteScheme(WriteKind.ONE_PARTITION))
        agent.submit(TaskSpec(ids[0], Fragment(forever), (output,)), outcomes.put)
        agent.submit(TaskSpec(ids[1], Fragment(forever), (output,)), outcomes.put)
        agent.submit(TaskSpec(ids[2], Fragment("SELECT 42 AS n"), (output,)), outcomes.put)
        for task_id in ids[:2]:
            outcome = stopped(lambda task_id=task_id: agent.stop(task_id), outcomes)
            assert isinstance(outcome, TaskFailure)
            assert (outcome.id, outcome.kind) == (task_id, FailureKind.CANCELLED)
        last = outcomes.get(timeout=10)
        assert isinstance(last, TaskReport)
        assert last.outputs[0].rows == 1
    connection.close()


def stopped(stop: Callable[[], None], outcomes: queue.SimpleQueue[Outcome]) -> Outcome:
    """The answer to a stop, which is repeated: one that comes before DuckDB executes is lost."""
    for _ in range(200):
        stop()
        with contextlib.suppress(queue.Empty):
            return outcomes.get(timeout=0.05)
    raise AssertionError("it does not stop")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[Any, ...]]]:
    """A join whose build side fits no agent's memory, but the memory of all of them on disk and in parts."""
    folder = tmp_path_factory.mktemp("joined")
    rows = "SELECT hash(range) % 400_000 AS k, range AS v, repeat('x', 20) || range % 1000 AS s"
    duckdb.sql(f"COPY ({rows} FROM range(600_000)) TO '{folder}/a.parquet' (ROW_GROUP_SIZE 20_000)")
    duckdb.sql(f"COPY ({rows} FROM range(400_000)) TO '{folder}/b.parquet' (ROW_GROUP_SIZE 20_000)")
    sql = f"""SELECT a.k % 10, count(*), sum(a.v - b.v), max(b.s || a.s) FROM '{folder}/a.parquet' a
        JOIN '{folder}/b.parquet' b ON a.k = b.k GROUP BY 1 ORDER BY 1"""
    return sql, duckdb.sql(sql).fetchall()


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_f11_memory_that_runs_out_on_agents_may_do_for_duckdb_alone(
    isolation: str, joined: tuple[str, list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DuckDB's own error on the agents, none of whose tasks is given less; the session keeps its agents."""
    sql, expected = joined
    monkeypatch.setattr(execution, "memory_retry", lambda *_: None)
    with sabot_sql.connect(**with_budget("64MiB", agents=2, isolation=isolation, broadcast_limit="1GiB")) as session:
        result = session.query(sql)
        assert result.fetchall() == expected
        shown = result.plan.json()
        assert (shown["mode"], "memory ran out on 2 agents" in shown["reason"]) == ("single", True), shown["reason"]
        small = session.query("SELECT sum(range) FROM range(1000)")
        assert (small.fetchall(), small.plan.json()["mode"]) == ([(499_500,)], "distributed")
        session.query(f"COPY ({sql}) TO '{tmp_path}/copied.parquet'")
        session.query(f"CREATE TABLE made AS {sql}")
        assert session.query("FROM made").fetchall() == expected
    assert duckdb.sql(f"FROM '{tmp_path}/copied.parquet'").fetchall() == expected


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_what_memory_ran_out_on_begins_where_it_ended_before_and_agents_stay(
    isolation: str, joined: tuple[str, list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No agent is started anew for it; a write may make tables smaller, so it is forgotten then."""
    sql, expected = joined
    monkeypatch.setattr(execution, "memory_retry", lambda *_: None)
    started: list[int] = []
    start = AgentPool._start

    def counted(pool: AgentPool, count: int, check: Callable[[], None]) -> list[Agent]:
        if count > 1:
            started.append(count)
        return start(pool, count, check)

    monkeypatch.setattr(AgentPool, "_start", counted)
    small = "SELECT k % 3, count(*) FROM t GROUP BY ALL ORDER BY 1"
    with sabot_sql.connect(**with_budget("64MiB", agents=2, isolation=isolation, broadcast_limit="1GiB")) as session:
        session.query("CREATE TABLE t AS SELECT range AS k FROM range(3_000)")
        reasons = []
        for _ in range(2):
            result = session.query(sql)
            assert result.fetchall() == expected
            reasons.append(result.plan.json()["reason"])
            answer = session.query(small)
            assert answer.fetchall() == [(0, 1000), (1, 1000), (2, 1000)]
            assert answer.stats["mode"] == "distributed"
        assert ["when this ran before" in reason for reason in reasons] == [False, True], reasons
        assert "when this ran before" not in session.query(sql.replace("max(", "min(")).plan.json()["reason"]
        session.query("INSERT INTO t VALUES (0)")
        assert "when this ran before" not in session.query(sql).plan.json()["reason"]
    assert started == [2]


def test_so_many_rungs_are_remembered_and_no_more() -> None:
    config, rungs = parse_config(agents=2), ClimbedRungs()
    for number in range(300):
        rungs.note(f"SELECT {number}", config, Rung.PARTS)
    known = [number for number in range(300) if rungs.of(f"SELECT {number}", config) is Rung.PARTS]
    assert known == list(range(44, 300))
    assert rungs.of("SELECT 299", parse_config(agents=3)) is Rung.AGENTS
    rungs.forget()
    assert rungs.of("SELECT 299", config) is Rung.AGENTS


def test_resting_agents_have_given_their_memory_back_and_work_again() -> None:
    """A thread agent's and a process agent's; the rows of the query that rests are in nobody's memory."""
    for isolation in ("thread", "process"):
        with sabot_sql.connect(agents=2, isolation=isolation, memory_limit="1GiB") as session:
            session.query("CREATE TABLE t AS SELECT range AS i, repeat('x', 100) || range AS s FROM range(300_000)")
            grouped = "SELECT count(*) FROM (SELECT s, count(*) FROM t GROUP BY s)"
            assert session.query(grouped).fetchall() == [(300_000,)]

            def shared_bytes() -> int:
                return sum(process.shared_bytes for process in tree_memory(os.getpid()))

            working = shared_bytes()
            assert working > 10 << 20
            pool = session._pools._pool
            assert pool is not None
            pool.rest()
            give_up = time.monotonic() + 10
            while shared_bytes() > working / 4:
                assert time.monotonic() < give_up, "a process gives it back once it has read that it shall"
            assert session.query(grouped).fetchall() == [(300_000,)]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_f11_what_is_too_much_for_duckdb_alone_is_made_in_small_parts(isolation: str, tmp_path: Path) -> None:
    """The states of 200,000 HyperLogLogs do not fit, beside a copied side those of a slice do not either."""
    duckdb.sql(f"COPY (SELECT range AS v, range % 199_999 AS k FROM range(2_000_000)) TO '{tmp_path}/t.parquet'")
    duckdb.sql(f"COPY (SELECT range AS k, repeat('x', 40) || range AS s FROM range(200_000)) TO '{tmp_path}/d.parquet'")
    sql = f"""SELECT count(*), sum(n), max(s) FROM (SELECT t.k, max(s) AS s, approx_count_distinct(v) AS n
        FROM '{tmp_path}/t.parquet' t JOIN '{tmp_path}/d.parquet' d USING (k) GROUP BY t.k)"""
    expected = duckdb.sql(sql).fetchall()
    with sabot_sql.connect(**with_budget("160MiB", agents=2, isolation=isolation, broadcast_limit="1GiB")) as session:
        for earlier in ("", ", when this ran before"):
            result = session.query(sql)
            assert result.fetchall() == expected
            shown = result.plan.json()
            assert f"alone{earlier}: small parts, one after the other" in shown["reason"], shown["reason"]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_first_phase_too_large_for_memory_gives_duckdbs_answer(isolation: str, tmp_path: Path) -> None:
    """The states of 200,000 HyperLogLogs do not fit, and DuckDB keeps them in memory; those of a slice do.

    A key far away in every row group hides that the file is clustered.
    """
    file = tmp_path / "t.parquet"
    duckdb.sql(
        "COPY (SELECT range AS v, CASE WHEN range % 20_000 = 0 THEN 199_999 - range // 10 ELSE range // 10 END AS k"
        f" FROM range(2_000_000)) TO '{file}' (ROW_GROUP_SIZE 20_000)"
    )
    sql = f"SELECT count(*), sum(n) FROM (SELECT k, approx_count_distinct(v) AS n FROM '{file}' GROUP BY k)"
    with sabot_sql.connect(**with_budget("160MiB", agents=2, isolation=isolation)) as session:
        result = session.query(sql)
        assert result.fetchall() == duckdb.sql(sql).fetchall()
        assert "ran out of memory and begin anew" in str(result.plan.json())


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_query_for_which_memory_never_suffices(isolation: str, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    duckdb.sql(
        "COPY (SELECT range % 4 AS k, repeat('x', 1500) || range AS s FROM range(200_000))"
        f" TO '{file}' (ROW_GROUP_SIZE 20_000)"
    )
    # Lists of text cannot leave memory while they are made.
    sql = f"SELECT k, length(list(s)) AS n FROM '{file}' GROUP BY k ORDER BY k"
    with sabot_sql.connect(**with_budget("90MiB", agents=2, isolation=isolation)) as session:
        with pytest.raises(ResourceError) as caught:
            session.query(sql)
        assert caught.value.code == "OUT_OF_MEMORY"
        assert session.query(f"SELECT count(*) FROM '{file}' GROUP BY k").fetchall() == [(50_000,)] * 4


def test_a_query_that_no_agent_takes_part_in_may_have_their_memory(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("n\n3000000\n")
    query = f"SELECT len(list(i)) {{}} FROM (SELECT unnest(range(n)) AS i FROM '{tmp_path}/one.csv')"
    limit = budget("256MiB", agents=3, isolation="thread")
    with sabot_sql.connect(agents=3, memory_limit=limit) as session:
        session.execute("CREATE TABLE t AS SELECT range AS i FROM range(400_000); CREATE SEQUENCE numbers")
        assert session.query("SELECT count(DISTINCT i) FROM t").plan.json()["mode"] == "distributed"
        with pytest.raises(ResourceError):  # a number that was taken from a sequence stays taken
            session.query(query.format("+ 0 * nextval('numbers')"))
        result = session.query(query.format(""))
        assert result.fetchall() == [(3_000_000,)]
        assert "DuckDB alone has all of it" in result.plan.json()["reason"]


LISTED = "SELECT len(list(i)) {} FROM range(3_000_000) AS r(i)"
OF_A_FILE = "SELECT len(list(i)), 1 AS k FROM (SELECT unnest(range(n)) AS i FROM '{path}/one.csv')"


@pytest.mark.parametrize(
    ("statement", "read", "rows"),
    [
        (f"INSERT INTO kept {LISTED.format('')}", "FROM kept", [(1,), (3_000_000,)]),
        (f"UPDATE kept SET n = ({LISTED.format('')})", "FROM kept", [(3_000_000,)]),
        (f"DELETE FROM kept WHERE n < ({LISTED.format('')})", "FROM kept", []),
        (
            f"WITH w AS (UPDATE kept SET n = n + 1 RETURNING n) SELECT ({LISTED.format('')}) FROM w",
            "FROM kept",
            [(2,)],
        ),
        (f"COPY ({OF_A_FILE}) TO '{{path}}/written.parquet'", "FROM '{path}/written.parquet'", [(3_000_000, 1)]),
    ],
    ids=["INSERT", "UPDATE", "DELETE", "WITH", "COPY"],
)
def test_a_write_that_was_taken_back_runs_once_more_with_all_memory(
    small_session: sabot_sql.Session, tmp_path: Path, statement: str, read: str, rows: list[tuple[int]]
) -> None:
    (tmp_path / "one.csv").write_text("n\n3000000\n")
    result = small_session.query(statement.replace("{path}", str(tmp_path)))
    assert "the session's share of it: DuckDB alone has all of it" in result.plan.json()["reason"]
    assert sorted(small_session.query(read.replace("{path}", str(tmp_path))).fetchall()) == rows


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO kept {LISTED.format('''+ 0 * nextval('numbers')''')}",
        f"INSERT INTO numbered (n) {LISTED.format('')}",
        f"COPY ({OF_A_FILE}) TO '{{path}}/written' (PARTITION_BY k)",
        f"BEGIN; INSERT INTO kept {LISTED.format('')}",
    ],
    ids=["sequence", "default", "directory", "transaction"],
)
def test_a_write_that_left_something_behind_does_not(
    small_session: sabot_sql.Session, tmp_path: Path, statement: str
) -> None:
    (tmp_path / "one.csv").write_text("n\n3000000\n")
    with pytest.raises(ResourceError) as caught:
        small_session.query(statement.replace("{path}", str(tmp_path)))
    assert caught.value.code == "OUT_OF_MEMORY"


@pytest.fixture
def small_session() -> Iterator[sabot_sql.Session]:
    """Three agents that have started: the session's own DuckDB has 38 MiB left of 204."""
    limit = budget("256MiB", agents=3, isolation="thread")
    with sabot_sql.connect(agents=3, memory_limit=limit) as session:
        session.execute("CREATE TABLE t AS SELECT range AS i FROM range(400_000); CREATE SEQUENCE numbers")
        session.execute("CREATE TABLE numbered (id BIGINT DEFAULT nextval('numbers'), n BIGINT)")
        session.execute("CREATE TABLE kept AS SELECT 1::BIGINT AS n")
        assert session.query("SELECT count(DISTINCT i) FROM t").plan.json()["mode"] == "distributed"
        yield session
