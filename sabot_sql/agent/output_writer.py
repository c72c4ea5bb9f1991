"""Places the rows of a task and keeps them until they are released."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import sabot_native
from sabot_sql.protocol.task_spec import EdgeOutput, OutputReport, TaskId, WriteKind, WriteScheme


class ArrowStream(Protocol):
    """Anything that exports an Arrow C stream."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class OutputWriter(Protocol):
    """Where a runner's rows go."""

    def write(
        self,
        stream: ArrowStream,
        task_id: TaskId,
        outputs: Sequence[EdgeOutput],
        cancel: sabot_native.CancelToken,
        deadline_ms: int | None,
    ) -> tuple[OutputReport, ...]:
        """Drain ``stream`` and commit all outputs, which name the columns they keep, or none and raise."""
        ...


class OwnWriter:
    """Keeps rows in a shuffle manager of this process; agents may share it."""

    def __init__(self, agent_id: str, manager: sabot_native.ShuffleManager) -> None:
        self._agent_id = agent_id
        self._manager = manager

    def write(
        self,
        stream: ArrowStream,
        task_id: TaskId,
        outputs: Sequence[EdgeOutput],
        cancel: sabot_native.CancelToken,
        deadline_ms: int | None,
    ) -> tuple[OutputReport, ...]:
        """See :class:`OutputWriter`."""
        native = [
            sabot_native.Output(
                query_id=task_id.query_id,
                edge_id=output.edge_id,
                task=task_id.task,
                attempt=task_id.attempt,
                scheme=_native_scheme(output.scheme),
                columns=output.columns,
            )
            for output in outputs
        ]
        manifests = self._manager.write_partition(stream, native, cancel=cancel, deadline_ms=deadline_ms)
        return tuple(output_report(manifest, self._agent_id) for manifest in manifests)


def output_report(manifest: sabot_native.Manifest, agent_id: str) -> OutputReport:
    """What a coordinator needs to know of an output that ``agent_id`` committed; agents may share a manager."""
    return OutputReport(
        edge_id=manifest.edge_id,
        agent_id=agent_id,
        manifest=manifest.to_bytes(),
        rows=manifest.rows,
        size_bytes=manifest.bytes,
        spilled_bytes=manifest.spilled_bytes,
        partition_rows=tuple(manifest.partition_rows),
        partition_bytes=tuple(manifest.partition_bytes),
        heavy=tuple(manifest.heavy),
        sample=tuple(manifest.sample),
        key_sketch=manifest.key_sketch,
        partition_batches=tuple(manifest.partition_batches),
        wait_ms=manifest.wait_ms,
    )


def _native_scheme(scheme: WriteScheme) -> sabot_native.Scheme:
    match scheme:
        case WriteScheme(WriteKind.HASH_COLUMN, partitions, str(column)):
            return sabot_native.Scheme.hash_column(column, partitions)
        case WriteScheme(WriteKind.HASH_COLUMNS, partitions, _, keys):
            return sabot_native.Scheme.hash_columns(keys, partitions)
        case WriteScheme(WriteKind.RANGE_COLUMN, _, str(column), _, bounds):
            return sabot_native.Scheme.range_column(column, bounds)
        case WriteScheme(WriteKind.SAMPLED, _, str(column)):
            return sabot_native.Scheme.sampled(column)
        case WriteScheme(WriteKind.ROUND_ROBIN, partitions):
            return sabot_native.Scheme.round_robin(partitions)
        case _:
            return sabot_native.Scheme.single()
