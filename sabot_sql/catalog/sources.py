"""The sources of one query: what the planner is told of them, and the SQL that reads a slice of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sabot_planner import Column, SourceInfo
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.frames import MemorySource

_ROW_GROUP_ROWS = 122_880
"""Rows of a row group in DuckDB's own tables."""


@dataclass(frozen=True, slots=True)
class SliceBinding:
    """How a task reads a slice: a SELECT that gives the source's columns, and objects to register before it."""

    sql: str
    registrations: Mapping[str, object] = field(default_factory=dict)


class SourceBinder(Protocol):
    """What running a query needs of its sources."""

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """Slice ``index`` of ``count`` contiguous slices, in source order; (0, 1) is the whole source."""
        ...

    def bind_range(self, source_id: str, column: str, low: str | None, high: str | None) -> SliceBinding:
        """The rows with low <= column < high; the bounds are SQL literals, None leaves that side open."""
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
        return SliceBinding(select(self.info.columns, self.relation, None if index == 0 else "false", self.shown))


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table in DuckDB's own storage, cut by row ids, at row groups where there are enough."""

    info: SourceInfo
    relation: str

    def slice(self, index: int, count: int) -> SliceBinding:
        """Row ids may run past the number of rows (after deletes), so the last slice is open."""
        if count == 1:
            return SliceBinding(select(self.info.columns, self.relation, None))
        rows = self.info.rows or 0
        unit = _ROW_GROUP_ROWS if rows >= count * _ROW_GROUP_ROWS else 1
        units = max(1, -(-rows // unit))
        first, last = units * index // count * unit, units * (index + 1) // count * unit
        if index + 1 == count:
            condition = f"rowid >= {first}"
        else:
            condition = f"rowid BETWEEN {first} AND {last - 1}" if last > first else "false"
        return SliceBinding(select(self.info.columns, self.relation, condition))


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
        return SliceBinding(f"SELECT {columns} FROM {name}", {name: self.source.slice(index, count)})


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
