"""One clock for a query, and what an observer is told while it runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql.call.clock import Clock, Phase

PHASES = ["planning_ms", "startup_ms", "running_ms", "handover_ms"]


def test_a_clock_is_in_one_phase_at_a_time() -> None:
    now = [10.0]
    clock = Clock(lambda: now[0])
    now[0] += 1
    clock.enter(Phase.STARTING)
    now[0] += 2
    with clock.spending(Phase.RUNNING):
        now[0] += 4
        assert clock.phase is Phase.RUNNING
    now[0] += 8
    clock.enter(Phase.HANDING_OVER)
    now[0] += 16
    assert clock.times_ms() == dict(zip(PHASES, [1e3, 10e3, 4e3, 16e3], strict=True))
    assert sum(clock.times_ms().values()) == clock.elapsed_ms()


@pytest.fixture
def sales(tmp_path: Path) -> str:
    path = tmp_path / "sales.parquet"
    pq.write_table(pa.table({"k": [i % 7 for i in range(40_000)], "v": range(40_000)}), path, row_group_size=5_000)
    return str(path)


@pytest.mark.parametrize("agents", [1, 2])
def test_the_phases_of_a_query_add_up_to_its_one_time(sales: str, agents: int) -> None:
    with sabot_sql.connect(agents=agents) as session:
        for sql in (f"SELECT k, sum(v) FROM '{sales}' GROUP BY k", "SELECT 1; SELECT 2"):
            result = session.query(sql)
            document = result.plan.json()
            assert list(document["times"]) == PHASES
            assert sum(document["times"].values()) == pytest.approx(document["elapsed_ms"], abs=0.01)
            assert result.stats["elapsed_ms"] == document["elapsed_ms"]
            assert document["times"]["running_ms"] > 0
        started = session.query(f"SELECT count(DISTINCT v) FROM '{sales}'").plan.json()["times"]
        assert started["planning_ms"] > 0
        assert (started["startup_ms"] > 0) is (agents == 2)


def test_a_fused_stage_says_so_and_its_edge_counts_nothing(sales: str) -> None:
    with sabot_sql.connect(agents=2) as session:
        result = session.query(f"SELECT k, sum(v) AS s FROM '{sales}' GROUP BY k ORDER BY s")
        document = result.plan.json()
    within = [edge for edge in document["edges"] if edge["within_task"]]
    assert within
    stages = {stage["id"]: stage for stage in document["stages"]}
    for edge in within:
        assert edge["rows"] is edge["bytes"] is None
        assert edge["partition_rows"] == []
        assert stages[edge["source"]]["runs_in"] in stages
        assert stages[edge["source"]]["rows"] is None
    others = [e for e in document["edges"] if e not in within and e["type"] != "FORWARD"]
    assert result.plan.shuffles == len(others)
    for edge in others:
        if edge["type"] == "HASH":
            assert len(edge["partition_agents"]) == len(edge["partition_bytes"])
            assert set(edge["partition_agents"]) <= {task["agent"] for s in stages.values() for task in s["tasks"]}


@pytest.mark.parametrize("agents", [1, 2])
def test_an_observer_is_told_of_one_agent_as_of_several(sales: str, agents: int) -> None:
    told: list[Mapping[str, Any]] = []
    inside = threading.Lock()

    def observe(document: Mapping[str, Any]) -> None:
        assert inside.acquire(blocking=False), "two threads at once"
        told.append(document)
        inside.release()

    with sabot_sql.connect(agents=agents) as session:
        sql = f"SELECT sum(a.v * b.v) AS s FROM '{sales}' a, '{sales}' b WHERE a.k <= b.k"
        result = session.query(sql, observer=observe)
    seen = len(told)
    assert seen >= 1
    assert {document["state"] for document in told} <= {"planning", "starting", "running", "finished"}
    assert "running" in {document["state"] for document in told}
    elapsed = [document["elapsed_ms"] for document in told]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] <= result.stats["elapsed_ms"]


def test_an_observer_that_raises_while_one_agent_works_ends_the_call_with_its_error() -> None:
    def observe(_: Mapping[str, Any]) -> None:
        raise RuntimeError("the observer's own")

    with sabot_sql.connect(agents=1) as session:
        sql = "SELECT count(*) FROM range(40000) a, range(40000) b WHERE a.range * b.range % 7 = 3"
        with pytest.raises(sabot_sql.SabotSQLError, match="the observer's own"):
            session.query(sql, observer=observe)
        assert session.query("SELECT 1").fetchall() == [(1,)]
