"""The fragment of a task: its stage's SQL with the slices and edges that this task reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sabot_sql.coordinator.chained_stages import chained_inputs
from sabot_sql.coordinator.messages import StartTask
from sabot_sql.protocol.task_spec import FileSink, Fragment, ScanBinding, TaskSpec

if TYPE_CHECKING:
    from sabot_sql.catalog.sources import SourceBinder


def task_spec(
    command: StartTask, sources: SourceBinder, deadline_ms: int | None, sink: FileSink | None = None
) -> TaskSpec:
    """What the agent of ``command`` is asked to do; the tasks of the last stage write the files of ``sink``."""
    fragment = _fragment(command, command.stage.stage_id, sources)
    last = command.stage.stage_id == command.graph.sink
    return TaskSpec(command.id, fragment, command.outputs, deadline_ms, sink if last else None)


def _fragment(command: StartTask, operator_id: str, sources: SourceBinder) -> Fragment:
    node = command.graph.operator(operator_id)
    chained = chained_inputs(command.graph, operator_id, command.stage.operators)
    inner = {edge.edge_id for edge in chained}
    scans = []
    for scan in node.scans:
        index, count = (command.id.task, command.parallelism) if scan.sliced else (0, 1)
        if scan.split is None:
            binding = sources.bind_slice(scan.source_id, index, count)
        else:
            binding = sources.bind_range(scan.source_id, scan.split, *scan.split.share(index, count))
        registrations = dict(binding.registrations)
        scans.append(
            ScanBinding(
                scan.name,
                scan.columns,
                binding.sql,
                binding.spans,
                scan.sliced,
                registrations,
                sources.in_session(scan.source_id),
            )
        )
    return Fragment(
        node.sql,
        tuple(scans),
        tuple(command.inputs[e.edge_id] for e in command.graph.inputs_of(operator_id) if e.edge_id not in inner),
        tuple((edge.input_name, _fragment(command, edge.source, sources)) for edge in chained),
        {node.function: sources.function(node.function)} if node.function else {},
    )
