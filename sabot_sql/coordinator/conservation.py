"""Each row exactly once: proved of what the committed tasks of a stage really read and wrote, before anybody reads it.

A stage may be cut anew while it runs: into finer slices, into fewer or more tasks, at heavy partitions. Whatever was
planned then, the attempts that count have to share out

* every sliced source: their spans are one chain from its beginning to its end;
* every edge: each partition of each producer's output is read by one task. The partitions that a heavy one of another
  edge is joined with are read by all of its tasks, those of a BROADCAST edge by every task;

and a task has read as many rows of its edges as their producers wrote there, and written all of its own to each output.
What is compared are a few numbers a task: no row is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sabot_planner.job.operators import ShuffleEdgeType
from sabot_sql.coordinator.edge_book import EdgeShuffle
from sabot_sql.coordinator.exchange_rules import Read
from sabot_sql.coordinator.stage_run import Finished, Running, Skipped, StageRun
from sabot_sql.errors import InternalError
from sabot_sql.protocol.task_spec import OutputReport, Span, TaskReport

ROWS_NOT_CONSERVED = "ROWS_NOT_CONSERVED"


def check_task(report: TaskReport, given: Running) -> InternalError | None:
    """Why an attempt cannot be committed: it did not read what it was given, or its outputs differ."""
    name = f"task {report.id.stage}_{report.id.task}"
    if report.rows_in != given.rows_in:
        return _error(f"{name} read {report.rows_in} rows of its edges, which hold {given.rows_in}")
    for output in report.outputs:
        if sum(output.partition_rows) != output.rows:
            return _error(
                f"{name} wrote {output.rows} rows to {output.edge_id}: {sum(output.partition_rows)} lie there"
            )
    if len({output.rows for output in report.outputs}) > 1:
        counts = ", ".join(f"{output.rows} to {output.edge_id}" for output in report.outputs)
        return _error(f"{name} wrote unequally many rows to its outputs: {counts}")
    return None


def check_split(sampled: OutputReport, cut: OutputReport) -> InternalError | None:
    """Why a sampled output and its ranges are not the same rows."""
    if sampled.rows == cut.rows == sum(cut.partition_rows):
        return None
    return _error(f"{sampled.rows} rows of {cut.edge_id} were cut into ranges of {sum(cut.partition_rows)}")


def check_stage(run: StageRun, shuffles: Mapping[str, EdgeShuffle]) -> InternalError | None:
    """Why the tasks of a finished stage do not share out what it reads; ``shuffles`` are those of its inputs."""
    name = f"stage {run.stage.stage_id}"
    if len(run.tasks) != run.reads.parallelism or not run.finished:
        return _error(f"{name} has {len(run.tasks)} of {run.reads.parallelism} tasks, or not all of them committed")
    fault = _scans_fault(run) or _edges_fault(run, shuffles)
    return None if fault is None else _error(f"the tasks of {name} {fault}")


def spans_fault(slices: Iterable[Sequence[Span] | None]) -> str | None:
    """How slices in task order fail to be a source in its order; a slice that was not needed is None."""
    at: str | None = None
    begun = gap = False
    passed: set[str] = set()
    for spans in slices:
        if spans is None:
            gap = True
            continue
        for span in spans:
            if begun and at is None:
                return f"read beyond its end, from {_place(span.low)}"
            if span.low != at and not (gap and span.low is not None and span.low not in passed):
                return f"read from {_place(span.low)} after they came to {_place(at)}"
            at, begun, gap = span.high, True, False
            passed |= {place for place in (span.low, span.high) if place is not None}
    return None if gap or (begun and at is None) else f"end at {_place(at)}"


def _scans_fault(run: StageRun) -> str | None:
    reads = [task.state.report.scans for task in run.tasks if isinstance(task.state, Finished)]
    for scans in zip_longest(*reads):
        if None in scans or len({(scan.name, scan.sliced) for scan in scans}) != 1:
            return "do not read the same sources"
        if not scans[0].sliced:
            if any(scan.spans != (Span(),) for scan in scans):
                return f"read only parts of {scans[0].name}, each of which should have read all of it"
            continue
        spans = iter(scan.spans for scan in scans)
        fault = spans_fault(next(spans) if isinstance(task.state, Finished) else None for task in run.tasks)
        if fault is not None:
            return f"do not share out {scans[0].name}: they {fault}"
    return None


def _edges_fault(run: StageRun, shuffles: Mapping[str, EdgeShuffle]) -> str | None:
    times: dict[str, _TimesRead] = {}
    for edge in run.stage.inputs:
        reads = [task.state.reads[edge.edge_id] for task in run.tasks if isinstance(task.state, Finished | Skipped)]
        times[edge.edge_id] = _times_read(reads, shuffles[edge.edge_id])
    hashed = [edge for edge in run.stage.inputs if edge.edge_type is ShuffleEdgeType.HASH]
    for edge in run.stage.inputs:
        read = times[edge.edge_id]
        due = [1] * read.partitions
        if edge.edge_type is ShuffleEdgeType.BROADCAST:
            due = [len(run.tasks)] * read.partitions
        dealt = [times[other.edge_id] for other in hashed if other is not edge and other.splittable]
        for partition, tasks in enumerate(read.tasks) if edge in hashed else ():
            # Tasks that share out one side of a join by its producers each read all of the other side.
            if tasks > 1 and any(other.is_dealt(partition, tasks) for other in dealt):
                due[partition] = tasks if not (edge.splittable and read.is_dealt(partition, tasks)) else 1
        fault = read.fault(due)
        if fault is not None:
            return f"do not share out {edge.edge_id}: they {fault}"
    return None


@dataclass(frozen=True, slots=True)
class _TimesRead:
    """How many tasks read each partition of each producer's output; ``tasks`` counts those that read any of it."""

    partitions: int
    by_producer: Mapping[int, Sequence[int]]
    tasks: Sequence[int]
    rows: Mapping[int, Sequence[int]]
    """Producer → rows of its partitions, where its output is still there. What has no rows may be left out."""

    def is_dealt(self, partition: int, tasks: int) -> bool:
        """Whether ``tasks`` tasks share the partition out by its producers."""
        return self.tasks[partition] == tasks and all(
            times[partition] == 1 or self._is_empty(producer, partition) for producer, times in self.by_producer.items()
        )

    def fault(self, due: Sequence[int]) -> str | None:
        """Where the times differ from what is ``due``, by partition."""
        for producer, times in self.by_producer.items():
            if times == due:
                continue
            for partition, (read, wanted) in enumerate(zip(times, due, strict=True)):
                if read != wanted and not self._is_empty(producer, partition):
                    return f"read partition {partition} of task {producer} {read} times, not {wanted}"
        return None

    def _is_empty(self, producer: int, partition: int) -> bool:
        rows = self.rows.get(producer)
        return rows is not None and not rows[partition]


def _times_read(reads: Sequence[Read], shuffle: EdgeShuffle) -> _TimesRead:
    partitions = shuffle.partitions
    groups: dict[tuple[int, ...], list[int]] = {}
    for read in reads:
        counts = groups.setdefault(read.producers, [0] * partitions)
        for partition in range(read.first, read.last):
            counts[partition] += 1
    of_producer: dict[int, list[list[int]]] = {producer: [] for producer in range(shuffle.producers)}
    for producers, counts in groups.items():
        for producer in producers:
            of_producer[producer].append(counts)
    none = [0] * partitions
    by_producer = {
        producer: counts[0] if len(counts) == 1 else [sum(column) for column in zip(none, *counts, strict=True)]
        for producer, counts in of_producer.items()
    }
    tasks = [sum(column) for column in zip(none, *groups.values(), strict=True)]
    rows = {producer: output.partition_rows for producer, output in shuffle.outputs.items()}
    return _TimesRead(partitions, by_producer, tasks, rows)


def _place(place: str | None) -> str:
    return "its end" if place is None else f"place {place}"


def _error(message: str) -> InternalError:
    return InternalError(
        f"{message}; the query is stopped, for its answer would have rows twice or not at all",
        code=ROWS_NOT_CONSERVED,
        hint="this is a defect of sabot_sql: please report the query and this message; agents=1 runs it undistributed",
    )
