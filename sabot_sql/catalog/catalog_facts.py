"""What is asked of DuckDB's catalog again and again, remembered for as long as it stays true."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from sabot_sql.catalog.connection import Connection, Statement, serialized
from sabot_sql.catalog.effects import VOLATILE_FUNCTIONS, VolatileNames
from sabot_sql.catalog.session_functions import TELL_OF_CONNECTION

if TYPE_CHECKING:
    from sabot_planner import Column

_MAX_DESCRIBED = 512
_MOST_TEXTS = 64


class CatalogFacts:
    """Facts of one session; use it under the connection's lock. ``forget`` after a statement that may change them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.statements = 0
        """How many statements may have changed a table so far."""
        self._aggregates: frozenset[str] | None = None
        self._volatile: frozenset[str] | None = None
        self._names = None if connection.has_catalog else VolatileNames.reaching(VOLATILE_FUNCTIONS, {}, {})
        self._files: dict[str, str] | None = None
        self._parsed: OrderedDict[str, str] = OrderedDict()
        self._estimated: OrderedDict[str, str | None] = OrderedDict()
        self._described: OrderedDict[Hashable, tuple[Column, ...]] = OrderedDict()

    def forget(self, statement: Statement) -> None:
        """Ask again for everything that ``statement`` may have changed: settings, attached files, extensions."""
        if statement.may_name_functions:
            self._names = None
        self.statements += 1
        self._aggregates = self._volatile = None
        self._files = None
        self._described.clear()
        self._estimated.clear()

    def aggregates(self) -> frozenset[str]:
        """Lower-case names of all aggregate functions."""
        if self._aggregates is None:
            self._aggregates = self._functions("function_type = 'aggregate'")
        return self._aggregates

    def serialized(self, sql: str) -> str:
        """DuckDB's parse of ``sql`` as JSON, remembered: the text alone decides it."""
        known = self._parsed.get(sql)
        if known is None:
            known = self._parsed[sql] = serialized(self._connection.main, sql)
            _shorten(self._parsed)
        return known

    def estimated(self, exported_sql: str, ask: Callable[[], str | None]) -> str | None:
        """DuckDB's plan with its estimates for one exported plan; a hint, so that one of an earlier run will do."""
        if exported_sql not in self._estimated:
            self._estimated[exported_sql] = ask()
            _shorten(self._estimated)
        return self._estimated[exported_sql]

    def volatile_functions(self) -> frozenset[str]:
        """Lower-case names of all functions that DuckDB does not fold, or that tell of the connection they run on."""
        if self._volatile is None:
            self._volatile = self._functions("stability = 'VOLATILE'") | TELL_OF_CONNECTION
        return self._volatile

    def volatile_names(self) -> VolatileNames:
        """The names that make a query volatile; without a macro and a view of the user's, DuckDB is not asked."""
        if self._names is None:
            main = self._connection.main
            macros = main.execute(
                "SELECT system.main.lower(function_name), system.main.string_agg(macro_definition, ' ')"
                " FROM system.main.duckdb_functions() WHERE macro_definition IS NOT NULL AND NOT internal GROUP BY ALL"
            ).fetchall()
            views = main.execute(
                "SELECT system.main.lower(view_name), system.main.string_agg(sql, ' ')"
                " FROM system.main.duckdb_views() WHERE NOT internal GROUP BY ALL"
            ).fetchall()
            self._names = VolatileNames.reaching(VOLATILE_FUNCTIONS, dict(macros), dict(views))
        return self._names

    def read_only_file(self, database: str) -> str | None:
        """The file of a database that is attached read-only, so that other processes may read it too."""
        if self._files is None:
            rows = self._connection.main.execute(
                "SELECT database_name, path FROM system.main.duckdb_databases()"
                " WHERE readonly AND NOT internal AND path IS NOT NULL AND type = 'duckdb'"
            ).fetchall()
            self._files = dict(rows)
        return self._files.get(database)

    def described(
        self, key: Hashable, cacheable: bool, describe: Callable[[], tuple[Column, ...]]
    ) -> tuple[Column, ...]:
        """The columns under ``key``; the key holds the versions of the files, so that a changed file is read again."""
        if not cacheable:
            return describe()
        if key not in self._described:
            self._described[key] = describe()
            while len(self._described) > _MAX_DESCRIBED:
                self._described.popitem(last=False)
        return self._described[key]

    def _functions(self, condition: str) -> frozenset[str]:
        rows = self._connection.main.execute(
            f"SELECT DISTINCT system.main.lower(function_name) FROM system.main.duckdb_functions() WHERE {condition}"
        ).fetchall()
        return frozenset(row[0] for row in rows)


def _shorten(remembered: OrderedDict[str, Any]) -> None:
    if len(remembered) > _MOST_TEXTS:
        remembered.popitem(last=False)
