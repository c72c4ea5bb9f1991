"""A LIMIT ends its producers once the first of them have enough rows: the rest is skipped, or overtaken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_sql
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.protocol.task_spec import FailureKind
from tests.runtime.simulated import Simulation


def first_rows(wanted: int | None) -> OperatorGraph:
    """search ×6 ──▶ first"""
    return OperatorGraph(
        (
            Operator("search", OperatorType.SORT, "SELECT 1 AS k", 6, first_rows=wanted),
            Operator("first", OperatorType.SORT, "FROM e1"),
        ),
        (ShuffleEdge("e1", "search", "first", ShuffleEdgeType.REBALANCE),),
    )


def simulation(wanted: int | None, rows: dict[int, int], *, adaptive: bool = True) -> Simulation:
    controller = DBOSParallelController(0, 0) if adaptive else None
    return Simulation(
        first_rows(wanted), controller=controller, rows=lambda edge, task: rows.get(task, 0) if edge == "e1" else 1
    )


def test_tasks_after_the_first_ones_with_enough_rows_are_not_started() -> None:
    run = simulation(10, {0: 4, 1: 6})
    run.finish("search_0")
    assert set(run.running) == {"search_1", "search_2"}
    run.finish("search_1")
    assert "first_0" in run.running, "the reader starts while a task that is not needed still runs"
    read = run.running["first_0"].inputs["e1"]
    assert read.producers == (0, 1)
    run.finish("first_0")
    assert run.finished
    assert {c.id.task for c in run.started if c.id.stage == "search"} == {0, 1, 2}
    assert run.execution.runs["search"].reads.reason.endswith("4 of them not needed: the first 2 have 10 rows")


def test_rows_of_later_tasks_do_not_end_the_earlier_ones() -> None:
    run = simulation(10, {0: 0, 1: 1000, 3: 1000})
    run.finish("search_1")
    run.finish("search_3")
    assert "first_0" not in run.running
    run.finish("search_0")
    assert "first_0" in run.running
    assert run.running["first_0"].inputs["e1"].producers == (1, 3)


@pytest.mark.parametrize(("wanted", "adaptive"), [(None, True), (10, False), (10**6, True)])
def test_all_tasks_run_where_all_are_needed(wanted: int | None, adaptive: bool) -> None:
    run = simulation(wanted, dict.fromkeys(range(6), 100), adaptive=adaptive)
    run.finish_all()
    assert run.finished
    assert {c.id.task for c in run.started if c.id.stage == "search"} == set(range(6))


def test_the_answer_of_an_overtaken_task_counts_for_nothing() -> None:
    run = simulation(10, {0: 10, 1: 10})
    late = run.running["search_1"]
    run.finish("search_0")
    run.tell(run.report(late))
    assert run.execution.shuffles.edge("e1").outputs[1].rows == 0
    run.fail("search_1", FailureKind.INTERNAL)
    assert run.error is None
    run.finish("first_0")
    assert run.finished


def test_a_lost_output_of_a_needed_task_is_written_again() -> None:
    run = simulation(10, {0: 10})
    run.finish("search_0")
    run.finish("search_1")
    run.fail("first_0", FailureKind.LOST_INPUT, [("e1", 0)])
    run.finish_all()
    assert run.finished
    assert [c.id.task for c in run.started if c.id.stage == "search"].count(0) == 2


# --- on agents --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two million rows in 17 row groups."""
    made = tmp_path_factory.mktemp("limit") / "t.parquet"
    duckdb.sql(f"COPY (SELECT i, hash(i) % 1000 AS h FROM range(2000000) r(i)) TO '{made}'")
    return made


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize(
    ("clauses", "most_tasks"),
    [
        ("WHERE h = 7 LIMIT 10", 3),
        ("WHERE h = 7 LIMIT 500 OFFSET 300", 6),
        ("WHERE i > 1500000 LIMIT 3", 8),
        ("WHERE h = 7 AND hash(i) = 1 LIMIT 5", 8),
        ("LIMIT 20", 2),
    ],
)
def test_the_first_rows_are_those_of_duckdb(file: Path, isolation: Any, clauses: str, most_tasks: int) -> None:
    sql = f"SELECT i, h FROM '{file}' {clauses}"
    tasks_run = []
    with sabot_sql.connect(agents=2, isolation=isolation) as session:
        for _ in range(5):
            result = session.query(sql)
            assert result.plan.json()["mode"] == "distributed"
            assert result.fetchall() == duckdb.sql(sql).fetchall()
            search = result.plan.json()["stages"][0]
            tasks_run.append(sum(task["state"] != "skipped" for task in search["tasks"]))
        # While the machine lets one agent wait, the other runs tasks that turn out not to be needed.
        assert min(tasks_run) <= most_tasks
        # The agents are free for the next query, also where a task was overtaken.
        assert (
            session.query(f"SELECT count(*), sum(h) FROM '{file}'").fetchall()
            == duckdb.sql(f"SELECT count(*), sum(h) FROM '{file}'").fetchall()
        )
