"""The SQL between DuckDB and the planner: ``EXPLAIN (SQL)`` text to a sqlglot tree, and trees to DuckDB SQL.

DuckDB prints its optimised plan in a small, fully explicit language, and a planner may only work on what it has read
exactly. So that language has its own reader and writer here, over sqlglot's node classes: whatever the reader does not
know it refuses (``Undistributable``), and the writer prints every node in one way. sqlglot's own parser accepts more
and drops some of it silently; besides, its classes cannot be subclassed where its compiled build is installed.

The tree
--------
Nodes are built by constructor; no argument is ever copied. Parentheses are not kept: the writer puts them where
operators nest. Names and numbers keep their spelling, strings and quoted identifiers their value.

============================================= ==========================================================================
SQL                                           node
============================================= ==========================================================================
``"system".main.f(a, b)``                     ``Anonymous(this="f", expressions=[a, b], schema='"system".main')``; an
                                              unqualified call has no ``schema``. Operators are calls: ``"+"(a, b)``.
                                              ``unnest(x)``, ``GROUPING(x)``, ``count_star()`` are calls like any other.
``f(DISTINCT a ORDER BY b IGNORE NULLS)``     the same node with ``distinct=True``, ``order=Order``, ``nulls="IGNORE"``
``f(a) FILTER (WHERE p)``                     the same node with ``filter=p``
``f(a) EXPORT_STATE``                         the same node with ``export_state=True``
``f(a) OVER (…)``                             ``Window(this=call, partition_by=[…], order=Order, spec=WindowSpec)``;
                                              ``spec`` has ``kind`` (``"ROWS"``), ``start``, ``start_side``, ``end``,
                                              ``end_side``, ``exclude`` (text); a bound is a node, ``"UNBOUNDED"`` or
                                              ``"CURRENT ROW"``
``CAST(a AS t)``, ``TRY_CAST(a AS t)``        ``Cast`` / ``TryCast`` with ``to=DataType(USERDEFINED, kind=text)``; see
                                              :func:`data_type` and :func:`type_text`
``a = b``, ``!=``, ``<``, … ``AND``, ``OR``   ``EQ``, ``NEQ``, ``LT``, ``LTE``, ``GT``, ``GTE``, ``And``, ``Or``; chains
                                              are balanced trees, and ``(a AND b) AND c`` has a ``Paren``
``a IS [NOT] DISTINCT FROM b``                ``NullSafeNEQ`` / ``NullSafeEQ``
``a IS NULL``, ``a IS NOT NULL``              ``Is(this=a, expression=Null())``, ``Not(Is(…))``
``NOT a``, ``a IN (…)``, ``a BETWEEN b AND c`` ``Not``, ``In``, ``Between``
``COALESCE``, ``CASE``                        ``Coalesce(this, expressions)``, ``Case(ifs=[If(this, true)], default)``
``t.c``, ``c``, ``__mark_join_marker``        ``Column(this, table)``; the first of several names is a relation
``t.c.f.g``                                   ``Dot(this=Dot(this=Column, expression=f), expression=g)``: struct fields
``x[i]``, ``x[a:b:s]``                        ``Bracket(this=x, expressions=[i or Slice(this, expression, step)])``
``(lambda x, y: e)``                          ``Lambda(this=e, expressions=[Identifier, …])``
``a := b``                                    ``PropertyEQ``
``e COLLATE c``                               ``Collate(this=e, expression=Identifier)``
``X'41'``, ``B'01'``, ``'s'``, ``1.5``        ``HexString``, ``BitString``, ``Literal``, ``Literal``
``TRUE``, ``NULL``, ``- 5``                   ``Boolean``, ``Null``, ``Neg``
a long list of constants                      one ``Var(this=text)`` for all of them; see ``constant_lists``
``(SELECT …)`` in an expression               ``Subquery`` without alias
============================================= ==========================================================================

Queries are ``Select``, ``Values`` or a ``SetOperation`` (``Union``, ``Except``, ``Intersect``, with ``distinct``, whose
``this`` and ``expression`` are queries), each with ``with_``, ``order``, ``limit``, ``offset`` of its own; with
``chained``, ``this`` stands without parentheses: DuckDB reads ``(a) UNION ALL (b) UNION ALL (c)`` as one operation of
three. ``Limit`` has ``percent=True`` for ``LIMIT (n) %``. A ``Select`` also has ``expressions``, ``distinct``
(``Distinct(on=Tuple)`` for DISTINCT ON), ``from_``, ``joins``, ``where``, ``group`` (``Group(expressions,
grouping_sets=[GroupingSets])``), ``having``, ``qualify``, ``sample`` (``TableSample(size=text)``). A ``CTE`` has
``materialized`` and, for ``USING KEY (…)``, ``key_expressions``.

Relations: ``Table(this=Identifier, db, catalog, alias)``; ``Table(this=call, alias)`` for a table function;
``Subquery(this=query, alias)`` for a derived table, VALUES included. ``alias`` is ``TableAlias(this, columns)``.
Joins lean to the left: ``((a JOIN b) JOIN c)`` is ``from_=From(a), joins=[b, c]``. A join on the right-hand side of
another is a ``Subquery(this=first relation, joins=[…])`` without alias.

A ``Join`` has ``this``, ``on`` and

* ``by_type``: the word of ``JOIN BY (TYPE …)`` — ``"MARK"``, ``"SINGLE"``, ``"RIGHT_SEMI"``, ``"RIGHT_ANTI"``, … — or
  ``None``; ``kind`` and ``side`` are empty beside it;
* ``side``: ``"LEFT"``, ``"RIGHT"``, ``"FULL"`` or empty; ``kind``: ``"INNER"``, ``"CROSS"``, ``"SEMI"``, ``"ANTI"`` or
  empty; ``method``: ``"ASOF"``, ``"POSITIONAL"`` or empty.

:func:`join_type` reads them as one word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp

from sabot_planner.sql.duck_type import data_type
from sabot_planner.sql.expression_reader import chained
from sabot_planner.sql.query_reader import read_exported, read_rows
from sabot_planner.sql.text import SYSTEM_SCHEMA
from sabot_planner.sql.writer import write_sql

__all__ = [
    "call",
    "chained",
    "data_type",
    "function_call",
    "join_type",
    "parse_exported",
    "parse_rows",
    "sql_beginning",
    "to_sql",
    "type_text",
]


def parse_exported(sql: str, check: Callable[[], None] = lambda: None) -> exp.Expression:
    """The tree of one query as ``EXPLAIN (SQL)`` prints it; see the module's description of its nodes.

    ``check`` is called now and then; what it raises ends the reading.

    Raises:
        Undistributable: the text has a form that this reader does not know.
    """
    tree: exp.Expression = read_exported(sql, check)
    return tree


def parse_rows(sql: str) -> list[list[exp.Expression]]:
    """The rows of a VALUES whose text after that word is ``sql``."""
    rows: list[list[exp.Expression]] = read_rows(sql)
    return rows


def to_sql(expression: exp.Expression) -> str:
    """DuckDB SQL of a tree of the nodes that the module describes; the tree is not changed.

    Raises:
        PlannerError: the tree has a node of another class.
    """
    return write_sql(expression)


def sql_beginning(expression: exp.Expression, characters: int) -> str:
    """As :func:`to_sql`, but once there are ``characters`` of it the rest may be missing."""
    return write_sql(expression, characters)


def function_call(node: object) -> tuple[str, list[Any]] | None:
    """The lower-case name and the argument nodes of a call, looking through OVER; ``None`` for any other node."""
    if type(node) is exp.Window:
        node = node.args["this"]
    if type(node) is exp.Anonymous:
        return node.args["this"].lower(), node.args["expressions"]
    return None


def call(name: str, *arguments: exp.Expression) -> exp.Anonymous:
    """A call of DuckDB's built-in function or operator ``name``, immune to what the user named alike."""
    return exp.Anonymous(this=name, expressions=list(arguments), schema=SYSTEM_SCHEMA)


def type_text(cast: exp.Expression) -> str:
    """The type that a CAST or TRY_CAST casts to, spelled as ``typeof`` spells it but for the exporter's aliases."""
    text: str = cast.args["to"].args["kind"]
    return text


def join_type(join: exp.Join) -> str:
    """The type of a join as one upper-case word.

    INNER, CROSS, LEFT, RIGHT, FULL, SEMI, ANTI, RIGHT_SEMI, RIGHT_ANTI, MARK, SINGLE, ASOF, ASOF_LEFT, ASOF_RIGHT,
    ASOF_FULL, POSITIONAL, or whatever else stands in ``JOIN BY (TYPE …)``.
    """
    args = join.args
    by_type: str | None = args.get("by_type")
    if by_type:
        return by_type
    kind, side, method = args.get("kind") or "", args.get("side") or "", args.get("method") or ""
    if not (kind or side or method):
        return "INNER"
    return "_".join(word for word in (method, side, kind) if word and (word != "INNER" or not method))
