"""What a plan may not hold if it is to be distributed; each refusal is a free function and says why."""

from __future__ import annotations

from collections.abc import Iterable

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.expressions import RAISING, functions_of
from sabot_planner.logical.node import Node, walk
from sabot_planner.logical.nodes import Aggregate, Sort
from sabot_planner.sql.dialect import function_call
from sabot_planner.sql.duck_type import DuckType, lost_on_edges
from sabot_planner.sql.expression_tree import nodes

_PLAIN = frozenset({"C", "BINARY", "POSIX"})
"""Collations that compare text byte by byte."""


def refuse_volatile(root: Node, context: PlanContext) -> None:
    """A volatile function gives other rows when it runs elsewhere or more often: such a query stays whole.

    ``error()``, which DuckDB counts among them, gives none: wherever the plan evaluates it, the query ends.

    Raises:
        Undistributable: the plan calls one.
    """
    volatile = context.volatile_functions() - {RAISING}
    for node in walk(root):
        for expression in node.expressions:
            for name in functions_of(expression):
                if name in volatile:
                    raise Undistributable(f"{name}() is volatile")


def refuse_states(output: Iterable[DuckType]) -> None:
    """Aggregate states in the result: as Arrow, some of them end DuckDB's process.

    Raises:
        Undistributable: a column is one.
    """
    if any("AGGREGATE_STATE" in kind.kinds for kind in output):
        raise Undistributable("an aggregate state does not survive the way to the result")


def refuse_lost(output: Iterable[DuckType]) -> None:
    """Values in the result that cannot be had back from an edge, as which it leaves the agents.

    Raises:
        Undistributable: a column has them.
    """
    for kind in output:
        lost = lost_on_edges(kind)
        if lost is not None:
            raise Undistributable(f"a column of type {lost} does not survive between agents")


def refuse_what_only_tables_have(root: Node) -> None:
    """Operators that do not work over an edge in DuckDB 2.0.

    ``bitstring_agg`` of one argument needs its column's statistics.

    Raises:
        Undistributable: the plan has one.
    """
    for node in walk(root):
        for aggregate in node.aggregates if isinstance(node, Aggregate) else ():
            found = function_call(aggregate.expression)
            if found is not None and found[0] == "bitstring_agg" and len(found[1]) == 1:
                raise Undistributable("bitstring_agg without bounds needs the statistics of a table")


def refuse_collated(root: Node, context: PlanContext) -> None:
    """Text with a collation keeps it in a scan and loses it on an edge: groups and joins would disagree.

    COLLATE C, which DuckDB writes on every text it sorts by, and its other names are how plain text compares. An order
    by a collation is one by a key that DuckDB wrote out, ``lower(c COLLATE NOCASE)``, of plain text.

    Raises:
        Undistributable: the plan compares text by another collation.
    """
    for node in walk(root):
        for expression in node.expressions:
            if isinstance(node, Sort) and _is_written_out(expression):
                continue
            for inner in nodes(expression):
                if type(inner) is exp.Collate and str(inner.args["expression"].args["this"]).upper() not in _PLAIN:
                    raise Undistributable("collated text loses its collation between agents")
    if context.is_collated():
        raise Undistributable("collated text loses its collation between agents")


def _is_written_out(key: exp.Expression) -> bool:
    """Whether a sort key is the text of a column as a collation spells it, which is compared byte by byte."""
    while True:
        if type(key) is exp.Collate:
            key = key.args["this"]
        elif type(key) is exp.Anonymous and len(key.args["expressions"]) == 1 and _spells(key.args["this"].lower()):
            (key,) = key.args["expressions"]
        else:
            return type(key) is exp.Column


def _spells(function: str) -> bool:
    return function in ("lower", "strip_accents") or function.startswith("collate_")
