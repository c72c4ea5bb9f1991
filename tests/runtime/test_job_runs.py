"""Job graphs built by hand, run on threads and on processes: every edge type, every way to end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import (
    Operator,
    OperatorType,
    Placement,
    ScanInput,
    ShuffleEdge,
    ShuffleEdgeType,
)
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.agent.process_agent import ProcessAgent
from sabot_sql.catalog.connection import Connection
from sabot_sql.catalog.sources import SliceBinding, even_share, even_spans
from sabot_sql.config import Isolation, parse_config
from sabot_sql.coordinator.driver import FinishedQuery, run_job
from sabot_sql.coordinator.no_sources import NoSources
from sabot_sql.errors import AgentError, QueryCancelled, QueryTimeout, SabotSQLError, ValueFailure
from tests.support.budgets import budget

HASH, RANGE = ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE
BROADCAST, REBALANCE, FORWARD = ShuffleEdgeType.BROADCAST, ShuffleEdgeType.REBALANCE, ShuffleEdgeType.FORWARD
ISOLATIONS = ("thread", "process")
FOREVER = "SELECT count(*) AS n FROM range(10_000_000) a, range(10_000_000) b WHERE a.range + b.range = -1"


def op(name: str, sql: str, parallelism: int = 1, **more: Any) -> Operator:
    return Operator(name, OperatorType.MAP, sql, parallelism, **more)


class Numbers(NoSources):
    """Numbers 0 … rows - 1 as source ``n``, and the same as a table of this process as ``frame``."""

    def __init__(self, rows: int = 10_000) -> None:
        self.rows = rows

    def in_session(self, source_id: str) -> bool:
        return bool(self.bind_slice(source_id, 0, 1).registrations)

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        first, last = even_share(index, count, self.rows)
        spans = even_spans(index, count, self.rows)
        if source_id == "frame":
            table = pa.table({"i": pa.array(range(first, last), pa.int64())})
            return SliceBinding("SELECT i FROM numbers_frame", spans, {"numbers_frame": table})
        return SliceBinding(f"SELECT range AS i FROM range({first}, {last})", spans)


class Switch:
    """A cancellation."""

    cancelled = False


SCAN = (ScanInput("t", "n", ("i",)),)


@pytest.fixture(scope="module", params=ISOLATIONS)
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentPool]:
    yield from _pool(request.param, tmp_path_factory.mktemp("spill"))


@pytest.fixture(params=ISOLATIONS)
def fresh_pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentPool]:
    yield from _pool(request.param, tmp_path)


@pytest.fixture
def process_pool(tmp_path: Path) -> Iterator[AgentPool]:
    yield from _pool("process", tmp_path)


def _pool(isolation: str, directory: Path, memory: str = "512MiB") -> Iterator[AgentPool]:
    config = parse_config(agents=2, isolation=isolation, memory_limit=memory, threads=1, spill_directory=directory)
    connection = Connection(config, str(directory / "duckdb"))
    with start_agents(config, connection.main) as pool:
        yield pool
    connection.close()
    assert not list(directory.iterdir()), "a closed pool leaves no files"


_numbers = iter(range(1_000_000))


def rows(finished: FinishedQuery) -> list[tuple[Any, ...]]:
    table = pa.RecordBatchReader.from_stream(finished.stream).read_all()
    finished.release()
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def run(pool: AgentPool, graph: OperatorGraph, source_rows: int = 10_000, **more: Any) -> FinishedQuery:
    return run_job(graph, pool, Numbers(source_rows), query_id=f"q{next(_numbers)}", deadline_ms=60_000, **more)


def hash_group(parallelism: int = 3, buckets: int = 8) -> OperatorGraph:
    return OperatorGraph(
        (
            op("source", "SELECT i % 10 AS k, i AS v FROM t", 4, scans=SCAN),
            op("sums", "SELECT k, count(*) AS n, sum(v)::BIGINT AS s FROM e1 GROUP BY k", parallelism),
        ),
        (ShuffleEdge("e1", "source", "sums", HASH, keys=("k",), partitions=buckets),),
    )


EXPECTED_SUMS = [(k, 1000, sum(range(k, 10_000, 10))) for k in range(10)]


def test_hash_group_by(pool: AgentPool) -> None:
    finished = run(pool, hash_group())
    assert [(c.name, c.type) for c in finished.columns] == [("k", "BIGINT"), ("n", "BIGINT"), ("s", "BIGINT")]
    assert finished.plan["state"] == "finished"
    assert sorted(rows(finished)) == EXPECTED_SUMS


def test_hash_by_a_projected_column(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            op("source", "SELECT i % 10 AS k, hash(i % 10) AS h FROM t", 4, scans=SCAN),
            op("counts", "SELECT * FROM (SELECT k, count(*) AS n FROM e1 GROUP BY k)", 3),
        ),
        (ShuffleEdge("e1", "source", "counts", HASH, keys=("k",), partition_by="h", partitions=6),),
    )
    assert sorted(rows(run(pool, graph))) == [(k, 1000) for k in range(10)]


def test_broadcast_join(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            op("small", "SELECT i AS k, 'name ' || i AS name FROM range(3) r(i)"),
            op("big", "SELECT i, i % 5 AS k FROM t", 2, scans=SCAN),
            op("join", "SELECT name, count(*) AS n FROM big JOIN small USING (k) GROUP BY name", 2),
            op("total", "SELECT name, sum(n)::BIGINT AS n FROM e GROUP BY name"),
        ),
        (
            ShuffleEdge("small", "small", "join", BROADCAST),
            ShuffleEdge("big", "big", "join", REBALANCE, partitions=4),
            ShuffleEdge("e", "join", "total", REBALANCE),
        ),
    )
    assert sorted(rows(run(pool, graph))) == [(f"name {k}", 2000) for k in range(3)]


def sort_graph(ranges: int) -> OperatorGraph:
    key = "create_sort_key(v, 'DESC NULLS FIRST')"
    return OperatorGraph(
        (
            op("source", f"SELECT *, {key} AS key FROM (SELECT (i * 7919) % 1000003 AS v FROM t)", 3, scans=SCAN),
            op("sort", "SELECT v FROM e1 ORDER BY v DESC", ranges),
        ),
        (ShuffleEdge("e1", "source", "sort", RANGE, partition_by="key", bounds_partitions=ranges),),
        ordered=True,
    )


@pytest.mark.parametrize(("source_rows", "tasks"), [(100_000, 4), (100, 1), (0, 1)])
def test_range_sort_gives_the_rows_in_order(pool: AgentPool, source_rows: int, tasks: int) -> None:
    finished = run(pool, sort_graph(4), source_rows)
    (stage,) = [s for s in finished.plan["stages"] if s["id"] == "sort"]
    assert len(stage["tasks"]) == tasks
    expected = sorted(((i * 7919) % 1000003 for i in range(source_rows)), reverse=True)
    assert [v for (v,) in rows(finished)] == expected


def test_one_planned_range(pool: AgentPool) -> None:
    finished = run(pool, sort_graph(1), 1000)
    assert [v for (v,) in rows(finished)] == sorted(((i * 7919) % 1000003 for i in range(1000)), reverse=True)


def test_rebalance_evens_out_and_loses_nothing(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (op("source", "SELECT i FROM t", scans=SCAN), op("work", "SELECT i FROM e1", 4)),
        (ShuffleEdge("e1", "source", "work", REBALANCE),),
    )
    finished = run(pool, graph, 50_000)
    (edge,) = [e for e in finished.plan["edges"] if e["id"] == "e1"]
    assert max(edge["partition_rows"]) - min(edge["partition_rows"]) <= 20_000
    assert sorted(i for (i,) in rows(finished)) == list(range(50_000))


def test_forward_chain_runs_as_one_task(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            op("source", "SELECT i FROM t", 3, scans=SCAN),
            op("twice", "SELECT 2 * i AS i FROM e1 WHERE i < 5", 3),
            op("sink", "SELECT i FROM e2"),
        ),
        (ShuffleEdge("e1", "source", "twice", FORWARD), ShuffleEdge("e2", "twice", "sink", REBALANCE)),
    )
    finished = run(pool, graph)
    by_id = {stage["id"]: stage for stage in finished.plan["stages"]}
    assert {t["id"] for t in by_id["source"]["tasks"]} == {"twice_0", "twice_1", "twice_2"}
    assert sorted(rows(finished)) == [(0,), (2,), (4,), (6,), (8,)]


def test_a_pipeline_of_all_unkeyed_and_keyed_edges(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            op("source", "SELECT i, i % 40 AS user_id, i % 7 AS amount FROM t", 10, scans=SCAN),
            op("enrich", "SELECT *, amount * 2 AS doubled FROM raw WHERE i < 9000", 10),
            op("per_user", "SELECT user_id, sum(doubled)::BIGINT AS spent FROM enriched GROUP BY user_id", 5),
            op("alerts", "SELECT user_id, spent FROM spending WHERE spent > 1345", 2),
        ),
        (
            ShuffleEdge("raw", "source", "enrich", FORWARD),
            ShuffleEdge("enriched", "enrich", "per_user", HASH, keys=("user_id",)),
            ShuffleEdge("spending", "per_user", "alerts", REBALANCE),
        ),
    )
    assert len(graph.to_execution_graph().tasks) == 27
    finished = run(pool, graph)
    assert [len(stage["tasks"]) for stage in finished.plan["stages"]] == [10, 10, 5, 2]
    spent = {user: sum(i % 7 * 2 for i in range(user, 9000, 40)) for user in range(40)}
    assert sorted(rows(finished)) == [(user, value) for user, value in sorted(spent.items()) if value > 1345]


def test_a_frame_of_the_session_is_scanned_there(pool: AgentPool) -> None:
    frame = (ScanInput("t", "frame", ("number",)),)
    graph = OperatorGraph(
        (
            op("frame", "SELECT number FROM t", placement=Placement.SESSION, scans=frame),
            op("sums", "SELECT sum(number)::BIGINT AS s FROM e1", 2),
        ),
        (ShuffleEdge("e1", "frame", "sums", REBALANCE, partitions=2),),
    )
    finished = run(pool, graph, 10_000)
    by_id = {stage["id"]: stage for stage in finished.plan["stages"]}
    assert {t["agent"] for t in by_id["frame"]["tasks"]} == {"session"}
    assert sum(s or 0 for (s,) in rows(finished)) == sum(range(10_000))


class Kept(Numbers):
    """The numbers, of which the session's own DuckDB alone can read ``kept``."""

    def in_session(self, source_id: str) -> bool:
        return source_id == "kept"


def test_a_fragment_runs_locked_down_unless_the_session_alone_can_read_it(pool: AgentPool) -> None:
    """Of two agents, whatever they are; what the session alone can read is placed on it or in a thread beside it."""
    asked = "SELECT DISTINCT current_setting('enable_external_access')::BOOLEAN AS open FROM t"
    answers = {}
    for source_id, placement in (("n", Placement.ANY), ("kept", Placement.SESSION)):
        scan = (ScanInput("t", source_id, ("i",)),)
        if pool.config.isolation is Isolation.THREAD:
            placement = Placement.ANY
        graph = OperatorGraph((op("asked", asked, placement=placement, scans=scan),), ())
        finished = run_job(graph, pool, Kept(10), query_id=f"q{next(_numbers)}", deadline_ms=60_000)
        answers[source_id] = rows(finished)
    assert answers == {"n": [(False,)], "kept": [(True,)]}


def test_empty_inputs_keep_their_schema(pool: AgentPool) -> None:
    finished = run(pool, hash_group(), 0)
    assert [(c.name, c.type) for c in finished.columns] == [("k", "BIGINT"), ("n", "BIGINT"), ("s", "BIGINT")]
    table = pa.RecordBatchReader.from_stream(finished.stream).read_all()
    assert (table.num_rows, table.column_names) == (0, ["k", "n", "s"])
    finished.release()


def test_more_tasks_than_rows(pool: AgentPool) -> None:
    assert sorted(rows(run(pool, hash_group(parallelism=8), 3))) == [(0, 1, 0), (1, 1, 1), (2, 1, 2)]


TYPED = """
    SELECT 1::HUGEINT AS a, 340282366920938463463374607431768211455::UHUGEINT AS b, '10101'::BIT AS c,
        '12:00:00+02'::TIMETZ AS d, '6b4f4a6e-6a4f-4a6e-8a4f-4a6e6a4f4a6e'::UUID AS e, 'b'::ENUM('b', 'a') AS f,
        {'x': 'a'::ENUM('b', 'a'), 'y': [1.5::DECIMAL(5, 2)]} AS g, '{"q": 1}'::JSON AS h, MAP {1: 'x'} AS i,
        INTERVAL '1 month 2 days' AS j, TIMESTAMP_S '2020-01-01' AS k, TIMESTAMP_NS '2020-01-01' AS l, NULL::INT AS m,
        'blob'::BLOB AS n, [1, NULL]::INT[2] AS o, TIMESTAMPTZ '2020-01-01 00:00:00+00' AS p
    FROM range(1)
"""


def test_every_type_crosses_an_edge(pool: AgentPool) -> None:
    described = "SELECT typeof(COLUMNS('(.*)')) AS 'type_\\1', COLUMNS('(.*)')::VARCHAR AS 'text_\\1' FROM {}"
    graph = OperatorGraph(
        (
            op("source", TYPED, 2),
            op("types", described.format("(FROM e1 ORDER BY f LIMIT 1)")),
        ),
        (ShuffleEdge("e1", "source", "types", REBALANCE),),
    )
    with duckdb.connect() as plain:
        expected = plain.execute(described.format(f"({TYPED})")).fetchone()
    assert rows(run(pool, graph)) == [expected]


def test_aggregate_states_cross_an_edge(pool: AgentPool) -> None:
    state = "to_aggregate_state(st, 'avg', ['BIGINT'], [NULL])"
    graph = OperatorGraph(
        (
            op("partial", "SELECT i % 3 AS k, avg(i) EXPORT_STATE AS st FROM t GROUP BY k", 2, scans=SCAN),
            op("final", f"SELECT k, finalize(combine_aggr({state})) AS a FROM e1 GROUP BY k", 2),
        ),
        (ShuffleEdge("e1", "partial", "final", HASH, keys=("k",)),),
    )
    assert sorted(rows(run(pool, graph, 9))) == [(0, 3.0), (1, 4.0), (2, 5.0)]


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_budget_far_too_small_spills_and_answers_the_same(isolation: str, tmp_path: Path) -> None:
    small = budget("64MiB", isolation=isolation)
    config = parse_config(agents=2, isolation=isolation, memory_limit=small, threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    graph = OperatorGraph(
        (
            op("source", "SELECT i % 10 AS k, i AS v, repeat('x', 200) AS pad FROM t", 4, scans=SCAN),
            op("sums", "SELECT k, count(*) AS n, sum(v)::BIGINT AS s FROM e1 GROUP BY k", 2),
        ),
        (ShuffleEdge("e1", "source", "sums", HASH, keys=("k",), partitions=8),),
    )
    with start_agents(config, connection.main) as pool:
        finished = run(pool, graph, 400_000)
        stats = finished.stats
        assert stats["spilled_bytes"] > 0
        assert stats["wait_ms"] > 0, "to write that took time"
        # Each byte that was written to disk is on the account of one task.
        agents = (*pool.agents, pool.session_agent) if isolation == "process" else (pool.session_agent,)
        assert stats["spilled_bytes"] == sum(agent.metrics()["spilled_bytes"] for agent in agents)
        for edge in stats["edges"].values():
            assert sum(task["spilled_bytes"] for task in edge["tasks"].values()) == edge["spilled_bytes"]
        assert sum(n for _, n, _ in rows(finished)) == 400_000
    connection.close()


def test_the_session_s_settings_hold_in_every_fragment(pool: AgentPool) -> None:
    class Tokyo(Numbers):
        def session_settings(self) -> dict[str, str]:
            return {"TimeZone": "Asia/Tokyo", "default_null_order": "nulls_first"}

    zone = "SELECT current_setting('TimeZone') AS z, x FROM (VALUES (1), (NULL)) v(x) ORDER BY x"
    graph = OperatorGraph((op("zone", zone),))
    finished = run_job(graph, pool, Tokyo(), query_id=f"q{next(_numbers)}")
    assert rows(finished) == [("Asia/Tokyo", None), ("Asia/Tokyo", 1)]
    finished = run(pool, OperatorGraph((op("zone", "SELECT current_setting('TimeZone') AS z"),)))
    assert rows(finished) != [("Asia/Tokyo",)]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_in_a_fragment_is_the_user_s_and_the_pool_goes_on(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            op("source", "SELECT CASE WHEN i = 77 THEN 'x' ELSE '1' END AS v FROM t", 2, scans=SCAN),
            op("cast", "SELECT v::INT AS v FROM e1", 2),
        ),
        (ShuffleEdge("e1", "source", "cast", REBALANCE),),
    )
    with pytest.raises(ValueFailure, match="Could not convert string 'x'") as caught:
        run(pool, graph)
    assert caught.value.code == "CONVERSION_FAILED"
    assert sorted(rows(run(pool, hash_group()))) == EXPECTED_SUMS
    _assert_memory_is_free(pool)


def test_columns_that_repeat_a_name_are_refused(pool: AgentPool) -> None:
    with pytest.raises(AgentError) as caught:
        run(pool, OperatorGraph((op("bad", "SELECT 1 AS a, 2 AS a"),)))
    assert "repeat" in (caught.value.remote_message or "")


def test_a_fragment_that_does_not_bind_is_no_user_error(pool: AgentPool) -> None:
    with pytest.raises(AgentError) as caught:
        run(pool, OperatorGraph((op("bad", "SELECT nothing FROM nowhere"),)))
    assert (caught.value.stage, caught.value.task) == ("bad", 0)
    assert "nowhere" in (caught.value.remote_message or "")


def test_agents_may_read_declared_files_only(process_pool: AgentPool, tmp_path: Path) -> None:
    (tmp_path / "declared.csv").write_text("a\n1\n")
    (tmp_path / "secret.csv").write_text("a\n2\n")

    class Files(Numbers):
        def paths(self) -> tuple[str, ...]:
            return (str(tmp_path / "declared.csv"),)

    def read(name: str) -> list[tuple[Any, ...]]:
        graph = OperatorGraph((op("read", f"SELECT a FROM read_csv('{tmp_path / name}')"),))
        return rows(run_job(graph, process_pool, Files(), query_id=f"q{next(_numbers)}"))

    assert read("declared.csv") == [(1,)]
    with pytest.raises(SabotSQLError, match="disabled by configuration"):
        read("secret.csv")
    for file in ("declared.csv", "secret.csv"):
        (tmp_path / file).unlink()


@pytest.mark.parametrize("statement", ["SET threads = 3", "ATTACH 'x.db' AS x", "SET enable_external_access = true"])
def test_fragments_cannot_change_an_agent(process_pool: AgentPool, statement: str) -> None:
    with pytest.raises(SabotSQLError):
        run(process_pool, OperatorGraph((op("bad", statement),)))


def test_queries_of_several_threads_share_the_agents(pool: AgentPool) -> None:
    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda _: sorted(rows(run(pool, hash_group()))), range(12)))
    assert answers == [EXPECTED_SUMS] * 12
    _assert_memory_is_free(pool)


def test_cancelling_one_query_leaves_the_others_alone(pool: AgentPool) -> None:
    switch = Switch()
    with ThreadPoolExecutor(2) as executor:
        doomed = executor.submit(run, pool, OperatorGraph((op("forever", FOREVER, 2),)), cancel=switch)
        time.sleep(0.2)
        other = executor.submit(run, pool, hash_group())
        time.sleep(0.2)
        switch.cancelled = True
        with pytest.raises(QueryCancelled):
            doomed.result(5)
        assert sorted(rows(other.result(10))) == EXPECTED_SUMS


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_cancel_ends_within_a_second_and_frees_everything(fresh_pool: AgentPool) -> None:
    switch = Switch()
    graph = OperatorGraph(
        (op("source", "SELECT i FROM t", 2, scans=SCAN), op("forever", FOREVER + " AND a.range IN (FROM e1)", 2)),
        (ShuffleEdge("e1", "source", "forever", BROADCAST),),
    )
    timer = threading.Timer(0.5, lambda: setattr(switch, "cancelled", True))
    timer.start()
    began = time.monotonic()
    with pytest.raises(QueryCancelled):
        run(fresh_pool, graph, cancel=switch)
    assert time.monotonic() - began < 1.5
    _assert_memory_is_free(fresh_pool)
    assert sorted(rows(run(fresh_pool, hash_group()))) == EXPECTED_SUMS


def test_a_deadline_ends_the_query(fresh_pool: AgentPool) -> None:
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        run_job(OperatorGraph((op("forever", FOREVER, 2),)), fresh_pool, query_id="late", deadline_ms=300)
    assert time.monotonic() - began < 1.5
    assert sorted(rows(run(fresh_pool, hash_group()))) == EXPECTED_SUMS


def test_an_interrupt_of_the_main_thread_ends_the_query(fresh_pool: AgentPool) -> None:
    timer = threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(fresh_pool, OperatorGraph((op("forever", FOREVER, 2),)))
    assert time.monotonic() - began < 1.5
    assert sorted(rows(run(fresh_pool, hash_group()))) == EXPECTED_SUMS


# --- lost segments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_damaged_segment_is_computed_again(isolation: str, tmp_path: Path) -> None:
    small = budget("64MiB", isolation=isolation)
    config = parse_config(agents=2, isolation=isolation, memory_limit=small, threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    pad = "repeat('x', 200) AS pad"
    graph = OperatorGraph(
        (
            op("first", "SELECT 1 AS n"),
            op("source", f"SELECT i % 10 AS k, i AS v, {pad} FROM t", 2, scans=SCAN),
            op("slow", "SELECT count(*) AS n FROM e0, range(1_500_000_000) r WHERE r.range = n"),
            op("sums", "SELECT k, count(*) AS n, max(length(pad)) AS m FROM e1 GROUP BY k", 2, start_after=("slow",)),
            op("sink", "SELECT k, n, m FROM e2 WHERE (SELECT count(*) FROM e3) = 1"),
        ),
        (
            ShuffleEdge("e0", "first", "slow", REBALANCE, columns=("n",)),
            ShuffleEdge("e1", "source", "sums", HASH, keys=("k",), partitions=8, columns=("k", "pad")),
            ShuffleEdge("e2", "sums", "sink", REBALANCE),
            ShuffleEdge("e3", "slow", "sink", REBALANCE),
        ),
    )
    damaged: list[Path] = []

    def damage(snapshot: dict[str, Any]) -> None:
        states = {stage["id"]: stage["state"] for stage in snapshot["stages"]}
        if states["source"] == "finished" and not damaged:
            for file in tmp_path.rglob("segments/**/*"):
                if file.is_file() and file.stat().st_size:
                    data = bytearray(file.read_bytes())
                    for position in range(0, len(data), 1024):
                        data[position] ^= 1
                    file.write_bytes(data)
                    damaged.append(file)

    with start_agents(config, connection.main) as pool:
        finished = run(pool, graph, 200_000, observer=damage)
        assert damaged
        assert finished.stats["retries"] >= 1
        attempts = [t["attempt"] for s in finished.plan["stages"] if s["id"] == "source" for t in s["tasks"]]
        assert max(attempts) >= 1
        assert sorted(rows(finished)) == [(k, 20_000, 200) for k in range(10)]
    connection.close()


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_killed_agent_s_task_runs_on_another(process_pool: AgentPool) -> None:
    victim = process_pool.agents[0]
    assert isinstance(victim, ProcessAgent)
    slow = "SELECT k, count(*) AS n FROM e1, range(200_000_000) r WHERE r.range % 200_000_000 = k GROUP BY k"
    graph = OperatorGraph(
        (
            op("source", "SELECT i % 10 AS k, i AS v FROM t", 4, scans=SCAN),
            op("slow", slow, 2),
        ),
        (ShuffleEdge("e1", "source", "slow", HASH, keys=("k",), partitions=4),),
    )
    undisturbed = run(process_pool, graph)
    expected = sorted(rows(undisturbed))
    killed_at: list[float] = []

    def kill(snapshot: dict[str, Any]) -> None:
        running = [t for s in snapshot["stages"] if s["id"] == "slow" for t in s["tasks"] if t["state"] == "running"]
        if running and not killed_at and victim.alive:
            killed_at.append(time.monotonic())
            os.kill(victim.process_id, signal.SIGKILL)

    finished = run(process_pool, graph, observer=kill)
    assert killed_at
    assert finished.stats["retries"] >= 1
    tasks = [t for s in finished.plan["stages"] if s["id"] == "source" for t in s["tasks"]]
    assert all(t["attempt"] == 0 for t in tasks), "what was committed is not computed again"
    assert sorted(rows(finished)) == expected
    assert victim.agent_id not in {agent.agent_id for agent in process_pool.agents}
    assert sorted(rows(run(process_pool, hash_group()))) == EXPECTED_SUMS


def test_an_agent_killed_between_queries_is_replaced(process_pool: AgentPool) -> None:
    for agent in process_pool.agents:
        assert isinstance(agent, ProcessAgent)
        os.kill(agent.process_id, signal.SIGKILL)
    deadline = time.monotonic() + 1
    while process_pool.agents and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process_pool.agents == (), "a dead agent is noticed within a second"
    process_pool.heal()
    assert sorted(rows(run(process_pool, hash_group()))) == EXPECTED_SUMS


def test_a_stopped_agent_loses_its_lease(process_pool: AgentPool) -> None:
    victim = process_pool.agents[1]
    assert isinstance(victim, ProcessAgent)
    began = time.monotonic()
    os.kill(victim.process_id, signal.SIGSTOP)
    assert sorted(rows(run(process_pool, hash_group()))) == EXPECTED_SUMS
    assert time.monotonic() - began < 9
    assert not victim.alive


def test_an_agent_that_ignores_a_cancel_is_ended(process_pool: AgentPool) -> None:
    victim = process_pool.agents[0]
    assert isinstance(victim, ProcessAgent)
    timer = threading.Timer(0.3, lambda: os.kill(victim.process_id, signal.SIGSTOP))
    timer.start()
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        run_job(OperatorGraph((op("forever", FOREVER, 2),)), process_pool, query_id="stuck", deadline_ms=600)
    assert time.monotonic() - began < 2.5
    process_pool.heal()
    assert sorted(rows(run(process_pool, hash_group()))) == EXPECTED_SUMS


def test_closing_a_pool_ends_its_processes(tmp_path: Path) -> None:
    config = parse_config(agents=2, isolation="process", memory_limit="512MiB", threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    with start_agents(config, connection.main) as pool:
        process_ids = [agent.process_id for agent in pool.agents if isinstance(agent, ProcessAgent)]
        assert all(Path(f"/proc/{process_id}").exists() for process_id in process_ids)
    assert not any(Path(f"/proc/{process_id}").exists() for process_id in process_ids)
    connection.close()


def test_progress_is_observed_and_ends_finished(pool: AgentPool) -> None:
    seen: list[dict[str, Any]] = []
    finished = run(pool, hash_group(), observer=seen.append)
    assert seen[-1]["state"] == "finished"
    assert [(s["id"], s["state"], len(s["tasks"])) for s in seen[-1]["stages"]] == [
        ("source", "finished", 4),
        ("sums", "finished", 3),
    ]
    edge, result = seen[-1]["edges"]
    assert (edge["type"], edge["rows"], sum(edge["partition_rows"])) == ("HASH", 10_000, 10_000)
    assert (result["target"], result["rows"]) == ("result", 10)
    assert finished.stats["rows_shuffled"] == 10_000
    finished.release()


def _assert_memory_is_free(pool: AgentPool) -> None:
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if all(a.metrics()["segments"] == 0 for a in (*pool.agents, pool.session_agent)):
            return
        time.sleep(0.02)
    raise AssertionError({a.agent_id: a.metrics() for a in (*pool.agents, pool.session_agent)})
