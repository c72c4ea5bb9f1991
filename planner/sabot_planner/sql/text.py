"""SQL text that needs no tree: quoting, calls of built-in functions, and binding a fragment's inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable

SYSTEM_SCHEMA = '"system".main'
"""Where DuckDB's own functions are, and no macro of a user's."""


def task_sql(sql: str, bindings: Iterable[tuple[str, tuple[str, ...], str]]) -> str:
    """``sql`` with its inputs bound: ``bindings`` are (relation name, column names, SELECT text), in dependency order.

    A WITH clause that ``sql`` starts with is kept after the bindings.
    """
    parts = []
    for name, columns, body in bindings:
        names = f"({', '.join(quote(c) for c in columns)})" if columns else ""
        parts.append(f"{quote(name)}{names} AS NOT MATERIALIZED ({body})")
    if not parts:
        return sql
    match = re.match(r"\s*WITH\s+(RECURSIVE\s+)?", sql, re.IGNORECASE)
    if match:
        recursive = "RECURSIVE " if match.group(1) else ""
        return f"WITH {recursive}{', '.join(parts)}, {sql[match.end() :]}"
    return f"WITH {', '.join(parts)} {sql}"


def edge_column(name: str, type_text: str) -> str:
    """SQL of a column that came over an edge, with the type that its producer's DuckDB gave it.

    Arrow has an ENUM as text, which would sort otherwise; every other form in which a value travels is the planner's,
    and it takes it back in the fragment itself (:mod:`sabot_planner.sql.edge_values`).
    """
    quoted = quote(name)
    return f"CAST({quoted} AS {type_text}) AS {quoted}" if "ENUM(" in type_text else quoted


def builtin(name: str, *arguments: str) -> str:
    """A call of DuckDB's built-in function ``name``, immune to what the user named alike."""
    return f"{SYSTEM_SCHEMA}.{name}({', '.join(arguments)})"


def quote(identifier: str) -> str:
    """``identifier`` as a quoted SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'
