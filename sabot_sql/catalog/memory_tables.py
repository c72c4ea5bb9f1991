"""The in-process tables of a session: registered by the user, or found in the caller's scope for one query."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from sabot_sql.catalog.connection import ColumnTypes, Connection, Statement
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.duckdb_errors import translate
from sabot_sql.catalog.frames import MemorySource, Scope, find_object, memory_source
from sabot_sql.catalog.shadows import Shadows
from sabot_sql.errors import BindError
from sabot_sql.scratch import Scratch

_WORD = re.compile(r'"(?:[^"]|"")*"|[^\W\d]\w*')


@dataclass(frozen=True, slots=True)
class ShadowedTable:
    """An in-process table while its name stands for its shadow."""

    source: MemorySource
    columns: ColumnTypes


class MemoryTables:
    """Names of in-process tables on the session's connection; all methods want the connection's lock held.

    A name is bound either to the object itself (a query on one agent reads it without a detour) or to its shadow (for
    binding what will be distributed); it stays as the last query left it.
    """

    def __init__(self, connection: Connection, scratch: Scratch) -> None:
        self._connection = connection
        self._scratch = scratch
        self._shadows: Shadows | None = None
        self._registered: dict[str, MemorySource] = {}
        self._shadowed: dict[str, tuple[str, ShadowedTable]] = {}
        self._drained: weakref.WeakKeyDictionary[object, MemorySource] = weakref.WeakKeyDictionary()

    def register(self, name: str, value: object) -> None:
        """Make ``value`` a table named ``name``, in place of any other in-process table of that name.

        Raises:
            BindError: it cannot be a table.
        """
        source = self._source(name, value)
        self._bind_object(name, source)
        self._registered[name] = source

    def unregister(self, name: str) -> None:
        """Take the name away.

        Raises:
            BindError: nothing is registered under it.
        """
        if self._registered.pop(name, None) is None:
            message = f"no table is registered as {name!r}"
            raise BindError(message, code="TABLE_NOT_FOUND", candidates=list(self._registered))
        self._drop(name)

    @contextmanager
    def objects(self, statement: Statement, scopes: Sequence[Scope]) -> Iterator[None]:
        """While it is open every name stands for its object."""
        self._refresh_frames()
        for name in list(self._shadowed):
            self._bind_object(name, self._registered[name])
        with self._scoped(statement, scopes):
            yield

    @contextmanager
    def shadows(self, statement: Statement, scopes: Sequence[Scope]) -> Iterator[dict[str, ShadowedTable]]:
        """While it is open every name stands for its shadow; gives the tables by the paths of their shadows."""
        with self._scoped(statement, scopes) as found:
            self._refresh_frames()
            bound = dict(self._shadowed)
            for name, source in {**self._registered, **found}.items():
                if name not in bound:
                    bound[name] = self._bind_shadow(name, source, {path for path, _ in bound.values()})
            self._shadowed = {name: entry for name, entry in bound.items() if name in self._registered}
            yield dict(bound.values())

    def _refresh_frames(self) -> None:
        # A pandas frame may have been changed in place since: its columns and rows are looked at anew.
        for name, source in self._registered.items():
            if type(source.value).__module__.startswith("pandas"):
                fresh = self._registered[name] = memory_source(name, source.value)
                self._bind_object(name, fresh)

    @contextmanager
    def _scoped(self, statement: Statement, scopes: Sequence[Scope]) -> Iterator[dict[str, MemorySource]]:
        """Register what only the caller's scope knows, for as long as it is open."""
        found: dict[str, MemorySource] = {}
        for name in self._unknown_names(statement, scopes):
            value = find_object(name, scopes)
            if value is not None:
                found[name] = self._source(name, value)
        try:
            for name, source in found.items():
                self._bind_object(name, source)
            yield found
        finally:
            for name in found:
                self._drop(name)

    def _unknown_names(self, statement: Statement, scopes: Sequence[Scope]) -> list[str]:
        """Names in the statement that are tables in ``scopes`` and none to DuckDB."""
        words = {word.strip('"').replace('""', '"') for word in _WORD.findall(statement.text)}
        names = {w for w in words if w not in self._registered and find_object(w, scopes) is not None}
        if not names:
            return []
        main = self._connection.main
        if not self._connection.in_transaction:  # which an error would end
            # DuckDB binds a little here: USING over tables it does not know fails. A word too many costs a view.
            with contextlib.suppress(duckdb.Error):
                names &= main.get_table_names(statement.text)
        known = main.execute(
            "SELECT lower(table_name) FROM duckdb_tables() WHERE in_search_path(database_name, schema_name)"
            " UNION ALL SELECT lower(view_name) FROM duckdb_views() WHERE in_search_path(database_name, schema_name)"
        ).fetchall()
        return sorted(name for name in names if (name.lower(),) not in known)

    def _source(self, name: str, value: object) -> MemorySource:
        try:
            drained = self._drained.get(value)
        except TypeError:
            return memory_source(name, value)
        if drained is not None:
            return drained
        source = memory_source(name, value)
        if isinstance(value, pa.RecordBatchReader):
            # It can be read once; the table that came of it serves for as long as the reader is around.
            self._drained[value] = MemorySource(
                name, source.number, source.value, None, source.rows, source.size_bytes, source.max_slices
            )
        return source

    def _bind_object(self, name: str, source: MemorySource) -> None:
        if name in self._shadowed:
            self._drop(name)
        try:
            self._connection.main.register(name, source.value)
        except (duckdb.Error, RuntimeError) as error:
            raise translate(error) from None

    def _bind_shadow(self, name: str, source: MemorySource, taken: set[str]) -> tuple[str, ShadowedTable]:
        main = self._connection.main
        try:
            found = main.execute(f"DESCRIBE FROM {quote_name(name)}").fetchall()
            columns = tuple((row[0], row[1]) for row in found)
            schema = main.sql(f"FROM {quote_name(name)} LIMIT 0").to_arrow_table().schema
            if self._shadows is None:
                self._shadows = Shadows(self._scratch.path)
            shadow = self._shadows.shadow(columns, schema, source.rows, taken, main)
            main.execute(f"CREATE OR REPLACE TEMP VIEW {quote_name(name)} AS FROM {shadow.relation}")
        except duckdb.Error as error:
            raise translate(error) from None
        return shadow.path, ShadowedTable(source, columns)

    def _drop(self, name: str) -> None:
        self._shadowed.pop(name, None)
        main = self._connection.main
        main.unregister(name)
        main.execute(f"DROP VIEW IF EXISTS temp.{quote_name(name)}")
