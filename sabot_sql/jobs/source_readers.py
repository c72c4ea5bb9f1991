"""What a SOURCE reads, as SQL over the session, or as batches that a Python function makes."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from sabot_planner.job.operators import OperatorType
from sabot_sql.catalog.frames import TABLES_ARE, is_table
from sabot_sql.errors import JobError
from sabot_sql.jobs.batch_functions import batches_of, schema_difference, started
from sabot_sql.jobs.operators import StreamOperatorNode

_READERS = {
    ".parquet": "read_parquet",
    ".pq": "read_parquet",
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}
_COMPRESSED = (".gz", ".zst")
_QUERY = re.compile(r"\s*(?:SELECT|WITH|FROM|VALUES|TABLE)\b|\s*\(", re.IGNORECASE)
_TABLE_NAME = re.compile(r"[A-Za-z_][\w.]*\Z")
RELATION = "sabot_source"
"""The name under which SQL reads an object of the user's program."""


@dataclass(frozen=True, slots=True)
class SqlSource:
    """One SELECT over the session's tables and files, and over ``objects`` of the program by name."""

    sql: str
    objects: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GeneratedSource:
    """Batches that ``call`` makes; ``per_task``: it takes a task's number and how many there are."""

    call: Callable[..., Any]
    per_task: bool


def source_of(node: StreamOperatorNode) -> SqlSource | GeneratedSource:
    """What the SOURCE ``node`` reads.

    Raises:
        JobError: nothing, or something that cannot be read.
    """
    if node.sql:
        return SqlSource(node.sql)
    return table_of(node.source, node.operator_id)


def table_of(source: object, operator_id: str) -> SqlSource | GeneratedSource:
    """``source`` as something to read rows from.

    Raises:
        JobError: it is nothing of the kind.
    """
    if source is None:
        raise JobError(
            f"operator {operator_id!r}: nothing says what it reads; give source or sql",
            code="NOTHING_TO_DO",
            operator=operator_id,
        )
    if isinstance(source, str | os.PathLike):
        return SqlSource(_text_sql(source, operator_id))
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | os.PathLike) for item in source):
        return SqlSource(_files_sql([os.fspath(item) for item in source], operator_id))
    if is_table(source):
        return SqlSource(f"SELECT * FROM {RELATION}", {RELATION: source})
    if inspect.isgenerator(source) or (isinstance(source, Iterator) and not isinstance(source, str)):
        return SqlSource(f"SELECT * FROM {RELATION}", {RELATION: _read_once(source, operator_id)})
    if callable(source):
        return GeneratedSource(source, _takes_two(source))
    raise JobError(
        f"operator {operator_id!r}: source is a {type(source).__name__}",
        code="SOURCE",
        hint=f"give files, a SELECT, a function that yields Arrow batches, or a table; {TABLES_ARE}",
        operator=operator_id,
    )


def first_schema(source: GeneratedSource, operator_id: str, tasks: int) -> pa.Schema:
    """The schema of a generator's first batch, which is made once more when the job runs.

    Raises:
        JobError: it makes none.
    """
    try:
        batches = iter(started(source.call, source.per_task, 0, tasks))
        first = next(batches, None)
        close = getattr(batches, "close", None)
        if close is not None:
            close()
        if first is not None:
            return batches_of(first, None, OperatorType.SOURCE)[0].schema
    except Exception as error:
        reason = f"operator {operator_id!r}: its generator failed: {type(error).__name__}: {error}"
        raise JobError(reason, code="SOURCE", operator=operator_id) from error
    raise JobError(
        f"operator {operator_id!r}: its generator gives no batch, so its columns are not known",
        code="SCHEMA_UNKNOWN",
        hint="give schema=pyarrow.schema(…)",
        operator=operator_id,
    )


def _text_sql(source: str | os.PathLike[str], operator_id: str) -> str:
    text = os.fspath(source)
    if isinstance(source, str) and _QUERY.match(text):
        return text
    if isinstance(source, str) and _TABLE_NAME.match(text) and Path(text).suffix.lower() not in _READERS:
        return f"SELECT * FROM {text}"
    return _files_sql([text], operator_id)


def _files_sql(files: Sequence[str], operator_id: str) -> str:
    readers = {_READERS.get(_suffix(file)) for file in files}
    reader = readers.pop() if len(readers) == 1 else None
    if reader is None:
        raise JobError(
            f"operator {operator_id!r}: {', '.join(map(repr, files[:3]))} are no files of one known kind",
            code="SOURCE",
            hint=f"names end in one of {', '.join(_READERS)}; anything else is read by sql",
            operator=operator_id,
        )
    names = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    return f"SELECT * FROM {reader}([{names}])"


def _suffix(file: str) -> str:
    path = Path(file)
    return Path(path.stem).suffix.lower() if path.suffix.lower() in _COMPRESSED else path.suffix.lower()


def _takes_two(call: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) == 2


def _read_once(batches: Iterator[Any], operator_id: str) -> pa.RecordBatchReader:
    try:
        first = next(batches, None)
        begin = [] if first is None else batches_of(first, None, OperatorType.SOURCE)
    except Exception as error:
        reason = f"operator {operator_id!r}: its generator failed: {type(error).__name__}: {error}"
        raise JobError(reason, code="SOURCE", operator=operator_id) from error
    if not begin:
        reason = f"operator {operator_id!r}: its generator gives no batch, so its columns are not known"
        raise JobError(reason, code="SCHEMA_UNKNOWN", operator=operator_id)
    schema = begin[0].schema

    def made() -> Iterator[pa.RecordBatch]:
        yield from begin
        number = 1
        try:
            for given in batches:
                for batch in batches_of(given, None, OperatorType.SOURCE):
                    difference = schema_difference(schema, batch.schema)
                    if difference:
                        raise ValueError(difference)
                    yield batch.cast(schema) if batch.schema != schema else batch
                number += 1
        except Exception as error:
            # Arrow makes text of it on its way through DuckDB.
            raise RuntimeError(f"its generator failed at batch {number}: {type(error).__name__}: {error}") from error

    return pa.RecordBatchReader.from_batches(schema, made())
