"""Limit early termination: once the first tasks of a stage have the rows that a LIMIT takes, the others are not needed.

Which rows a LIMIT without an order takes is not free, they are the first of the source. So it is not any tasks with
enough rows that end a stage, but a run of tasks from the first one on.
"""

from __future__ import annotations

from dataclasses import dataclass

from sabot_sql.coordinator.stage_run import Finished, StageRun
from sabot_sql.protocol.task_spec import OutputReport


@dataclass(frozen=True, slots=True)
class Unneeded:
    """Tasks that need not run, the empty outputs that stand for theirs, and the reason of the stage's cut with it."""

    tasks: tuple[int, ...]
    outputs: tuple[OutputReport, ...]
    reason: str


def unneeded_tasks(run: StageRun) -> Unneeded | None:
    """The tasks of ``run`` that have not committed and are not needed any more; None where there are none.

    One that runs is then overtaken: its answer will count for nothing, as that of an old attempt does.
    """
    wanted = run.graph.operator(run.stage.stage_id).first_rows
    if wanted is None:
        return None
    rows = needed = 0
    first: Finished | None = None
    while needed < len(run.tasks) and (first is None or rows < wanted):
        state = run.tasks[needed].state
        if not isinstance(state, Finished):
            return None
        first = first or state
        rows, needed = rows + state.report.outputs[0].rows, needed + 1
    rest = tuple(record.index for record in run.tasks[needed:] if not record.done)
    if first is None or not rest:
        return None
    said = f"{len(rest)} of them not needed: the first {needed} have {rows} rows"
    return Unneeded(rest, tuple(map(_nothing, first.report.outputs)), f"{run.reads.reason}; {said}")


def _nothing(output: OutputReport) -> OutputReport:
    """An output without rows, which nobody will read."""
    none = (0,) * len(output.partition_rows)
    return OutputReport(output.edge_id, output.agent_id, b"", 0, 0, partition_rows=none, partition_bytes=none)
