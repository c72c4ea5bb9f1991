"""Finding the file, row group and column behind a decoding error that names none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import duckdb

from sabot_sql.catalog.connection import Connection, Statement, quote_text
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.parquet_footers import footer
from sabot_sql.catalog.relation_text import split_arguments
from sabot_sql.errors import SabotSQLError, SourceError

_SECONDS = 5.0
_CALLS = ("parquet_scan(", "read_parquet(")


def located(error: SabotSQLError, statement: Statement, connection: Connection) -> SabotSQLError:
    """``error``, or a better one that says which part of which Parquet file cannot be read.

    The files are read again piece by piece, for a few seconds at most. Hold the connection's lock.
    """
    if not isinstance(error, SourceError) or error.code not in ("FILE_CORRUPT", "UNREADABLE_DATA"):
        return error
    if error.row_group is not None or connection.in_transaction or not statement.is_query:
        return error
    give_up = time.monotonic() + _SECONDS
    try:
        files = [error.file] if error.file else list(_parquet_files(statement, connection))
        for file in files:
            for row_group, column in _pieces(file, connection):
                if time.monotonic() > give_up:
                    return error
                if not _readable(file, row_group, column, connection):
                    where = f"row group {row_group}, column {column!r} of {file!r} cannot be read"
                    return SourceError(
                        f"{where}: {error.message}",
                        code="FILE_CORRUPT",
                        file=file,
                        column_name=column,
                        row_group=row_group,
                    )
    except duckdb.Error:
        return error
    return error


def _parquet_files(statement: Statement, connection: Connection) -> Iterator[str]:
    rows = connection.main.execute(f"EXPLAIN (SQL) {statement.text}", statement.parameters).fetchall()
    exported = str(rows[0][1])
    for call in _CALLS:
        begin = exported.find(call)
        while begin >= 0:
            argument = split_arguments(_inside(exported, begin + len(call)))[0]
            listed = connection.main.execute(
                f"SELECT file_name FROM system.main.parquet_file_metadata({argument})"
            ).fetchall()
            yield from (row[0] for row in listed)
            begin = exported.find(call, begin + 1)


def _inside(text: str, begin: int) -> str:
    """The text from ``begin`` to the bracket that closes it."""
    depth, quoted = 1, False
    for position in range(begin, len(text)):
        character = text[position]
        if character == "'":
            quoted = not quoted
        elif not quoted:
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return text[begin:position]
    return text[begin:]


def _pieces(file: str, connection: Connection) -> Iterator[tuple[int, str]]:
    facts = footer(file)
    columns = connection.main.execute(f"DESCRIBE FROM system.main.read_parquet({quote_text(file)})").fetchall()
    for row_group in range(len(facts.group_rows) if facts else 0):
        for column in columns:
            yield row_group, column[0]


def _readable(file: str, row_group: int, column: str, connection: Connection) -> bool:
    facts = footer(file)
    assert facts is not None
    first = sum(facts.group_rows[:row_group])
    rows = f"file_row_number BETWEEN {first} AND {first + facts.group_rows[row_group] - 1}"
    try:
        connection.main.execute(
            f"SELECT system.main.max(system.main.hash({quote_name(column)}))"
            f" FROM system.main.read_parquet({quote_text(file)}) WHERE {rows}"
        ).fetchall()
    except duckdb.Error:
        return False
    return True
