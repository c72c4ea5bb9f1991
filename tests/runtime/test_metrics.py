"""The registry of what was shuffled: sums over tasks and partitions, whatever is written anew."""

from __future__ import annotations

import pytest

from sabot_planner.job.plan import Mode, QueryPlan
from sabot_sql.coordinator.metrics import Figures, MetricsRegistry, shuffled
from sabot_sql.coordinator.snapshot import running_snapshot
from sabot_sql.plan_view import Plan
from sabot_sql.protocol.members import AgentLost
from tests.runtime.simulated import Simulation
from tests.runtime.test_coordinator_execution import group_by

pytestmark = pytest.mark.fast

ONE = Figures(3, 30, 2, 100, 1.5, (1, 2), (10, 20), (1, 1))
OTHER = Figures(5, 50, 2, 0, 0.25, (0, 5), (0, 50), (0, 2))


def test_tasks_and_partitions_add_up() -> None:
    registry = MetricsRegistry()
    registry.open("e", "HASH", 2)
    assert registry.edge("e") is None, "nobody has written yet"
    assert registry.to_json()["edges"]["e"]["partition_rows"] == [0, 0]
    registry.wrote("e", 0, ONE)
    registry.wrote("e", 1, OTHER)
    assert registry.edge("e") == Figures(8, 80, 4, 100, 1.75, (1, 7), (10, 70), (1, 3))
    registry.wrote("e", 1, ONE)
    assert registry.edge("e") == ONE + ONE, "another attempt takes the place of the first"
    registry.wrote_more("e", 1, OTHER)
    assert registry.edge("e") == ONE + ONE + OTHER
    registry.open("e", "HASH", 2)
    assert registry.edge("e") is None, "the stage began anew"


def test_a_split_keeps_the_rows_and_costs_twice() -> None:
    registry = MetricsRegistry()
    registry.open("e", "RANGE", 1)
    registry.wrote("e", 0, Figures(3, 30, 1, 7, 0.5, (3,), (30,), (1,)))
    registry.split("e", 0, ONE)
    assert registry.edge("e") == Figures(3, 30, 2, 107, 2.0, (1, 2), (10, 20), (1, 1))


def test_the_figures_of_several_managers_are_one() -> None:
    whole = MetricsRegistry()
    whole.open("e", "HASH", 2)
    for figures in (ONE, OTHER):
        part = MetricsRegistry()
        part.open("e", "HASH", 2)
        part.wrote("e", 0, figures)
        part.open("of another graph", "HASH", 2)
        part.wrote("of another graph", 0, figures)
        whole.absorb(part)
    assert whole.edges() == {"e": ONE + OTHER}
    assert whole.to_json()["edges"]["e"]["tasks"]["0"] == (ONE + OTHER).totals()


def test_the_result_is_not_shuffled() -> None:
    assert shuffled({"a": ONE, "result": OTHER}, without="result").rows == 3


def test_a_plan_that_runs_shows_what_was_written_so_far() -> None:
    graph = group_by()
    run = Simulation(graph)

    def edge() -> dict[str, object]:
        plan = QueryPlan(Mode.DISTRIBUTED, "", 2, graph)
        document = running_snapshot(plan, run.execution, sql="", isolation="", state="running", now_ms=1.0)
        (found,) = (edge for edge in document["edges"] if edge["id"] == "e1")
        shown["text"] = Plan(document).text()
        return found

    shown: dict[str, str] = {}
    assert edge()["rows"] is None
    run.finish("source_0")
    assert (edge()["rows"], edge()["partial"]) == (1000, True)
    assert "1,000 rows so far" in shown["text"]
    run.finish("source_1")
    assert (edge()["rows"], edge()["partial"]) == (2000, False)
    assert "2,000 rows ·" in shown["text"]


def test_what_runs_again_is_counted_once() -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.finish("source_1")
    lost = run.execution.shuffles.edge("e1").outputs[0].agent_id
    run.tell(AgentLost(lost, readable=False))
    run.finish_all()
    assert run.finished
    assert run.execution.metrics.edges()["e1"].rows == 2000
    assert sum(task["rows"] for task in run.execution.metrics.to_json()["operators"]["source"].values()) == 2000
