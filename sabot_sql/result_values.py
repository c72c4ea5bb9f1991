"""Python values of a few rows, straight from Arrow where they are the ones that DuckDB would give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_PLAIN = re.compile(
    r"BOOLEAN|U?(TINYINT|SMALLINT|INTEGER|BIGINT)|FLOAT|DOUBLE|VARCHAR|BLOB|DATE|TIMESTAMP|DECIMAL\(\d+,\d+\)"
)
_HUGE = ("HUGEINT", "UHUGEINT")


def are_plain(types: Sequence[str]) -> bool:
    """Whether :func:`python_rows` knows all of ``types``."""
    return all(name in _HUGE or _PLAIN.fullmatch(name) for name in types)


def python_rows(batches: Sequence[pa.RecordBatch], types: Sequence[str]) -> list[tuple[Any, ...]] | None:
    """The rows of ``batches``, of plain types; None where only DuckDB can say a value of them in Python."""
    try:
        return [row for batch in batches for row in zip(*map(_values, batch.columns, types), strict=True)]
    except (OverflowError, ValueError):
        return None  # a date or time that Python cannot say, such as infinity


def row_type(columns: Sequence[str]) -> type[tuple[Any, ...]]:
    """The type of a row that is a tuple and knows the names of its columns.

    pandas takes them for those of a frame, whatever characters they have; a copy in another process is a plain tuple.
    """
    body = {"__slots__": (), "_fields": tuple(columns), "__reduce__": lambda row: (tuple, (tuple(row),))}
    return type("Row", (tuple,), body)


def _values(column: pa.Array, type_name: str) -> list[Any]:
    if type_name not in _HUGE:
        values: list[Any] = column.to_pylist()
        return values
    signed = type_name == "HUGEINT"
    raw = column.storage.to_pylist()
    return [None if value is None else int.from_bytes(value, "little", signed=signed) for value in raw]
