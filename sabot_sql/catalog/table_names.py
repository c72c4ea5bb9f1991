"""The tables of a connection by the names that SQL can call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sabot_sql.catalog.conversion import quote_name

TABLES_SQL = """
SELECT
    CASE WHEN temporary OR database_name = current_database() THEN NULL ELSE database_name END AS database_name,
    CASE
        WHEN temporary OR (database_name = current_database() AND schema_name = current_schema()) THEN NULL
        ELSE schema_name
    END AS schema_name,
    name,
    (SELECT list(keyword_name) FROM duckdb_keywords() WHERE keyword_category <> 'unreserved') AS keywords
FROM (
    SELECT database_name, schema_name, table_name AS name, temporary FROM duckdb_tables() WHERE NOT internal
    UNION ALL
    SELECT database_name, schema_name, view_name AS name, temporary FROM duckdb_views() WHERE NOT internal
)
"""
"""Database and schema of each table, where its name needs them, the name, and the words that are no names."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def named_tables(rows: Iterable[Sequence[Any]]) -> tuple[str, ...]:
    """The names of the rows of ``TABLES_SQL`` in order, with quotes where they need them."""
    return tuple(
        sorted(
            ".".join(_written(part, keywords) for part in (database, schema, name) if part is not None)
            for database, schema, name, keywords in rows
        )
    )


def _written(name: str, keywords: Sequence[str]) -> str:
    return name if _WORD.match(name) and name.lower() not in keywords else quote_name(name)
