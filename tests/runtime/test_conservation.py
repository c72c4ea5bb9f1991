"""Each row exactly once, however a stage is cut anew while it runs; and a stage that is not, ends the query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import (
    Operator,
    OperatorType,
    RangeSplit,
    ScanInput,
    ShuffleEdge,
    ShuffleEdgeType,
)
from sabot_sql.coordinator.conservation import ROWS_NOT_CONSERVED, spans_fault
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.exchange_rules import Read
from sabot_sql.coordinator.messages import StartTask
from sabot_sql.coordinator.stage_run import Finished, Running
from sabot_sql.errors import InternalError, ResourceError
from sabot_sql.protocol.task_spec import FailureKind, OutputReport, Span
from tests.runtime.simulated import Simulation

HASH, RANGE, BROADCAST = ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE, ShuffleEdgeType.BROADCAST
FORWARD, REBALANCE = ShuffleEdgeType.FORWARD, ShuffleEdgeType.REBALANCE
SPLITS = [None, RangeSplit("k", ("10",)), RangeSplit("k", tuple(map(str, range(1, 40))))]


def op(name: str, tasks: int, **more: Any) -> Operator:
    return Operator(name, OperatorType.MAP, f"SELECT * FROM {name}", tasks, **more)


def scan(split: RangeSplit | None = None, *, sliced: bool = True) -> ScanInput:
    return ScanInput("scan_0" if sliced else "scan_1", "t", ("k",), sliced, split if sliced else None)


def hashed(name: str, source: str, target: str, **more: Any) -> ShuffleEdge:
    return ShuffleEdge(name, source, target, HASH, ("k",), partition_by="h", partitions=8, **more)


def join(tasks: int, split: RangeSplit | None) -> OperatorGraph:
    """Two scans are hashed and joined, beside a copied one; then sorted over ranges."""
    return OperatorGraph(
        (
            op("probe", tasks, scans=(scan(split), scan(sliced=False))),
            op("build", tasks, scans=(scan(split),)),
            op("small", 1, scans=(scan(),)),
            op("join", tasks, key_by=("k",)),
            op("sort", tasks),
        ),
        (
            hashed("e1", "probe", "join", splittable=True),
            hashed("e2", "build", "join"),
            ShuffleEdge("e3", "small", "join", BROADCAST),
            ShuffleEdge("e4", "join", "sort", RANGE, partition_by="h", bounds_partitions=tasks + 2),
        ),
    )


def first_rows(tasks: int, split: RangeSplit | None) -> OperatorGraph:
    """A LIMIT with tasks to spare."""
    return OperatorGraph(
        (op("search", tasks * 3, scans=(scan(split),), first_rows=1500), op("sink", 1)),
        (ShuffleEdge("e1", "search", "sink", REBALANCE),),
    )


def forward(tasks: int, split: RangeSplit | None) -> OperatorGraph:
    """A slice beside what another stage gives task by task, dealt round."""
    return OperatorGraph(
        (op("source", tasks, scans=(scan(split),)), op("next", tasks, scans=(scan(split),)), op("sink", tasks)),
        (ShuffleEdge("e1", "source", "next", FORWARD), ShuffleEdge("e2", "next", "sink", REBALANCE, partitions=5)),
    )


GRAPHS = {"join": join, "first rows": first_rows, "forward": forward}


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_cut_anew_each_row_is_read_once(kind: str, data: st.DataObject) -> None:
    """Out-of-memory retries, coalescing, splits of heavy partitions, ranges, LIMIT and lost agents, in any order."""
    graph = GRAPHS[kind](data.draw(st.integers(1, 4)), data.draw(st.sampled_from(SPLITS)))
    controller = data.draw(
        st.sampled_from([None, DBOSParallelController(0, 0, 0), DBOSParallelController(100_000, 200_000, 10)])
    )
    run = Simulation(graph, agents=data.draw(st.integers(1, 3)), controller=controller)
    run.skew = data.draw(st.sampled_from([{}, {"e1": 3}, {"e2": 3}, {"e1": 2, "e2": 5}]))
    overtaken: list[StartTask] = []
    while (run.running or run.splits or overtaken) and not (run.finished or run.error):
        if run.splits:
            run.split(run.splits[0])
        elif overtaken and (not run.running or data.draw(st.booleans())):
            run.tell(run.report(overtaken.pop()))
        else:
            task = data.draw(st.sampled_from(sorted(run.running)))
            if data.draw(st.integers(0, 5)):
                run.finish(task)
                continue
            before = dict(run.running)
            run.fail(task, FailureKind.RESOURCE, error=ResourceError("out of memory", code="OUT_OF_MEMORY"))
            for name, command in before.items():
                if name != task and not is_current(run, command):
                    overtaken.append(command)
                    if run.running.get(name) is command:
                        del run.running[name]
    assert run.finished or isinstance(run.error, ResourceError), run.error
    if run.finished:
        for stage in run.execution.runs.values():
            rows = [t.state.report.rows_in for t in stage.tasks if isinstance(t.state, Finished)]
            edges = [run.execution.shuffles.edge(e.edge_id) for e in stage.stage.inputs]
            exact = [e for e in stage.stage.inputs if e.edge_type not in (BROADCAST, HASH)]
            if len(exact) == len(edges):
                assert sum(rows) == sum(e.measured.rows for e in edges if e.measured is not None)


def is_current(run: Simulation, command: StartTask) -> bool:
    tasks = run.execution.runs[command.id.stage].tasks
    return command.id.task < len(tasks) and tasks[command.id.task].is_current(command.id.attempt, command.agent_id)


@pytest.mark.parametrize(
    ("slices", "whole"),
    [
        ([[Span()]], True),
        ([[], [Span()], []], True),
        ([[Span(None, "1")], [], [Span("1", "2"), Span("2", "7")], [Span("7", None)]], True),
        ([[Span(None, "1")], None, [Span("5", None)]], True),
        ([[Span(None, "1")], None], True),
        ([], False),
        ([[], []], False),
        ([[Span(None, "1")], [Span("1", "2")]], False),
        ([[Span(None, "1")], [Span("2", None)]], False),
        ([[Span("1", None)], [Span(None, "1")]], False),
        ([[Span(None, "9")], [Span(None, "9")], [Span("9", None)]], False),
        ([[Span()], [Span()]], False),
        ([[Span(None, "1")], [Span("1", None)], [Span("1", None)]], False),
        ([[Span(None, "1")], None, [Span("1", None)], [Span("1", None)]], False),
        ([[Span(None, "1")], None, [Span(None, "1")]], False),
    ],
)
def test_spans_share_out_a_source_or_do_not(slices: list[list[Span] | None], whole: bool) -> None:
    assert (spans_fault(slices) is None) is whole


def not_conserved(run: Simulation) -> bool:
    return isinstance(run.error, InternalError) and run.error.code == ROWS_NOT_CONSERVED


def test_a_slice_of_another_cut_ends_the_query() -> None:
    run = Simulation(join(2, None))
    wrong = run.report(replace(run.running["probe_1"], parallelism=4))
    run.finish("probe_0")
    assert run.error is None
    run.running.pop("probe_1")
    run.tell(wrong)
    assert not_conserved(run)
    assert run.error is not None
    assert "scan_0" in run.error.message


def test_a_part_of_a_source_that_all_have_to_read_ends_the_query() -> None:
    run = Simulation(join(1, None))
    report = run.report(run.running.pop("probe_0"))
    run.tell(replace(report, scans=(report.scans[0], replace(report.scans[1], spans=()))))
    assert not_conserved(run)


@pytest.mark.parametrize("rows", [-1, 1])
def test_a_task_that_reads_more_or_less_than_was_written_ends_the_query(rows: int) -> None:
    run = Simulation(join(2, None))
    while "join_0" not in run.running:
        run.finish(next(iter(run.running)))
    report = run.report(run.running.pop("join_0"))
    run.tell(replace(report, rows_in=report.rows_in + rows))
    assert not_conserved(run)


def test_outputs_of_different_lengths_end_the_query() -> None:
    run = Simulation(join(1, None))
    report = run.report(run.running.pop("probe_0"))
    (output,) = report.outputs
    longer = replace(output, rows=output.rows + 1)
    run.tell(replace(report, outputs=(longer,)))
    assert not_conserved(run)


def test_ranges_that_are_not_the_rows_of_their_sample_end_the_query() -> None:
    run = Simulation(join(2, None), rows=lambda edge, task: 5000)
    while not run.splits:
        run.finish(next(iter(run.running)))
    report = run.split_report(run.splits[0])
    short = report.output.partition_rows
    fewer = OutputReport(report.output.edge_id, report.agent_id, b"", report.output.rows, 0, 0, (*short[:-1], 0))
    run.tell(replace(report, output=fewer))
    assert not_conserved(run)


@pytest.mark.parametrize(
    ("edge", "wrong"),
    [
        ("e1", lambda read: replace(read, last=read.last - 1)),
        ("e1", lambda read: replace(read, first=0, last=8)),
        ("e2", lambda read: replace(read, producers=read.producers[:1])),
        ("e3", lambda read: Read(read.producers, 0, 0)),
    ],
    ids=["a bucket is left out", "buckets are read twice", "a producer is left out", "a copy is left out"],
)
def test_partitions_that_are_not_shared_out_end_the_query(
    edge: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's reads are changed under it, as a wrong cut would."""
    run = Simulation(join(2, None))
    while "join_0" not in run.running:
        run.finish(next(iter(run.running)))
    state = run.execution.state
    join_run = state.runs["join"]
    given = join_run.tasks[0].state
    assert isinstance(given, Running)
    changed = replace(given, reads={**given.reads, edge: wrong(given.reads[edge])})
    tasks = (replace(join_run.tasks[0], state=changed), *join_run.tasks[1:])
    monkeypatch.setitem(state.runs, "join", replace(join_run, tasks=tasks))
    monkeypatch.setattr(run.execution, "validate", lambda: None)
    Simulation.made.remove(run)  # what no event did is in no journal
    run.finish("join_0")
    run.finish("join_1")
    assert not_conserved(run)


def test_an_out_of_memory_retry_does_not_ask_for_more_tasks_than_there_are_ranges_of_values() -> None:
    run = Simulation(join(2, SPLITS[1]))
    run.fail("probe_0", FailureKind.RESOURCE, error=ResourceError("out of memory", code="OUT_OF_MEMORY"))
    assert run.execution.runs["probe"].reads.parallelism == 2
    assert isinstance(run.error, ResourceError)
