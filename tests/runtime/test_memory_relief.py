"""A task that runs out of memory: once more with less, then a typed error; the session stays usable."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

import sabot_sql
from sabot_planner.job_graph import JobGraph
from sabot_planner.operators import OperatorType, ShuffleEdge, ShuffleEdgeType, StreamOperatorNode
from sabot_sql.agent.task_spec import FailureKind
from sabot_sql.errors import ResourceError
from tests.runtime.simulated import Simulation


def group_by(buckets: int = 4) -> JobGraph:
    """source ×2 ──HASH──▶ group ×2 ──▶ sink"""
    operators = [("source", 2), ("group", 2), ("sink", 1)]
    return JobGraph(
        tuple(StreamOperatorNode(name, OperatorType.MAP, f"SELECT * FROM {name}", n) for name, n in operators),
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


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_query_for_which_memory_never_suffices(isolation: str, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    duckdb.sql(
        "COPY (SELECT range % 4 AS k, repeat('x', 500) || range AS s FROM range(200_000))"
        f" TO '{file}' (ROW_GROUP_SIZE 20_000)"
    )
    # Lists of text cannot leave memory while they are made.
    sql = f"SELECT k, length(list(s)) AS n FROM '{file}' GROUP BY k ORDER BY k"
    with sabot_sql.connect(agents=2, isolation=isolation, memory_limit="120MiB") as session:
        with pytest.raises(ResourceError) as caught:
            session.query(sql)
        assert caught.value.code == "OUT_OF_MEMORY"
        assert session.query(f"SELECT count(*) FROM '{file}' GROUP BY k").fetchall() == [(50_000,)] * 4
