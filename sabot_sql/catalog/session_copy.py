"""A copy of what a query reads of its session's own tables, for a session of another process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sabot_sql.catalog.catalog import Catalog
from sabot_sql.catalog.connection import Statement, quote_text
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.frames import Scope
from sabot_sql.duck.errors import translate
from sabot_sql.errors import UsageError

_OF_SESSION = "objects_of_the_session"
"""What temporary tables and tables of Python are in, on the other side."""
_OPEN = "sabot_copy"
# A user's macro may be called like any function that is not written with its schema.
_DATABASES = "SELECT database_name, path, readonly, type FROM system.main.duckdb_databases() WHERE NOT internal"
_TEMPORARY_TABLES = "SELECT table_name FROM system.main.duckdb_tables() WHERE temporary AND NOT internal"
_TEMPORARY_VIEWS = "SELECT view_name, sql FROM system.main.duckdb_views() WHERE temporary AND NOT internal"
_SEARCHED = """
SELECT system.main.current_setting('search_path'), system.main.current_database(), system.main.current_schema()
"""
_OBJECTS = """
SELECT 1 FROM (
    SELECT 1 FROM system.main.duckdb_tables() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_views() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_functions() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_types() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_schemas()
    WHERE NOT internal AND database_name = $1 AND schema_name <> 'main'
) LIMIT 1
"""
_BODIES = """
SELECT view_name, sql FROM system.main.duckdb_views() WHERE NOT internal
UNION ALL SELECT function_name, macro_definition FROM system.main.duckdb_functions() WHERE NOT internal
"""
_TABLES = "SELECT schema_name, table_name FROM system.main.duckdb_tables() WHERE NOT internal AND database_name = $1"
_STORED_COLUMNS = """
SELECT column_name FROM system.main.duckdb_columns()
WHERE database_name = $1 AND schema_name = $2 AND table_name = $3 AND NOT is_generated ORDER BY column_index
"""
_WORD = re.compile(r'"(?:[^"]|"")*"|[^\W\d]\w*')


@dataclass(frozen=True, slots=True)
class SessionCopy:
    """``database`` is what a session like it opens, as it was opened; then it runs ``statements``."""

    database: str
    statements: tuple[str, ...]


def copy_session(
    catalog: Catalog, statement: Statement, scopes: Sequence[Scope], database: str, read_only: bool, directory: Path
) -> SessionCopy:
    """Copy to ``directory`` what ``statement`` reads of the session, whose ``database`` it is; hold the lock.

    Views, macros and types are all copied. Tables are copied whole where their name occurs in the statement, or in the
    views and macros that it names. A database that is read only is not copied: any process can read it.

    Raises:
        UsageError: a transaction is open, whose changes no other process sees.
        SabotSQLError: the statement is wrong, or a table cannot be copied.
    """
    if catalog.connection.in_transaction:
        raise UsageError(
            "inside a transaction no query can be handed over: its changes cannot be seen elsewhere",
            code="IN_TRANSACTION",
            hint="COMMIT first",
        )
    main = catalog.connection.main
    try:
        words = _words_of(main, statement)
        opened, statements = _copy_databases(main, words, database, read_only, directory)
        statements += _copy_objects(catalog, main, words, statement, scopes, directory)
        statements += _state(main, catalog.connection.process_settings())
        return SessionCopy(opened, tuple(statements))
    except duckdb.Error as error:
        raise translate(error) from None


def _copy_databases(
    main: duckdb.DuckDBPyConnection, words: frozenset[str], database: str, read_only: bool, directory: Path
) -> tuple[str, list[str]]:
    """What to open as the session's database, and the statements that attach the others."""
    opened, attach = database if read_only else ":memory:", []
    found = main.execute(_DATABASES)
    for name, path, is_read_only, kind in found.fetchall():
        is_own = _same_file(path, database) if path else name == "memory"
        if is_own and read_only:
            continue
        source = str(path) if path and (is_read_only or kind != "duckdb") else _copied(main, name, words, directory)
        if is_own:
            opened = source or ":memory:"
        elif source:
            options = "READ_ONLY" if kind == "duckdb" else f"TYPE {kind}, READ_ONLY"
            attach.append(f"ATTACH {quote_text(source)} AS {quote_name(name)} ({options})")
    return opened, attach


def _copied(main: duckdb.DuckDBPyConnection, name: str, words: frozenset[str], directory: Path) -> str:
    """The file of a copy of a database; no name where there is nothing in it."""
    if not main.execute(_OBJECTS, [name]).fetchall():
        return ""
    file = directory / f"{name}.duckdb"
    with _open(main, file):
        main.execute(f"COPY FROM DATABASE {quote_name(name)} TO {_OPEN} (SCHEMA)")
        for schema, table in main.execute(_TABLES, [name]).fetchall():
            if table.lower() in words:
                columns = main.execute(_STORED_COLUMNS, [name, schema, table]).fetchall()
                stored = ", ".join(quote_name(column) for (column,) in columns)
                source, target = (".".join(map(quote_name, (place, schema, table))) for place in (name, _OPEN))
                main.execute(f"INSERT INTO {target} ({stored}) SELECT {stored} FROM {source}")
    return str(file)


def _copy_objects(
    catalog: Catalog,
    main: duckdb.DuckDBPyConnection,
    words: frozenset[str],
    statement: Statement,
    scopes: Sequence[Scope],
    directory: Path,
) -> list[str]:
    """Copy temporary tables and tables of Python; the statements that make them, and temporary views and macros."""
    temporary = main.execute(_TEMPORARY_TABLES).fetchall()
    of_python = catalog.objects_named(statement, scopes, words)
    tables = dict.fromkeys([*of_python, *(name for (name,) in temporary if name.lower() in words)])
    statements = []
    if tables:
        file = directory / f"{_OF_SESSION}.duckdb"
        with _open(main, file):
            for name in tables:
                make = f"CREATE TABLE {_OPEN}.main.{quote_name(name)} AS FROM {quote_name(name)}"
                (copying,) = catalog.split(make, None)
                with catalog.run(copying, scopes):
                    pass
        statements.append(f"ATTACH {quote_text(str(file))} AS {_OF_SESSION} (READ_ONLY)")
        statements += [
            f"CREATE TEMP VIEW {quote_name(name)} AS FROM {_OF_SESSION}.main.{quote_name(name)}" for name in tables
        ]
    views = main.execute(_TEMPORARY_VIEWS).fetchall()
    macros = main.execute(
        "SELECT function_name, parameters, macro_definition, function_type FROM system.main.duckdb_functions() "
        "WHERE NOT internal AND database_name = 'temp'"
    ).fetchall()
    for name, parameters, definition, kind in macros:
        table = "TABLE " if kind == "table_macro" else ""
        signature = f"{quote_name(name)}({', '.join(map(quote_name, parameters))})"
        statements.append(f"CREATE TEMP MACRO {signature} AS {table}{definition}")
    return statements + [sql for name, sql in views if name not in tables and name.lower() in words]


def _state(main: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> list[str]:
    """The statements that bring about the settings, the search path and the variables of a session."""
    statements = [f"SET SESSION {name} = {quote_text(value)}" for name, value in settings.items()]
    ((path, database, schema),) = main.execute(_SEARCHED).fetchall()
    if path:
        statements.append(f"SET search_path = {quote_text(path)}")
    elif (database, schema) != ("memory", "main"):
        statements.append(f"USE {quote_name(database)}.{quote_name(schema)}")
    variables = main.execute("SELECT name, value, type FROM system.main.duckdb_variables()").fetchall()
    return statements + [
        f"SET VARIABLE {quote_name(name)} = CAST({quote_text(str(value))} AS {kind})" for name, value, kind in variables
    ]


@contextmanager
def _open(main: duckdb.DuckDBPyConnection, file: Path) -> Iterator[None]:
    main.execute(f"ATTACH {quote_text(str(file))} AS {_OPEN}")
    try:
        yield
    finally:
        main.execute(f"DETACH {_OPEN}")


def _words_of(main: duckdb.DuckDBPyConnection, statement: Statement) -> frozenset[str]:
    """All words of a statement, and of the views and macros that it names, in lower case."""
    bodies = main.execute(_BODIES).fetchall()
    words = _words(statement.text)
    while True:
        more = [_words(body) for name, body in bodies if name.lower() in words and body]
        grown = words.union(*more)
        if grown == words:
            return words
        words = grown


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip('"').replace('""', '"').lower() for word in _WORD.findall(text))


def _same_file(one: str, other: str) -> bool:
    return Path(one).absolute() == Path(other).absolute()
