"""DuckDB's binary sort keys: an ordering as one comparable value."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.logical.node import SortKey
from sabot_planner.sql.dialect import call
from sabot_planner.sql.scalars import literal, substitute


def sort_key_call(keys: tuple[SortKey, ...], back: dict[str, exp.Expression]) -> exp.Expression:
    """DuckDB's binary sort key of an ordering: its bytes compare as the rows do.

    A key of at most eight bytes comes back as a BIGINT unless a text stands at its end; the text is always the same.
    """
    arguments: list[exp.Expression] = []
    for key in keys:
        nulls = "FIRST" if key.nulls_first else "LAST"
        modifiers = f"{'DESC' if key.descending else 'ASC'} NULLS {nulls}"
        arguments += [substitute(key.expression, back), literal(modifiers)]
    return call("create_sort_key", *arguments, literal(""), literal("ASC NULLS LAST"))
