"""Rows of a result through DuckDB once more: for Python values, frames and files exactly as DuckDB gives them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from sabot_sql.arrow_types import with_leaves
from sabot_sql.catalog.connection import Connection, quote_text
from sabot_sql.duck.errors import translate
from sabot_sql.errors import SessionClosed
from sabot_sql.forks import free_in_children, never_freed_in_children

# Types whose default Arrow form is not the one that keeps every value.
_LOSSY_TYPES = re.compile(r"\b(U?HUGEINT|UUID|BIT|JSON|TIME WITH TIME ZONE|ENUM|UNION|INTERVAL|VARIANT)\b")

# Types whose values Arrow cannot hold: they are kept, and travel, in another form.
_TRAVELS_OTHERWISE = re.compile(r"\b(UNION|INTERVAL|TUPLE)\b")

# Types that DuckDB names but does not read: they stay as Arrow brings them.
_UNWRITABLE = re.compile(r"\bSTRUCT\b(?!\()|\bAGGREGATE_STATE\b")

# Rows keep their order, and leave in the form that people who call DuckDB themselves get.
_CONVERSION_SETTINGS = {
    "preserve_insertion_order": "true",
    "arrow_lossless_conversion": "false",
    # The view over what is registered calls a function by its bare name: no macro of a user's may be found.
    "search_path": "system.main",
}

_spare_lock = threading.Lock()
free_in_children(_spare_lock)
_spare: dict[int, duckdb.DuckDBPyConnection] = {}
"""By process: a fork must not use its parent's."""


def is_lossy(types: Sequence[str]) -> bool:
    """Whether DuckDB's default Arrow form of one of ``types`` differs from the form that results are stored in."""
    return any(_LOSSY_TYPES.search(_without_texts(type_name)) for type_name in types)


class Reading:
    """What a cursor runs, to be stopped by another thread."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def interrupt(self) -> None:
        """Stop it; its session may have closed the cursor already."""
        with suppress(duckdb.Error):
            self._cursor.interrupt()


Interrupts: TypeAlias = Callable[[Reading], AbstractContextManager[Any]]
"""What is open while a relation is read; whoever it was given to can stop that."""


class Converter:
    """Gives cursors that read Arrow batches as the relation they came from; usable after the session was closed."""

    def __init__(self, connection: Connection, settings: Mapping[str, str] | None = None) -> None:
        """Convert under ``settings``, by default those that hold on ``connection`` now."""
        self._connection = connection
        self._settings = dict(connection.session_settings() if settings is None else settings)

    @contextmanager
    def open(
        self,
        reader: pa.RecordBatchReader,
        names: Sequence[str],
        types: Sequence[str],
        interrupts: Interrupts = nullcontext,
    ) -> Iterator[Any]:
        """A DuckDB relation over ``reader`` with the user's column names and DuckDB's own types; once readable.

        While ``interrupts`` is open, what reads the relation can be stopped by what it is given.
        """
        with self._opened(self.cursor()) as cursor:
            cursor.register("result", _without_inner_dictionaries(reader))
            found = cursor.execute("DESCRIBE result").fetchall()
            columns = [
                f"{taken_back(quote_name(column[0]), column[1], wanted)} AS {quote_name(name)}"
                for column, name, wanted in zip(found, names, types, strict=True)
            ]
            with interrupts(Reading(cursor)):
                yield cursor.sql(f"SELECT {', '.join(columns)} FROM result")

    @contextmanager
    def open_held(self, rows: str, names: Sequence[str], interrupts: Interrupts = nullcontext) -> Iterator[Any]:
        """A DuckDB relation over rows that DuckDB holds, the item ``rows`` of a FROM clause, with the user's names.

        Raises:
            SessionClosed: the rows went with their session.
        """
        if self._connection.closed:
            raise SessionClosed("the rows of this result were in the session's DuckDB and went with it")
        # Where settings are locked, the instance's own are those of the query.
        locked = self._connection.is_locked
        with self._opened(self._connection.plain_cursor() if locked else self.cursor()) as cursor:
            columns = ", ".join(f"c{i} AS {quote_name(name)}" for i, name in enumerate(names))
            with interrupts(Reading(cursor)):
                yield cursor.sql(f"SELECT {columns} FROM {rows}")

    @contextmanager
    def _opened(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            yield cursor
        except duckdb.Error as error:
            raise translate(error) from None
        finally:
            cursor.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection with the settings of the query, on the session's DuckDB while it is open and unlocked."""
        if self._connection.closed or self._connection.is_locked:
            with _spare_lock:
                process_id = os.getpid()
                if process_id not in _spare:
                    _spare[process_id] = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
                    never_freed_in_children(_spare[process_id])
                cursor = _spare[process_id].cursor()
        else:
            cursor = self._connection.plain_cursor()
        for name, value in {**self._settings, **_CONVERSION_SETTINGS}.items():
            cursor.execute(f"SET SESSION {name} = {quote_text(value)}")
        return cursor


def quote_name(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def taken_back(column: str, found: str, wanted: str) -> str:
    """SQL of the values of type ``wanted`` that are the ``column`` of type ``found`` in Arrow."""
    if found == wanted:
        return column
    if _TRAVELS_OTHERWISE.search(wanted):
        from sabot_planner.sql.duck_type import duck_type, has_no_name, is_written  # rarely needed
        from sabot_planner.sql.edge_values import restored

        kind = duck_type(wanted)
        if not is_written(duck_type(found)) and (is_written(kind) or has_no_name(kind)):
            return restored(column, kind)
        if has_no_name(kind):
            return column
    if (found, wanted) == ("DECIMAL(38,0)", "AGGREGATE_STATE"):
        return f"CAST({column} AS HUGEINT)"
    return column if _UNWRITABLE.search(wanted) else f"CAST({column} AS {wanted})"


def _without_inner_dictionaries(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """DuckDB cannot read a batch whose lists are all empty over dictionary-encoded values; those become plain."""
    plain = pa.schema([field.with_type(_inner_plain(field.type)) for field in reader.schema])
    return reader if plain.equals(reader.schema) else reader.cast(plain)


def _inner_plain(kind: pa.DataType) -> pa.DataType:
    return with_leaves(kind, _plain) if pa.types.is_nested(kind) else kind


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _without_texts(type_name: str) -> str:
    """A type without what is quoted in it: field names and the values of an ENUM."""
    return re.sub(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'", "", type_name)
