"""A PIVOT whose values are not listed, which is several statements to DuckDB, as one query.

DuckDB makes an ENUM of the values that it finds and pivots by that. The same is done here, so that names and order of
the columns are DuckDB's; the query that remains can be exported, and so distributed:

    PIVOT t ON s USING sum(v)  →  CREATE TEMP TYPE x AS ENUM (SELECT DISTINCT CAST(s AS VARCHAR) FROM t … ORDER BY 1)
                                  PIVOT t ON s IN x USING sum(v)
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import duckdb

from sabot_sql.catalog.connection import Connection, Statement
from sabot_sql.duck.statement_tokens import StatementTokens
from sabot_sql.errors import SabotSQLError

_ENDS = frozenset({"USING", "GROUP", "ORDER", "LIMIT", "OFFSET", "UNION", "INTERSECT", "EXCEPT", ")"})
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class OpenPivot:
    """A statement with one PIVOT; ``values`` are the queries for the values of its open elements.

    ``pieces`` are the text around the places where the values belong, one more than there are values.
    """

    values: tuple[str, ...]
    pieces: tuple[str, ...]

    def with_values(self, names: list[str]) -> str:
        """The statement that pivots by these types."""
        first, *rest = self.pieces
        return first + "".join(f" IN {name}{piece}" for name, piece in zip(names, rest, strict=True))


def parse_pivot(text: str) -> OpenPivot | None:
    """The parts of a statement with one PIVOT; None wherever there is a doubt what its source is."""
    tokens = StatementTokens(text)
    places = [i for i in range(tokens.end) if tokens.word(i) == "PIVOT"]
    if len(places) != 1:
        return None
    (pivot,) = places
    with_clause = _with_clause(tokens, pivot)
    on = tokens.find(("ON",), pivot + 1)
    if with_clause is None or on is None:
        return None
    joined = tokens.find(("JOIN", ",", *_ENDS), pivot + 1)
    if joined is not None and joined < on:
        return None
    source = tokens.text_of(pivot + 1, on)
    values: list[str] = []
    pieces: list[str] = []
    first, written = on + 1, 0
    while True:
        end = tokens.find((",", *_ENDS), first)
        last = tokens.end if end is None else end
        if tokens.find(("IN",), first, last) is None:
            element = tokens.text_of(first, last)
            if not element or element[0] in "(*" or tokens.find(("COLUMNS",), first, last) is not None:
                return None
            value = f"SELECT DISTINCT CAST(({element}) AS VARCHAR) FROM {source} WHERE ({element}) IS NOT NULL"
            values.append(f"{with_clause} {value} ORDER BY 1 ASC")
            # "k + 1 IN x" would be one expression.
            pieces.append(f"{tokens.text_of(written, first)} ({element})")
            written = last
        if end is None or tokens.word(end) != ",":
            break
        first = end + 1
    # A comment between two pieces is left out with the space there.
    return OpenPivot(tuple(values), (*pieces, f" {tokens.text_of(written, tokens.end)}")) if values else None


def _with_clause(tokens: StatementTokens, pivot: int) -> str | None:
    """The WITH clause whose names the source of the PIVOT may use; None where that cannot be said."""
    clauses = [i for i in range(pivot) if tokens.word(i) == "WITH"]
    if not clauses:
        return "" if pivot == 0 or tokens.word(pivot - 1) == "(" else None
    if clauses[0] != 0:
        return None
    if tokens.depth(pivot) == 0:
        return tokens.text_of(0, pivot)
    # WITH p AS (PIVOT …: there is no other name yet.
    alone = len(clauses) == 1 and tokens.depth(pivot) == 1 and tokens.find((",",), 1, pivot) is None
    opens = tokens.word(pivot - 1) == "(" and tokens.word(pivot - 2) in ("AS", "MATERIALIZED")
    return "" if alone and opens and tokens.word(1) != "RECURSIVE" else None


def list_values(statement: Statement, connection: Connection, made: list[str]) -> Statement | None:
    """The query that ``statement`` is with the values that are there now; None where that cannot be said.

    It needs the types that were made for it, whose names are added to ``made``.
    """
    form = parse_pivot(statement.text) if not statement.parameters and not connection.in_transaction else None
    if form is None:
        return None
    names = [f"__sabot_pivot_{next(_numbers)}" for _ in form.values]
    try:
        for name, value in zip(names, form.values, strict=True):
            connection.main.execute(f"CREATE TEMP TYPE {name} AS ENUM ({value})")
            made.append(name)
        (query,) = connection.split(form.with_values(names), None)
    except (duckdb.Error, RuntimeError, SabotSQLError, ValueError):
        return None  # whatever is wrong, DuckDB says it about the user's own text
    return query if query.is_query else None
