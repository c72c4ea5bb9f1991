"""Python functions over the Arrow batches of a task, run in the session's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sabot_planner.job.operators import Column, OperatorType
from sabot_sql.arrow_types import plain_boolean, with_leaves
from sabot_sql.errors import JobError, OperatorError, SabotSQLError


@dataclass(frozen=True, slots=True)
class RowsFunction:
    """The function of a MAP, FILTER or FLAT_MAP; ``columns`` and ``schema`` are what it gives."""

    operator_id: str
    operator_type: OperatorType
    call: Callable[[pa.RecordBatch], Any]
    columns: tuple[Column, ...]
    schema: pa.Schema
    key_by: Sequence[str] = ()

    def over(self, rows: object, task: int) -> FunctionStream:
        """What the function makes of ``rows``, batch by batch and in their order."""
        return FunctionStream(self.schema, lambda: self._batches(rows, task))

    def _batches(self, rows: object, task: int) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(pa.RecordBatchReader.from_stream(rows)):
            if batch.num_rows:
                yield from self._changed(plain(batch), number, task)

    def _changed(self, batch: pa.RecordBatch, number: int, task: int) -> list[pa.RecordBatch]:
        try:
            given = self.call(batch)
        except BaseException as error:  # whatever it is, such as sys.exit(), it is the function's and not the agent's
            raise self._error(f"raised {type(error).__name__}: {error}", batch, number, task) from error
        try:
            batches = batches_of(given, batch, self.operator_type)
        except ValueError as error:
            raise self._error(str(error), batch, number, task) from None
        for made in batches:
            difference = schema_difference(self.schema, made.schema)
            if difference:
                raise self._error(difference, batch, number, task, "SCHEMA_CHANGED")
        return [made.cast(self.schema) if made.schema != self.schema else made for made in batches]

    def _error(
        self, what: str, batch: pa.RecordBatch, number: int, task: int, code: str | None = None
    ) -> OperatorError:
        keys = {name: batch.column(name)[0].as_py() for name in self.key_by if name in batch.schema.names}
        shown = ", ".join(f"{name} = {value!r}" for name, value in keys.items())
        first = f", whose first row has {shown}" if shown else ""
        return OperatorError(
            f"operator {self.operator_id!r}: its function {what}, in batch {number} of task {task}{first}",
            code=code,
            operator=self.operator_id,
            task=task,
            batch=number,
            key=shown or None,
        )


@dataclass(frozen=True, slots=True)
class Generator:
    """A SOURCE whose batches a Python function makes, of all tasks, or of one where it takes (task, tasks)."""

    operator_id: str
    call: Callable[..., Any]
    per_task: bool
    tasks: int
    columns: tuple[Column, ...]
    schema: pa.Schema

    def over(self, rows: object, task: int) -> FunctionStream:
        """The batches of one task; ``rows`` are not read."""
        return FunctionStream(self.schema, lambda: self._batches(task))

    def _batches(self, task: int) -> Iterator[pa.RecordBatch]:
        number = -1
        try:
            for number, given in enumerate(started(self.call, self.per_task, task, self.tasks)):
                for batch in batches_of(given, None, OperatorType.SOURCE):
                    difference = schema_difference(self.schema, batch.schema)
                    if difference:
                        raise self._error(difference, task, number, "SCHEMA_CHANGED")
                    yield batch.cast(self.schema) if batch.schema != self.schema else batch
        except (SabotSQLError, GeneratorExit):
            raise
        except BaseException as error:
            raise self._error(f"raised {type(error).__name__}: {error}", task, number + 1) from error

    def _error(self, what: str, task: int, number: int, code: str | None = None) -> OperatorError:
        reason = f"operator {self.operator_id!r}: its generator {what}, at batch {number} of task {task}"
        return OperatorError(reason, code=code, operator=self.operator_id, task=task, batch=number)


class FunctionStream:
    """An Arrow stream of what Python makes; ``error`` is what ended it early, by its own type."""

    def __init__(self, schema: pa.Schema, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self.error: BaseException | None = None
        self._schema = schema
        self._batches = batches

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self._schema, self._kept())
        return reader.__arrow_c_stream__(requested_schema)

    def _kept(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches()
        except SabotSQLError as error:
            # Arrow makes text of what ends a stream; whoever reads it finds the error here.
            self.error = error
            raise


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """``batch`` with Arrow's own booleans, as a user's function expects them."""
    schema = plain_schema(batch.schema)
    return batch if schema == batch.schema else batch.cast(schema)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """``schema`` with Arrow's own booleans."""
    return pa.schema([field.with_type(with_leaves(field.type, plain_boolean)) for field in schema])


def started(call: Callable[..., Any], per_task: bool, task: int, tasks: int) -> Any:
    """The iterator over the batches of one task."""
    return call(task, tasks) if per_task else call()


def batches_of(given: object, batch: pa.RecordBatch | None, kind: OperatorType) -> list[pa.RecordBatch]:
    """What a function gave for ``batch``, as batches.

    Raises:
        ValueError: it is nothing that an operator of this ``kind`` may give.
    """
    if kind is OperatorType.FILTER and batch is not None and isinstance(given, pa.Array | pa.ChunkedArray):
        if not pa.types.is_boolean(given.type) or len(given) != batch.num_rows:
            raise ValueError(
                f"gave {len(given)} values of {given.type} for {batch.num_rows} rows; give a boolean for each"
            )
        mask = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
        return [batch.filter(mask)]
    if isinstance(given, pa.RecordBatch):
        made = [given]
    elif isinstance(given, pa.Table):
        made = given.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=given.schema)]
    else:
        raise ValueError(f"gave a {type(given).__name__}; give a pyarrow RecordBatch or Table")
    rows = sum(part.num_rows for part in made)
    if kind is OperatorType.MAP and batch is not None and rows != batch.num_rows:
        raise ValueError(f"gave {rows} rows for {batch.num_rows}; a MAP gives one for each, a FLAT_MAP any number")
    if kind is OperatorType.FILTER and batch is not None and rows > batch.num_rows:
        raise ValueError(f"gave {rows} rows for {batch.num_rows}; a FILTER gives some of them")
    return made


def schema_difference(wanted: pa.Schema, given: pa.Schema) -> str:
    """In words what is not as it should be; empty where names and types are the same."""
    if [(f.name, f.type) for f in wanted] == [(f.name, f.type) for f in given]:
        return ""
    shown = [", ".join(f"{field.name} {field.type}" for field in schema) for schema in (given, wanted)]
    return f"gave columns ({shown[0]}) where there were to be ({shown[1]})"


def probed_schema(
    operator_id: str, kind: OperatorType, call: Callable[[pa.RecordBatch], Any], arrives: pa.Schema
) -> pa.Schema:
    """The schema of what a function gives, found by calling it with a batch without rows.

    Raises:
        JobError: it cannot be called so.
    """
    empty = pa.RecordBatch.from_pylist([], schema=arrives)
    try:
        return batches_of(call(empty), empty, kind)[0].schema
    except BaseException as error:
        raise JobError(
            f"operator {operator_id!r}: its function failed on a batch without rows: {type(error).__name__}: {error}",
            code="SCHEMA_UNKNOWN",
            hint="give schema=pyarrow.schema(…), or let it take an empty batch",
            operator=operator_id,
        ) from error
