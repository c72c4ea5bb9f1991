"""Table functions whose rows follow from their arguments, cut by arithmetic: series, repeated rows, unnested lists.

A slice calls the *same* function with other arguments, so that its columns and their types are the whole's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sabot_planner import Column, Placement, SourceInfo
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.relation_text import FunctionCall
from sabot_sql.catalog.sources import WHOLE, SliceBinding, even_share, even_spans, select, type_bytes

if TYPE_CHECKING:
    import duckdb

SERIES_FUNCTIONS = frozenset({"range", "generate_series", "repeat", "unnest"})
"""What :func:`series_source` knows to cut."""


class Cuttable(Protocol):
    """A table function call of ``rows`` rows, of which any contiguous part is a call as well."""

    @property
    def rows(self) -> int:
        """How many rows the whole call gives."""
        ...

    def part(self, first: int, last: int) -> str:
        """The call that gives rows [``first``, ``last``), which are not none."""
        ...


@dataclass(frozen=True, slots=True)
class SeriesSource:
    """A cuttable call as a source."""

    info: SourceInfo
    relation: str
    cuttable: Cuttable

    def slice(self, index: int, count: int) -> SliceBinding:
        """Slices differ by at most one row in length."""
        rows = self.cuttable.rows
        first, last = even_share(index, count, rows)
        if count == 1:
            return SliceBinding(select(self.info.columns, self.relation, None), WHOLE)
        part, condition = (self.relation, "false") if first == last else (self.cuttable.part(first, last), None)
        return SliceBinding(select(self.info.columns, part, condition), even_spans(index, count, rows))


@dataclass(frozen=True, slots=True)
class IntegerSeries:
    """``start``, ``start + step``, … as long as ``stop`` is not reached, or passed where it is ``inclusive``."""

    function: str
    start: int
    stop: int
    step: int
    inclusive: bool

    @property
    def rows(self) -> int:
        """The number of terms."""
        distance = (self.stop - self.start) * (1 if self.step > 0 else -1)
        length = abs(self.step)
        if distance < 0:
            return 0
        return distance // length + 1 if self.inclusive else -(-distance // length)

    def part(self, first: int, last: int) -> str:
        """Terms of a part; its bounds stay within those of the whole, so that no BIGINT overflows."""
        stop = self.stop
        if last < self.rows:
            stop = self.start + (last - 1 if self.inclusive else last) * self.step
        values = (self.start + first * self.step, stop, self.step)
        return _call(self.function, [self._literal(value, i) for i, value in enumerate(values)])

    def _literal(self, value: int, position: int) -> str:
        return f"CAST({value} AS BIGINT)"


@dataclass(frozen=True, slots=True)
class TimestampSeries(IntegerSeries):
    """The same over microseconds; a step of months or longer has no fixed length and is none of these."""

    def _literal(self, value: int, position: int) -> str:
        return f"system.main.to_microseconds({value})" if position == 2 else f"system.main.make_timestamp({value})"


@dataclass(frozen=True, slots=True)
class RepeatedRow:
    """``repeat(value, rows)``."""

    value: str
    rows: int

    def part(self, first: int, last: int) -> str:
        """All parts of a length are the same."""
        return _call("repeat", [self.value, f"CAST({last - first} AS BIGINT)"])


@dataclass(frozen=True, slots=True)
class UnnestedList:
    """``unnest(list)`` of a list that the query spells out."""

    list_sql: str
    rows: int

    def part(self, first: int, last: int) -> str:
        """A slice of the list."""
        return _call("unnest", [f"system.main.list_slice({self.list_sql}, {first + 1}, {last})"])


def series_source(
    call: FunctionCall, relation: str, columns: tuple[Column, ...], source_id: str, main: duckdb.DuckDBPyConnection
) -> SeriesSource | None:
    """The source of a call, None where it cannot be cut: a step of months, a value that DuckDB refuses."""
    cuttable = _cuttable(call, main)
    if cuttable is None:
        return None
    rows = cuttable.rows
    size_bytes = rows * sum(type_bytes(column.type) for column in columns)
    info = SourceInfo(source_id, call.name, columns, rows, size_bytes, max(2, rows), Placement.ANY)
    return SeriesSource(info, relation, cuttable)


def _cuttable(call: FunctionCall, main: duckdb.DuckDBPyConnection) -> Cuttable | None:
    if call.options:
        return None
    if call.name == "unnest":
        return _unnested(call, main)
    if call.name == "repeat":
        return _repeated(call, main)
    types = _values([f"system.main.typeof({argument})" for argument in call.arguments], main)
    inclusive = call.name == "generate_series"
    if types == ("TIMESTAMP", "TIMESTAMP", "INTERVAL"):
        return _timestamps(call, main, inclusive)
    if not set(types) <= {"BIGINT"}:
        return None
    values = _values(call.arguments, main)
    if None in values:
        return IntegerSeries(call.name, 0, 0, 1, False)
    start, stop, step = (0, *values, 1) if len(values) == 1 else (*values, 1)[:3]
    return IntegerSeries(call.name, start, stop, step, inclusive) if step != 0 else None


def _timestamps(call: FunctionCall, main: duckdb.DuckDBPyConnection, inclusive: bool) -> Cuttable | None:
    start, stop, step = call.arguments
    finite = f"system.main.isfinite({start}) AND system.main.isfinite({stop})"
    # Months have no fixed length; adding a day to a timestamp without a time zone is adding 24 hours.
    fixed = f"system.main.datepart('year', {step}) = 0 AND system.main.datepart('month', {step}) = 0"
    asked = [
        f"({finite} AND {fixed})",
        f"system.main.epoch_us({start})",
        f"system.main.epoch_us({stop})",
        f"system.main.epoch_us({step})",
    ]
    usable, first, last, length = _values(asked, main)
    if not usable or not length:
        return None
    return TimestampSeries(call.name, first, last, length, inclusive)


def _repeated(call: FunctionCall, main: duckdb.DuckDBPyConnection) -> Cuttable | None:
    (rows,) = _values(call.arguments[1:], main)
    return RepeatedRow(call.arguments[0], rows) if rows is not None and rows >= 0 else None


def _unnested(call: FunctionCall, main: duckdb.DuckDBPyConnection) -> Cuttable | None:
    if len(call.arguments) != 1:
        return None
    (rows,) = _values([f"system.main.len({call.arguments[0]})"], main)
    return UnnestedList(call.arguments[0], rows) if rows is not None else None


def _values(expressions: list[str] | tuple[str, ...], main: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    rows: list[tuple[Any, ...]] = main.execute(f"SELECT {', '.join(expressions)}").fetchall()
    return rows[0]


def _call(function: str, arguments: list[str]) -> str:
    return f"system.main.{quote_name(function)}({', '.join(arguments)})"
