"""A copy of what a query reads of its session's own tables, for a session of another process."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sabot_sql.catalog.catalog import Catalog
from sabot_sql.catalog.connection import Statement, quote_text
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.frames import Scope
from sabot_sql.catalog.mentioned_names import MentionedNames
from sabot_sql.duck.errors import translate
from sabot_sql.errors import UsageError

_OF_SESSION = "objects_of_the_session"
"""What temporary tables and tables of Python are in, on the other side."""
_VARIABLES_OF = "variables_of_the_session"
_OPEN = "sabot_copy"
# A user's macro may be called like any function that is not written with its schema.
_DATABASES = "SELECT database_name, path, readonly, type FROM system.main.duckdb_databases() WHERE NOT internal"
_TEMPORARY_TABLES = "SELECT table_name FROM system.main.duckdb_tables() WHERE temporary AND NOT internal"
_TEMPORARY_VIEWS = "SELECT view_oid, view_name, sql FROM system.main.duckdb_views() WHERE temporary AND NOT internal"
_SEARCHED = """
SELECT system.main.current_setting('search_path'), system.main.current_database(), system.main.current_schema()
"""
_OBJECTS = """
SELECT 1 FROM (
    SELECT 1 FROM system.main.duckdb_tables() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_views() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_functions() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_types() WHERE NOT internal AND database_name = $1
    UNION ALL SELECT 1 FROM system.main.duckdb_sequences() WHERE database_name = $1
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
_PARENTS = """
SELECT referenced_table, table_name FROM system.main.duckdb_constraints()
WHERE database_name = $1 AND constraint_type = 'FOREIGN KEY' AND referenced_table <> table_name
"""
_TEMPORARY_TYPES = """
SELECT type_name FROM system.main.duckdb_types() WHERE NOT internal AND database_name = 'temp' ORDER BY type_oid
"""
_TEMPORARY_MACROS = """
SELECT function_oid, function_name, parameters, macro_definition, function_type
FROM system.main.duckdb_functions() WHERE NOT internal AND database_name = 'temp'
"""
_VARIABLES = "SELECT name, value, type FROM system.main.duckdb_variables()"
_WRITTEN_AS_TEXT = re.compile(r"(?!VARIANT)[A-Z0-9_ ]+|DECIMAL\(.*\)")
"""Types whose values can be cast to text and back; nested ones cannot always."""


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
    views and macros that it names; all of them where a function of the statement may make up a name. A database that
    is read only is not copied: any process can read it.

    Raises:
        UsageError: a transaction is open, whose changes no other process sees; or a sequence or rowids would differ.
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
        words = MentionedNames(statement.text, main.execute(_BODIES).fetchall())
        if words.has_word("nextval"):
            raise UsageError(
                "a query that calls nextval() cannot be handed over: the sequence would not go on in this session",
                code="NOT_DURABLE",
                hint="take its values with query(), and hand them over as parameters",
            )
        opened, statements = _copy_databases(main, words, database, read_only, directory)
        statements += _copy_types(main)
        statements += _copy_objects(catalog, main, words, statement, scopes, directory)
        statements += _state(main, catalog.connection.process_settings())
        statements += _copy_variables(main, directory)
        return SessionCopy(opened, tuple(statements))
    except duckdb.Error as error:
        raise translate(error) from None


def _copy_databases(
    main: duckdb.DuckDBPyConnection, words: MentionedNames, database: str, read_only: bool, directory: Path
) -> tuple[str, list[str]]:
    """What to open as the session's database, and the statements that attach the others."""
    opened, attach = database if read_only else ":memory:", []
    found = main.execute(_DATABASES)
    for place, (name, path, is_read_only, kind) in enumerate(found.fetchall()):
        is_own = _same_file(path, database) if path else name == "memory"
        if is_own and read_only:
            continue
        # The name of the session's own database is that of its file; another one may have any name.
        file = directory / "own" / f"{name}.duckdb" if is_own else directory / f"attached-{place}.duckdb"
        source = str(path) if path and (is_read_only or kind != "duckdb") else _copied(main, name, words, file)
        if is_own:
            opened = source or ":memory:"
        elif source:
            options = "READ_ONLY" if kind == "duckdb" else f"TYPE {kind}, READ_ONLY"
            attach.append(f"ATTACH {quote_text(source)} AS {quote_name(name)} ({options})")
    return opened, attach


def _copied(main: duckdb.DuckDBPyConnection, name: str, words: MentionedNames, file: Path) -> str:
    """``file``, where a copy of a database is; no name where there is nothing in it."""
    if not main.execute(_OBJECTS, [name]).fetchall():
        return ""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    with _open(main, file):
        main.execute(f"COPY FROM DATABASE {quote_name(name)} TO {_OPEN} (SCHEMA)")
        mentioned = _tables_mentioned(main, name, words)
        kept = _without_the_others(main, name, mentioned)
        for schema, table in (*mentioned, *kept):
            columns = main.execute(_STORED_COLUMNS, [name, schema, table]).fetchall()
            stored = ", ".join(quote_name(column) for (column,) in columns)
            source, target = (".".join(map(quote_name, (place, schema, table))) for place in (name, _OPEN))
            main.execute(f"INSERT INTO {target} ({stored}) SELECT {stored} FROM {source}")
            if words.has_word("rowid") and ("rowid",) not in columns:
                _check_rowids(main, source, target)
    return str(file)


def _without_the_others(
    main: duckdb.DuckDBPyConnection, database: str, mentioned: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Drop the empty copies of the tables that are not ``mentioned``; gives those that cannot be dropped.

    A table that was overlooked is then an error, where an empty one would give rows that are wrong.
    """
    others = [table for table in main.execute(_TABLES, [database]).fetchall() if table not in mentioned]
    while others:
        left = []
        for schema, table in others:
            try:
                main.execute(f"DROP TABLE {'.'.join(map(quote_name, (_OPEN, schema, table)))}")
            except duckdb.Error:  # keys of another one refer to it: that goes first
                left.append((schema, table))
        if len(left) == len(others):
            break
        others = left
    return others


def _tables_mentioned(main: duckdb.DuckDBPyConnection, database: str, words: MentionedNames) -> list[tuple[str, str]]:
    """The tables to copy, schema and name: those that are mentioned, each after those that its keys refer to."""
    tables = main.execute(_TABLES, [database]).fetchall()
    parents = main.execute(_PARENTS, [database]).fetchall()
    ordered: dict[str, None] = {}

    def add(table: str) -> None:
        for parent, child in parents:  # no circles: a key refers to a table that was there before
            if child == table and parent not in ordered:
                add(parent)
        ordered.setdefault(table)

    for _, table in tables:
        if table in words:
            add(table)
    return [(schema, table) for sought in ordered for schema, table in tables if table == sought]


def _check_rowids(main: duckdb.DuckDBPyConnection, source: str, target: str) -> None:
    """See that the rows of a copy have the numbers that they had: those of rows that were deleted are left out.

    Raises:
        UsageError: they have others.
    """
    differ = f"SELECT 1 FROM (SELECT rowid FROM {source} EXCEPT SELECT rowid FROM {target}) LIMIT 1"
    if main.execute(differ).fetchall():
        raise UsageError(
            f"rowid of {source} cannot be handed over: rows were deleted, and those of a copy are numbered anew",
            code="NOT_DURABLE",
            hint="give the rows a column with a number of their own",
        )


def _copy_types(main: duckdb.DuckDBPyConnection) -> list[str]:
    """The statements that make the temporary types."""
    statements = []
    for (name,) in main.execute(_TEMPORARY_TYPES).fetchall():
        made = f"SELECT system.main.typeof(CAST(NULL AS temp.main.{quote_name(name)}))"
        ((kind,),) = main.execute(made).fetchall()
        statements.append(f"CREATE TEMP TYPE {quote_name(name)} AS {kind}")
    return statements


def _copy_objects(
    catalog: Catalog,
    main: duckdb.DuckDBPyConnection,
    words: MentionedNames,
    statement: Statement,
    scopes: Sequence[Scope],
    directory: Path,
) -> list[str]:
    """Copy temporary tables and tables of Python; the statements that make them, and temporary views and macros."""
    temporary = main.execute(_TEMPORARY_TABLES).fetchall()
    of_python = catalog.objects_named(statement, scopes, words)
    tables = dict.fromkeys([*of_python, *(name for (name,) in temporary if name in words)])
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
    made = [(oid, sql) for oid, name, sql in views if name not in tables and name in words]
    made += _temporary_macros(main, words)
    return statements + [sql for _, sql in sorted(made)]  # each may use those that were made before it


def _temporary_macros(main: duckdb.DuckDBPyConnection, words: MentionedNames) -> list[tuple[int, str]]:
    """The statements that make the temporary macros that are mentioned, with the number of each."""
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for oid, name, parameters, definition, kind in main.execute(_TEMPORARY_MACROS).fetchall():
        table = "TABLE " if kind == "table_macro" else ""
        body = f"({', '.join(map(quote_name, parameters))}) AS {table}{definition}"
        if name in words:
            found.setdefault((kind, name), (oid, []))[1].append(body)
    return [
        (oid, f"CREATE TEMP MACRO {quote_name(name)}{', '.join(bodies)}") for (_, name), (oid, bodies) in found.items()
    ]


def _state(main: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> list[str]:
    """The statements that bring about the settings, the search path and the variables of a session."""
    statements = [f"SET SESSION {name} = {quote_text(value)}" for name, value in settings.items()]
    ((path, database, schema),) = main.execute(_SEARCHED).fetchall()
    if path:
        statements.append(f"SET search_path = {quote_text(path)}")
    elif (database, schema) != ("memory", "main"):
        statements.append(f"USE {quote_name(database)}.{quote_name(schema)}")
    return statements


def _copy_variables(main: duckdb.DuckDBPyConnection, directory: Path) -> list[str]:
    """Copy the variables whose types no text can be cast to; the statements that set all of them."""
    statements: list[str] = []
    tables: list[str] = []
    for place, (name, value, kind) in enumerate(main.execute(_VARIABLES).fetchall()):
        variable = quote_name(name)
        if kind == '"NULL"':
            statements.append(f"SET VARIABLE {variable} = NULL")
        elif value != "NULL" and _WRITTEN_AS_TEXT.fullmatch(kind):  # a NULL is shown like a text
            statements.append(f"SET VARIABLE {variable} = CAST({quote_text(value)} AS {kind})")
        else:
            tables.append(f"variable_{place} AS SELECT system.main.getvariable({quote_text(name)}) AS value")
            statements.append(f"SET VARIABLE {variable} = (SELECT value FROM {_VARIABLES_OF}.main.variable_{place})")
    if not tables:
        return statements
    file = directory / f"{_VARIABLES_OF}.duckdb"
    with _open(main, file):
        for table in tables:
            main.execute(f"CREATE TABLE {_OPEN}.main.{table}")
    attach = f"ATTACH {quote_text(str(file))} AS {_VARIABLES_OF} (READ_ONLY)"
    return [attach, *statements, f"DETACH {_VARIABLES_OF}"]


@contextmanager
def _open(main: duckdb.DuckDBPyConnection, file: Path) -> Iterator[None]:
    main.execute(f"ATTACH {quote_text(str(file))} AS {_OPEN}")
    try:
        yield
    finally:
        main.execute(f"DETACH {_OPEN}")


def _same_file(one: str, other: str) -> bool:
    return Path(one).absolute() == Path(other).absolute()
