"""The sources of one query: what the planner is told of them, and the SQL that reads a slice of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sabot_planner import Column, RangeSplit, SourceInfo
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.frames import MemorySource
from sabot_sql.protocol.task_spec import BatchFunction, FileVersion, Span

_ROW_GROUP_ROWS = 122_880
"""Rows of a row group in DuckDB's own tables."""


@dataclass(frozen=True, slots=True)
class SliceBinding:
    """How a task reads a slice: a SELECT that gives the source's columns, and objects to register before it.

    ``spans`` name the rows that the SELECT reads, none where it reads none.
    """

    sql: str
    spans: tuple[Span, ...]
    registrations: Mapping[str, object] = field(default_factory=dict)


WHOLE = (Span(),)
"""All rows of a source."""


def even_share(index: int, count: int, pieces: int) -> tuple[int, int]:
    """The pieces [first, last) of slice ``index`` of ``count``; slices differ by at most one piece."""
    return pieces * index // count, pieces * (index + 1) // count


def even_spans(index: int, count: int, pieces: int) -> tuple[Span, ...]:
    """That share as a span. The first slice of an empty source is the whole of it."""
    first, last = even_share(index, count, pieces)
    if first == last:
        return WHOLE if index == pieces == 0 else ()
    return (Span(str(first) if first > 0 else None, str(last) if last < pieces else None),)


class SourceBinder(Protocol):
    """What running a query needs of its sources."""

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """Slice ``index`` of ``count`` contiguous slices, in source order; (0, 1) is the whole source."""
        ...

    def bind_range(self, source_id: str, split: RangeSplit, first: int, last: int) -> SliceBinding:
        """The rows of parts [``first``, ``last``) of ``split``; none where those are no parts."""
        ...

    def in_session(self, source_id: str) -> bool:
        """Whether the source can be read on the session's own DuckDB only."""
        ...

    def function(self, function_id: str) -> BatchFunction:
        """The Python function of that id, which an operator named."""
        ...

    def session_settings(self) -> Mapping[str, str]:
        """Settings that change answers and must hold for every fragment."""
        ...

    def attachments(self) -> tuple[tuple[str, str], ...]:
        """(name, database file) pairs that fragments with placement ANY read, all attached read-only."""
        ...

    def paths(self) -> tuple[str, ...]:
        """Files, and directories with a trailing slash, that those fragments read."""
        ...

    def files(self) -> tuple[FileVersion, ...]:
        """The local files among them, as they were when the query was planned."""
        ...


class Source(Protocol):
    """One source of a query."""

    @property
    def info(self) -> SourceInfo:
        """What the planner is told."""
        ...

    def slice(self, index: int, count: int) -> SliceBinding:
        """See :meth:`SourceBinder.bind_slice`."""
        ...


@dataclass(frozen=True, slots=True)
class WholeSource:
    """A relation that cannot be cut: a table function, a view of the system, one file of a format without an index.

    ``shown`` are the SQL expressions of columns that are not read as they are.
    """

    info: SourceInfo
    relation: str
    shown: Mapping[str, str] = field(default_factory=dict)

    def slice(self, index: int, count: int) -> SliceBinding:
        """The first slice is everything, the others are empty."""
        if index > 0:
            return nothing(self.info.columns, self.relation)
        return SliceBinding(select(self.info.columns, self.relation, None, self.shown), WHOLE)


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table in DuckDB's own storage, cut by row ids, at row groups where there are enough."""

    info: SourceInfo
    relation: str

    def slice(self, index: int, count: int) -> SliceBinding:
        """Row ids may run past the number of rows (after deletes), so the last slice is open."""
        if count == 1:
            return SliceBinding(select(self.info.columns, self.relation, None), WHOLE)
        rows = self.info.rows or 0
        unit = _ROW_GROUP_ROWS if rows >= count * _ROW_GROUP_ROWS else 1
        units = max(1, -(-rows // unit))
        first, last = units * index // count * unit, units * (index + 1) // count * unit
        low = str(first) if first > 0 else None
        if index + 1 == count:
            return SliceBinding(select(self.info.columns, self.relation, f"rowid >= {first}"), (Span(low),))
        if first == last:
            return nothing(self.info.columns, self.relation)
        condition = f"rowid BETWEEN {first} AND {last - 1}"
        return SliceBinding(select(self.info.columns, self.relation, condition), (Span(low, str(last)),))


@dataclass(frozen=True, slots=True)
class MemoryTableSource:
    """An in-process table, cut by rows without a copy."""

    info: SourceInfo
    source: MemorySource

    def slice(self, index: int, count: int) -> SliceBinding:
        """The slice is registered under a name of its own and read in the types that the whole was bound with."""
        name = f"sabot_table_{self.source.number}_{index}_{count}"
        names = [(quote_name(column.name), column.type) for column in self.info.columns]
        columns = ", ".join(f"CAST({column} AS {type_name}) AS {column}" for column, type_name in names)
        first, last = even_share(index, count, self.source.pieces)
        part = {name: self.source.value if count == 1 else self.source.part(first, last)}
        return SliceBinding(f"SELECT {columns} FROM {name}", even_spans(index, count, self.source.pieces), part)


def nothing(columns: Sequence[Column], relation: str) -> SliceBinding:
    """No rows of ``relation``."""
    return SliceBinding(select(columns, relation, "false"), ())


def select(
    columns: Sequence[Column], relation: str, condition: str | None, shown: Mapping[str, str] | None = None
) -> str:
    """The SELECT of ``columns`` from ``relation``, some ``shown`` by an expression; without columns it counts rows."""
    items = []
    for column in columns:
        name = quote_name(column.name)
        expression = (shown or {}).get(column.name, name)
        items.append(name if expression == name else f"{expression} AS {name}")
    where = f" WHERE {condition}" if condition else ""
    return f"SELECT {', '.join(items) or '1'} FROM {relation}{where}"


def type_bytes(type_name: str) -> int:
    """A guess of the bytes of a value: fixed widths, 20 for text, 8 for what is not known."""
    narrow = {"BOOLEAN": 1, "TINYINT": 1, "SMALLINT": 2, "INTEGER": 4, "DATE": 4, "FLOAT": 4}
    return narrow.get(type_name, 20 if type_name == "VARCHAR" else 8)
