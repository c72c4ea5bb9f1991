"""A fragment reads and nothing else: what writes, attaches or sets is refused before DuckDB runs it."""

from __future__ import annotations

import itertools
import re

import duckdb

from sabot_sql.errors import QueryError

_WRITES = re.compile(rb"(?:INSERT|UPDATE|DELETE|MERGE|COPY)(?![\w$\x80-\xff])", re.IGNORECASE)


def require_query(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse any text that is not one query.

    Raises:
        QueryError: it is another statement, several, or a query with an expression that writes.
        duckdb.Error: it cannot be parsed.
    """
    kinds = [statement.type.name for statement in connection.extract_statements(sql)]
    if kinds != ["SELECT"]:
        raise QueryError(f"a fragment is one query, not {' and '.join(kinds) or 'nothing'}", code="NOT_A_QUERY")
    found = _write_within(sql.encode())
    if found is not None:
        raise QueryError(f"a fragment is a query, and {found} in one writes", code="NOT_A_QUERY")


def _write_within(sql: bytes) -> str | None:
    """The word that a common table expression which writes begins with; to the parser such a query is a SELECT.

    Elsewhere such a word stands right after a parenthesis only where a column is called so and is not quoted.
    """
    if not _WRITES.search(sql):
        return None
    tokens = [offset for offset, kind in duckdb.tokenize(sql.decode()) if kind is not duckdb.token_type.comment]
    for before, offset in itertools.pairwise(tokens):
        word = _WRITES.match(sql, offset)
        if word and sql[before : before + 1] == b"(":
            return word[0].decode().upper()
    return None
