"""PEP 249 over a session, for tools that speak nothing else; results come as Arrow too.

Statements take effect at once unless the SQL itself says BEGIN.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sabot_sql
from sabot_sql.arguments import shown
from sabot_sql.catalog.connection import Parameters
from sabot_sql.errors import (
    BindError,
    InternalError,
    QueryError,
    ResourceError,
    SabotSQLError,
    UsageError,
    ValueFailure,
)

if TYPE_CHECKING:
    import pyarrow as pa

apilevel = "2.0"
threadsafety = 2
paramstyle = "qmark"

Error = DatabaseError = OperationalError = SabotSQLError
InterfaceError = UsageError
ProgrammingError = QueryError
DataError = ValueFailure
IntegrityError = ValueFailure
NotSupportedError = BindError


class Warning(Exception):  # noqa: A001  the name that PEP 249 asks for
    """Never raised."""


class TypeObject:
    """Equal to the names of some DuckDB types: those whose first word is one of ``words``."""

    def __init__(self, *words: str) -> None:
        self.words = frozenset(words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.split(r"\W", other)[0] in self.words

    def __hash__(self) -> int:
        return hash(self.words)


STRING = TypeObject("VARCHAR", "ENUM", "JSON", "UUID")
BINARY = TypeObject("BLOB", "BIT")
NUMBER = TypeObject(
    *(f"{sign}{name}" for sign in ("", "U") for name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")),
    *("FLOAT", "DOUBLE", "DECIMAL", "BIGNUM"),
)
DATETIME = TypeObject("DATE", "TIME", "TIME_NS", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "INTERVAL")
ROWID = TypeObject("ROWID")

Date, Time, Timestamp, Binary = dt.date, dt.time, dt.datetime, bytes
DateFromTicks = dt.date.fromtimestamp
TimestampFromTicks = dt.datetime.fromtimestamp


def TimeFromTicks(ticks: float) -> dt.time:  # noqa: N802  the name that PEP 249 asks for
    """The local time of day at ``ticks`` seconds after the epoch."""
    return dt.datetime.fromtimestamp(ticks).time()


def connect(database: str = ":memory:", **options: Any) -> Connection:
    """A connection on a session of its own; ``options`` are those of :func:`sabot_sql.connect`."""
    return Connection(sabot_sql.connect(database, **options))


class Connection:
    """A session that makes cursors; closing it closes the session."""

    def __init__(self, session: sabot_sql.Session) -> None:
        self.session = session

    def cursor(self) -> Cursor:
        """Another cursor; all share the session."""
        return Cursor(self)

    def commit(self) -> None:
        """End the transaction that the SQL began, if any."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction that the SQL began, if any."""
        self._end("ROLLBACK")

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def _end(self, statement: str) -> None:
        if self.session.in_transaction:
            self.session.execute(statement)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Cursor:
    """Runs statements one after the other and holds the rows of the last one."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._result: sabot_sql.Result | None = None

    @property
    def description(self) -> list[tuple[Any, ...]] | None:
        """(name, type, None, …) of each column; None where the statement gave no rows."""
        if self._result is None or not self._result.columns:
            return None
        return [*self._result.description]

    @property
    def rowcount(self) -> int:
        """Rows of the last statement, -1 before the first."""
        return -1 if self._result is None else len(self._result)

    def execute(self, operation: str, parameters: Parameters = None) -> Cursor:
        """Run a statement."""
        self._result = self.connection.session.query(operation, parameters)
        return self

    def executemany(self, operation: str, seq_of_parameters: Sequence[Parameters]) -> Cursor:
        """Run a statement once for each entry."""
        if not isinstance(seq_of_parameters, Iterable) or isinstance(seq_of_parameters, str | bytes | Mapping):
            raise UsageError(f"{shown(seq_of_parameters)} is no sequence of parameters")
        for parameters in seq_of_parameters:
            self.execute(operation, parameters)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        return self._rows.fetchone()

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next rows."""
        return self._rows.fetchmany(self.arraysize if size is None else size)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The remaining rows."""
        return self._rows.fetchall()

    def fetch_arrow_table(self) -> pa.Table:
        """All rows as an Arrow table."""
        return self._rows.to_arrow_table()

    def fetch_record_batch(self, batch_size: int = 1_000_000) -> pa.RecordBatchReader:
        """All rows as Arrow batches."""
        return self._rows.to_arrow_reader(batch_size)

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Nothing to do."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let the rows go."""
        self._result = None

    @property
    def _rows(self) -> sabot_sql.Result:
        if self._result is None:
            raise UsageError("nothing was executed on this cursor", code="NO_RESULT")
        return self._result

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = [
    "BINARY", "DATETIME", "NUMBER", "ROWID", "STRING", "Binary", "Connection", "Cursor", "DataError", "DatabaseError",
    "Date", "DateFromTicks", "Error", "IntegrityError", "InterfaceError", "InternalError", "NotSupportedError",
    "OperationalError", "ProgrammingError", "ResourceError", "Time", "TimeFromTicks", "Timestamp",
    "TimestampFromTicks", "TypeObject", "Warning", "apilevel", "connect", "paramstyle", "threadsafety",
]  # fmt: skip
