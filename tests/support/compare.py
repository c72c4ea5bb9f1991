"""Compare two results as SQL does: multisets of rows with types, and in order where an order was promised."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

Row: TypeAlias = tuple[Any, ...]

RELATIVE = 1e-9
RELATIVE_FLOAT32 = 1e-6
ABSOLUTE = 1e-12
SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Rows:
    """A result: column names, DuckDB type names, and rows of Python values as DuckDB's ``fetchall`` gives them."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[Row, ...]

    def project(self, kept: Sequence[int]) -> Rows:
        """Only the columns at these positions."""
        return Rows(
            tuple(self.columns[i] for i in kept),
            tuple(self.types[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in self.rows),
        )


def difference(expected: Rows, actual: Rows, tie_groups: Sequence[int] | None = None) -> str | None:
    """What is wrong with ``actual``, or None where it is right.

    Without ``tie_groups`` rows may come in any order. With it, they must come as runs of these many rows: run i of
    ``actual`` holds the rows of run i of ``expected``, in any order within the run.
    Doubles may differ by 1e-9 of their value; NaN equals NaN, and -0.0 equals 0.0.
    """
    schema = _schema_difference(expected, actual)
    if schema:
        return schema
    if len(expected.rows) != len(actual.rows):
        return f"{len(actual.rows)} rows for {len(expected.rows)}\n" + _row_difference(expected, actual)
    start = 0
    for number, size in enumerate(tie_groups if tie_groups is not None else [len(expected.rows)]):
        missing, extra = unmatched(
            expected.rows[start : start + size], actual.rows[start : start + size], expected.types
        )
        if missing or extra:
            where = f"rows {start} to {start + size - 1} (run {number}): " if tie_groups is not None else ""
            unordered = tie_groups is not None and difference(expected, actual) is None
            return where + ("right rows in a wrong order\n" if unordered else "\n") + _shown(missing, extra)
        start += size
    return None


def assert_same(expected: Rows, actual: Rows, tie_groups: Sequence[int] | None = None) -> None:
    """Fail with the difference; see :func:`difference`."""
    found = difference(expected, actual, tie_groups)
    assert found is None, found


def unmatched(expected: Sequence[Row], actual: Sequence[Row], types: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """The rows of each side that have no partner on the other, as multisets."""
    exact = Counter(map(exact_key, expected))
    left_over: Counter[Any] = Counter()
    extra: list[Row] = []
    for row in actual:
        key = exact_key(row)
        if exact[key] > 0:
            exact[key] -= 1
        else:
            extra.append(row)
    if not extra and not any(exact.values()):
        return [], []
    left_over.update(exact)
    missing: list[Row] = []
    for row in reversed(expected):
        key = exact_key(row)
        if left_over[key] > 0:
            left_over[key] -= 1
            missing.append(row)
    return _match_closely(missing[::-1], extra, tuple(map(_tolerance, types)))


def _match_closely(missing: list[Row], extra: list[Row], tolerances: Sequence[float]) -> tuple[list[Row], list[Row]]:
    """Pair what differs only in the last digits of doubles; rows that agree in all else are tried in sorted order."""
    buckets: dict[Any, list[Row]] = {}
    for row in extra:
        buckets.setdefault(_shape(row), []).append(row)
    unpaired = []
    for row in missing:
        candidates = buckets.get(_shape(row), [])
        for index, candidate in enumerate(candidates):
            if all(close(a, b, tolerance) for a, b, tolerance in zip(row, candidate, tolerances, strict=True)):
                del candidates[index]
                break
        else:
            unpaired.append(row)
    return unpaired, [row for rows in buckets.values() for row in rows]


def close(left: Any, right: Any, tolerance: float = RELATIVE) -> bool:
    """Whether two values are equal but for rounding of the doubles in them."""
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right or math.isclose(left, right, rel_tol=tolerance, abs_tol=ABSOLUTE)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        pairs = zip(sorted(left.items(), key=repr), sorted(right.items(), key=repr), strict=False)
        return len(left) == len(right) and all(close(a, b, tolerance) for a, b in pairs)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(close(a, b, tolerance) for a, b in zip(left, right, strict=True))
    return bool(exact_key(left) == exact_key(right))


def exact_key(value: Any) -> Any:
    """A hashable stand-in: equal for values that are the same to SQL, apart for values of different types."""
    if isinstance(value, float):
        return ("nan",) if math.isnan(value) else ("float", value + 0.0)
    if isinstance(value, tuple | list):
        return tuple(exact_key(item) for item in value)
    if isinstance(value, Mapping):
        return ("map", frozenset((exact_key(key), exact_key(item)) for key, item in value.items()))
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return ("instant", value.astimezone(dt.UTC))
    if isinstance(value, Decimal):
        return ("decimal", str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return ("blob", bytes(value))
    return (type(value).__name__, value)


def _shape(value: Any) -> Any:
    """The part of a value that must be exact: everything but doubles, of which only NULL and NaN are kept apart."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else "double"
    if isinstance(value, tuple | list):
        return tuple(_shape(item) for item in value)
    if isinstance(value, Mapping):
        return frozenset((_shape(key), _shape(item)) for key, item in value.items())
    return exact_key(value)


def _tolerance(duckdb_type: str) -> float:
    return RELATIVE_FLOAT32 if "FLOAT" in duckdb_type else RELATIVE


def _schema_difference(expected: Rows, actual: Rows) -> str | None:
    if expected.columns != actual.columns:
        return f"columns {list(actual.columns)} for {list(expected.columns)}"
    wrong = [
        f"{name}: {got} for {want}"
        for name, want, got in zip(expected.columns, expected.types, actual.types, strict=True)
        if want != got
    ]
    return f"types: {'; '.join(wrong)}" if wrong else None


def _row_difference(expected: Rows, actual: Rows) -> str:
    return _shown(*unmatched(expected.rows, actual.rows, expected.types))


def _shown(missing: Sequence[Row], extra: Sequence[Row]) -> str:
    lines = []
    for what, rows in (("missing", missing), ("not expected", extra)):
        if rows:
            lines.append(f"{what}, {len(rows)} rows:")
            lines += [f"  {row!r}" for row in sorted(rows, key=repr)[:SHOWN_ROWS]]
            if len(rows) > SHOWN_ROWS:
                lines.append("  ...")
    return "\n".join(lines)
