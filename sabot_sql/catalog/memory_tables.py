"""The in-process tables of a session: registered by the user, or found in the caller's scope for one query."""

from __future__ import annotations

import contextlib
import difflib
import re
import weakref
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import duckdb

from sabot_sql.catalog.arrow_check import CheckedObjects
from sabot_sql.catalog.connection import ColumnTypes, Connection, Statement
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.frames import (
    TABLES_ARE,
    Kind,
    MemorySource,
    Scope,
    described,
    find_object,
    memory_source,
    what_else,
)
from sabot_sql.catalog.shadows import Shadows
from sabot_sql.duck.errors import translate
from sabot_sql.duck.interrupts import in_spite_of_interrupts
from sabot_sql.errors import BindError, SabotSQLError, SourceError, UsageError
from sabot_sql.scratch import Scratch

_MISSING_TABLE = re.compile(r'Table with name "?(.*?)"? does not exist')
_WORD = re.compile(r'"(?:[^"]|"")*"|[^\W\d]\w*')


@dataclass(frozen=True, slots=True)
class ShadowedTable:
    """An in-process table while its name stands for its shadow."""

    source: MemorySource
    columns: ColumnTypes


@dataclass(frozen=True, slots=True)
class _Body:
    """The text of a view, a macro or a prepared statement, which names tables of its own."""

    name: str
    database: str
    words: frozenset[str]


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
        self._bodies: tuple[_Body, ...] | None = None
        self._drained: weakref.WeakKeyDictionary[object, MemorySource] = weakref.WeakKeyDictionary()
        self._checked = CheckedObjects()
        self._last_drained: tuple[object, MemorySource] | None = None

    def register(self, name: str, value: object) -> None:
        """Make ``value`` a table named ``name``, in place of any other in-process table of that name.

        Raises:
            UsageError: it cannot be a table.
        """
        source = self._source(name, value)
        self._bind_object(name, source)
        self._registered[name] = source

    def unregister(self, name: str) -> None:
        """Take the name away.

        Raises:
            UsageError: nothing is registered under it.
        """
        if self._registered.pop(name, None) is None:
            message = f"no table is registered as {name!r}"
            raise UsageError(
                message, code="TABLE_NOT_FOUND", candidates=difflib.get_close_matches(name, self._registered)
            )
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
                if name in bound:
                    continue
                try:
                    bound[name] = self._bind_shadow(name, source, {path for path, _ in bound.values()})
                except BaseException:
                    if name in self._registered:  # the name may stand for the shadow already
                        self._drop(name)
                        self._bind_object(name, source)
                    raise
                if name in self._registered:
                    self._shadowed[name] = bound[name]
            yield dict(bound.values())

    def _refresh_frames(self) -> None:
        # What may have been changed in place since is looked at anew: its columns and rows.
        for name, source in self._registered.items():
            if source.may_change:
                fresh = self._registered[name] = self._read(name, source.value)
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
        except BindError as error:
            _say_what_it_is(error, scopes)
            raise
        finally:
            for name in found:
                # In a transaction that has failed nothing runs any more; the view goes with it.
                with contextlib.suppress(duckdb.TransactionException):
                    self._drop(name)

    def named(self, statement: Statement, scopes: Sequence[Scope], words: Container[str]) -> list[str]:
        """The in-process tables that a statement may read, which leads to these ``words``."""
        registered = [name for name in self._registered if name in words]
        return [*registered, *(name for name in self._unknown_names(statement, scopes) if name not in registered)]

    def forget(self) -> None:
        """Ask again for the views, macros and prepared statements: a statement may have changed them."""
        self._bodies = None

    def _unknown_names(self, statement: Statement, scopes: Sequence[Scope]) -> list[str]:
        """Names that are tables in ``scopes`` and none to DuckDB, in the statement and the views and macros it uses."""
        words = _words(statement.text)
        names = self._objects_among(words, scopes)
        inner = self._inner_names(words, scopes)
        if names and not self._connection.in_transaction:  # which an error would end
            # DuckDB binds a little here: USING over tables it does not know fails. A word too many costs a view.
            with contextlib.suppress(duckdb.Error):
                names &= self._connection.main.get_table_names(statement.text)
        names |= inner
        if not names:
            return []
        known = self._connection.main.execute(
            "SELECT system.main.lower(table_name) FROM system.main.duckdb_tables()"
            " WHERE system.main.in_search_path(database_name, schema_name)"
            " UNION ALL SELECT system.main.lower(view_name) FROM system.main.duckdb_views()"
            " WHERE system.main.in_search_path(database_name, schema_name)"
        ).fetchall()
        return sorted(name for name in names if (name.lower(),) not in known)

    def _objects_among(self, words: Iterable[str], scopes: Sequence[Scope]) -> set[str]:
        return {word for word in words if word not in self._registered and find_object(word, scopes) is not None}

    def _inner_names(self, words: frozenset[str], scopes: Sequence[Scope]) -> set[str]:
        """Names that are objects, in the texts that ``words`` lead to from view to view."""
        if self._bodies is None:
            self._bodies = self._find_bodies()
        reached, names = {word.lower() for word in words}, set[str]()
        pending = list(self._bodies)
        while used := [body for body in pending if body.name in reached]:
            pending = [body for body in pending if body not in used]
            for body in used:
                reached |= {word.lower() for word in body.words}
                names |= self._objects_among(body.words, scopes) - self._tables_of(body.database)
        return names

    def _find_bodies(self) -> tuple[_Body, ...]:
        try:
            rows = self._connection.main.execute(
                "SELECT system.main.lower(view_name), database_name, sql"
                " FROM system.main.duckdb_views() WHERE NOT internal"
                " UNION ALL SELECT system.main.lower(function_name), database_name, macro_definition"
                " FROM system.main.duckdb_functions() WHERE NOT internal AND macro_definition IS NOT NULL"
                " UNION ALL SELECT system.main.lower(name), '', statement"
                " FROM system.main.duckdb_prepared_statements()"
            ).fetchall()
        except duckdb.Error:
            return ()  # a transaction that failed: nothing runs before it is rolled back
        return tuple(_Body(name, database, _words(text or "")) for name, database, text in rows)

    def _tables_of(self, database: str) -> set[str]:
        """Tables that a text of that database finds before it would look for ours."""
        rows = self._connection.main.execute(
            "SELECT table_name FROM system.main.duckdb_tables() WHERE database_name = $1"
            " UNION ALL SELECT view_name FROM system.main.duckdb_views() WHERE database_name = $1 AND NOT internal",
            [database],
        ).fetchall()
        return {name for (name,) in rows}

    def _source(self, name: str, value: object) -> MemorySource:
        if self._last_drained is not None and self._last_drained[0] is value:
            return self._last_drained[1]
        try:
            drained = self._drained.get(value)
        except TypeError:
            drained = None
        if drained is not None:
            return drained
        source = self._read(name, value)
        if source.kind is Kind.ONCE:
            # The table that came of it serves for as long as the reader is around.
            try:
                self._drained[value] = replace(source, origin=None)
            except TypeError:  # nobody can tell how long a capsule is around: the last one is kept
                self._last_drained = value, source
        return source

    def _read(self, name: str, value: object) -> MemorySource:
        """See :func:`memory_source`; reading it runs code of the object's, which may fail in any way."""
        try:
            return memory_source(name, value, self._checked.check)
        except SabotSQLError:
            raise
        except Exception as error:
            raise _unreadable(name, value, f"{type(error).__name__}: {error}") from error

    def _bind_object(self, name: str, source: MemorySource) -> None:
        if name in self._shadowed:
            self._drop(name)
        try:
            in_spite_of_interrupts(lambda: self._connection.main.register(name, source.value))
        except (duckdb.Error, RuntimeError, ValueError) as error:
            raise _unreadable(name, source.origin, translate(error).message) from None

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
        main = self._connection.main
        in_spite_of_interrupts(lambda: main.unregister(name))
        in_spite_of_interrupts(lambda: main.execute(f"DROP VIEW IF EXISTS temp.{quote_name(name)}"))
        self._shadowed.pop(name, None)


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip('"').replace('""', '"') for word in _WORD.findall(text))


def _say_what_it_is(error: BindError, scopes: Sequence[Scope]) -> None:
    """Where a table is missing whose name the user's program gives to something else, the error says so."""
    match = _MISSING_TABLE.match(error.message) if error.code == "TABLE_NOT_FOUND" else None
    found = what_else(match.group(1), scopes) if match else None
    if match and found:
        error.hint = f"{match.group(1)} is of type {found} in Python, which is no table; {TABLES_ARE}"


def _unreadable(name: str, value: object, reason: str) -> SourceError:
    message = f"{name!r} is of type {described(value)} and cannot be read: {reason}"
    return SourceError(message, code="OBJECT_UNREADABLE")
