"""A LIMIT stops the tasks that it no longer needs: those after the first ones that have enough rows together.

Which rows a LIMIT without an order takes is not free, they are the first of the source. So it is not any tasks with
enough rows that end a stage, but a run of tasks from the first one on.
"""

from __future__ import annotations

from dataclasses import replace

from sabot_sql.coordinator.shuffle_coordinator import ShuffleCoordinator
from sabot_sql.coordinator.stage_run import Finished, StageRun
from sabot_sql.protocol.task_spec import OutputReport, TaskId, TaskReport


def skip_rest(run: StageRun, shuffles: ShuffleCoordinator, query_id: str) -> None:
    """Take the tasks after the first ones that have enough rows for done, with no rows.

    One that runs is overtaken: its answer will count for nothing, as that of an old attempt does.
    """
    wanted = run.graph.operator(run.stage.stage_id).first_rows
    if wanted is None:
        return
    rows = needed = 0
    while rows < wanted and needed < len(run.tasks):
        state = run.tasks[needed].state
        if not isinstance(state, Finished):
            return
        rows, needed = rows + state.report.outputs[0].rows, needed + 1
    rest = [record for record in run.tasks[needed:] if not isinstance(record.state, Finished)]
    for record in rest:
        first = run.tasks[0].state
        assert isinstance(first, Finished)
        outputs = tuple(map(_nothing, first.report.outputs))
        task_id = TaskId(query_id, run.stage.stage_id, record.index, record.next_attempt)
        record.next_attempt += 1
        record.skipped = True
        report = TaskReport(task_id, first.report.agent_id, first.report.columns, outputs, 0, 0.0)
        reads = {edge_id: reads[record.index] for edge_id, reads in run.reads.by_edge.items()}
        record.state = Finished(task_id.attempt, first.started_ms, report, reads)
        for output in outputs:
            shuffles.edge(output.edge_id).outputs.setdefault(record.index, output)
    if rest:
        said = f"{len(rest)} of them not needed: the first {needed} have {rows} rows"
        run.reads = replace(run.reads, reason=f"{run.reads.reason}; {said}")


def _nothing(output: OutputReport) -> OutputReport:
    """An output without rows, which nobody will read."""
    none = (0,) * len(output.partition_rows)
    return OutputReport(output.edge_id, output.agent_id, b"", 0, 0, partition_rows=none, partition_bytes=none)
