"""Rows that DuckDB keeps itself, because Arrow cannot hold all of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
_HELD = re.compile(r"\b(INTERVAL|VARIANT|AGGREGATE_STATE)\b")
_VARIANT = re.compile(r"\bVARIANT\b")


def must_be_held(types: Sequence[str]) -> bool:
    """Whether values of ``types`` can be lost where DuckDB makes Arrow of them as they are."""
    # Nearly never: one search over all of them says so.
    return _HELD.search(" ".join(types)) is not None and any(_HELD.search(_QUOTED.sub("_", text)) for text in types)


class HeldRows:
    """The rows of a statement that has run; they can be read any number of times while the session is open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, result: Any) -> None:
        """Keep the rows of ``result``, which was submitted on ``connection`` in the format ``rows``."""
        self.columns = tuple((column[0], str(column[1])) for column in result.description)
        self._connection = connection
        self._handle = connection._register_collection(result)

    @property
    def has_no_arrow_form(self) -> bool:
        """Whether the rows cannot leave DuckDB at all and keep their values."""
        return any(_VARIANT.search(_QUOTED.sub("_", text)) for _, text in self.columns)

    def count(self) -> int:
        """How many rows there are; asks the connection on which the statement ran."""
        ((rows,),) = self._connection.execute(f"SELECT system.main.count_star() FROM {self._handle.name}").fetchall()
        return int(rows)

    @property
    def sql(self) -> str:
        """The rows as an item of a FROM clause, with columns named ``c0``, ``c1``, …"""
        return f"{self._handle.name} AS held({', '.join(f'c{i}' for i in range(len(self.columns)))})"

    @property
    def written(self) -> str:
        """A SELECT of the rows with every value in the form that Arrow can hold."""
        from sabot_planner.sql.duck_type import duck_type  # rarely needed
        from sabot_planner.sql.edge_values import written

        items = [f"{written(f'c{i}', duck_type(text))} AS c{i}" for i, (_, text) in enumerate(self.columns)]
        return f"SELECT {', '.join(items)} FROM {self.sql}"
