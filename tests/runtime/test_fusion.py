"""A stage of one task and its reader become one task where little is read, and stay apart where that would be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

import sabot_sql
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Placement, ScanInput, ShuffleEdgeType
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.fragments import task_spec
from sabot_sql.coordinator.no_sources import NoSources
from sabot_sql.errors import ResourceError
from sabot_sql.protocol.task_spec import FailureKind
from tests.runtime.simulated import Rows, Simulation
from tests.runtime.test_coordinator_execution import edge, op

HASH, RANGE = ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE
BROADCAST, REBALANCE, FORWARD = ShuffleEdgeType.BROADCAST, ShuffleEdgeType.REBALANCE, ShuffleEdgeType.FORWARD


def grouped_and_sorted(**sort: object) -> OperatorGraph:
    """source ×2 ──HASH e1──▶ group ×2 ──RANGE e2──▶ sort ×2"""
    return OperatorGraph(
        (op("source", 2), op("group", 2, "SELECT k, v, h FROM e1"), op("sort", 2, "SELECT k FROM e2", **sort)),
        (
            edge("e1", "source", "group", HASH, partition_by="h", partitions=8),
            edge("e2", "group", "sort", RANGE, partition_by="h", bounds_partitions=2),
        ),
        ordered=True,
    )


def scan(source: str) -> ScanInput:
    return ScanInput("scan_0", source, ("k",))


def run(graph: OperatorGraph, rows: Rows = lambda edge, task: 1000) -> Simulation:
    return Simulation(graph, controller=DBOSParallelController(), rows=rows)


def stages(simulation: Simulation) -> list[str]:
    simulation.finish_all()
    assert simulation.finished
    assert simulation.error is None
    return list(dict.fromkeys(command.id.stage for command in simulation.started))


def test_one_task_groups_and_sorts_a_few_rows() -> None:
    found = run(grouped_and_sorted())
    assert stages(found) == ["source", "sort"]
    (both,) = [command for command in found.started if command.id.stage == "sort"]
    assert list(both.inputs) == ["e1"]
    assert (both.inputs["e1"].first, both.inputs["e1"].last) == (0, 8)
    fragment = task_spec(both, NoSources(), None).fragment
    assert (fragment.sql, [(name, inner.sql) for name, inner in fragment.chained]) == (
        "SELECT k FROM e2",
        [("e2", "SELECT k, v, h FROM e1")],
    )
    assert found.released == ["e1"]
    assert found.execution.decisions["e2"] == "little is read: one task computes both ends"


def test_many_rows_are_grouped_and_sorted_apart() -> None:
    found = run(grouped_and_sorted(), rows=lambda edge, task: 100_000)
    assert stages(found) == ["source", "group", "sort"]


def test_three_stages_in_a_row_become_one() -> None:
    graph = grouped_and_sorted()
    graph = OperatorGraph(
        (*graph.operators, op("last", 1, "SELECT k FROM e3")), (*graph.edges, edge("e3", "sort", "last", REBALANCE))
    )
    assert stages(run(graph)) == ["source", "last"]


def test_a_stage_that_reads_nothing_but_a_source_is_left_alone() -> None:
    graph = OperatorGraph(
        (op("source", 1, scans=(scan("s"),)), op("sink", 2, "SELECT k FROM e1")),
        (edge("e1", "source", "sink", BROADCAST),),
    )
    assert stages(run(graph)) == ["source", "sink"]


@pytest.mark.parametrize(
    "reason", ["reads it twice", "reads slices", "in the session", "reads more", "waits", "has states", "is followed"]
)
def test_what_must_stay_apart_does(reason: str) -> None:
    graph = grouped_and_sorted()
    source, group, sort = graph.operators
    operators, edges = [source, group, sort], list(graph.edges)
    match reason:
        case "reads it twice":
            operators[2] = replace(sort, sql="SELECT k FROM e2 UNION ALL SELECT k FROM e2")
        case "reads slices":
            operators[2] = replace(sort, scans=(scan("s"),))
        case "in the session":
            operators[2] = replace(sort, placement=Placement.SESSION)
        case "reads more":
            operators.append(op("other", 2))
            edges.append(edge("e3", "other", "sort", BROADCAST))
        case "waits":
            operators.append(op("other", 2))
            operators[2] = replace(sort, start_after=("other",))
            edges.append(edge("e3", "other", "sort", BROADCAST))
        case "has states":
            operators[1] = replace(group, sql="SELECT k, avg(v) EXPORT_STATE AS v, h FROM e1", exports_states=True)
        case "is followed":
            operators.append(op("last", 2, "SELECT k FROM e3 JOIN e4"))
            edges += [edge("e3", "sort", "last", FORWARD), edge("e4", "sort", "last", BROADCAST)]
            graph = replace(graph, sink="last", ordered=False)
    rows = {"e3": 1_000_000} if reason == "reads more" else {}
    found = run(replace(graph, operators=tuple(operators), edges=tuple(edges)), lambda name, _: rows.get(name, 1000))
    assert "group" in stages(found)


def test_planned_parallelism_stands_without_adaptivity() -> None:
    assert stages(Simulation(grouped_and_sorted())) == ["source", "group", "sort"]


def test_one_task_for_all_rows_is_never_dealt_out_when_memory_runs_out() -> None:
    """Bucket by bucket, a sort would sort each bucket by itself."""
    found = run(grouped_and_sorted())
    found.finish("source_0")
    found.finish("source_1")
    found.fail("sort_0", FailureKind.RESOURCE, error=ResourceError("full", code="OUT_OF_MEMORY"))
    assert list(found.running) == ["sort_0"]
    assert stages(found) == ["source", "sort"]


def test_a_lost_input_runs_again_and_then_the_fused_task() -> None:
    found = run(grouped_and_sorted())
    found.finish("source_0")
    found.finish("source_1")
    found.fail("sort_0", FailureKind.LOST_INPUT, lost=[("e1", 1)])
    assert list(found.running) == ["source_1"]
    assert stages(found) == ["source", "sort"]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_rows_are_duckdbs(isolation: str) -> None:
    with sabot_sql.connect(agents=2, isolation=isolation) as session:  # type: ignore[arg-type]
        session.execute("CREATE TABLE t AS SELECT range % 7 AS k, range AS v FROM range(60_000)")
        result = session.query("SELECT k, count(*), avg(v) FROM t GROUP BY k ORDER BY k DESC")
        plan = result.plan.json()
        rows = result.fetchall()
    assert rows[0] == (6, 8571, 30001.0)
    assert [row[0] for row in rows] == [6, 5, 4, 3, 2, 1, 0]
    assert "little is read" in " ".join(found["reason"] for found in plan["edges"])
