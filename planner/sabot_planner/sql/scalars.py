"""Small questions and edits on scalar expressions whose columns carry plan-wide names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import exp

from sabot_planner.sql.dialect import chained, data_type, to_sql
from sabot_planner.sql.duck_type import DuckType
from sabot_planner.sql.expression_tree import map_nodes, nodes


def column(name: str) -> exp.Column:
    """A reference to the plan's column ``name``."""
    return exp.Column(this=exp.Identifier(this=name, quoted=False))


def column_name(expression: exp.Expression) -> str | None:
    """The plan name where the expression is nothing but a column."""
    if type(expression) is exp.Column:
        name: str = expression.args["this"].args["this"]
        return name
    return None


def columns_of(*expressions: exp.Expression | None) -> frozenset[str]:
    """Names of the plan columns that the expressions read; the parameters of lambdas are none."""
    if len(expressions) == 1 and expressions[0] is not None:
        return _read_by(expressions[0])
    return frozenset().union(*(_read_by(e) for e in expressions if e is not None))


def _read_by(expression: exp.Expression) -> frozenset[str]:
    """The columns that one expression reads, remembered with it: what a plan holds is not changed any more."""
    if type(expression) is exp.Column:
        return frozenset((expression.args["this"].args["this"],))
    known: frozenset[str] | None = expression.meta.get(_READ)
    if known is None:
        found: set[str] = set()
        parameters: set[str] = set()
        for node in nodes(expression):
            kind = type(node)
            if kind is exp.Column:
                found.add(node.args["this"].args["this"])
            elif kind is exp.Lambda:
                parameters.update(i.args["this"] for i in node.args["expressions"])
        known = expression.meta[_READ] = frozenset(found - parameters)
    return known


_READ = "columns read"


def conjuncts(predicate: exp.Expression | None) -> list[exp.Expression]:
    """The terms of a conjunction, in order."""
    found: list[exp.Expression] = []
    left = [predicate]
    while left:
        term = left.pop()
        if type(term) is exp.Paren:
            left.append(term.args["this"])
        elif type(term) is exp.And:
            left += (term.args["expression"], term.args["this"])
        elif term is not None:
            found.append(term)
    return found


def conjunction(terms: Iterable[exp.Expression]) -> exp.Expression | None:
    """The conjunction of the terms; None of none."""
    operands = list(terms)
    return chained(exp.And, operands) if operands else None


def substitute(expression: exp.Expression, mapping: Mapping[str, exp.Expression]) -> exp.Expression:
    """The expression with columns replaced; the same object where it reads none of them."""
    if not (columns_of(expression) & mapping.keys()):
        return expression

    def edit(node: exp.Expression) -> exp.Expression | None:
        name = column_name(node)
        return mapping.get(name) if name is not None else None

    return map_nodes(expression, edit)


def strip_parens(expression: exp.Expression) -> exp.Expression:
    """The expression inside any parentheses."""
    while type(expression) is exp.Paren:
        expression = expression.args["this"]
    return expression


def key_name(expression: exp.Expression) -> str:
    """What a partitioning calls the expression: a column's name, else its SQL text."""
    return column_name(expression) or to_sql(expression)


@dataclass(frozen=True, slots=True)
class EquiKey:
    """An equality between an expression of the left input and one of the right."""

    left: exp.Expression
    right: exp.Expression
    null_safe: bool


def equi_keys(
    condition: exp.Expression | None, left: frozenset[str], right: frozenset[str]
) -> tuple[list[EquiKey], list[exp.Expression]]:
    """The equalities of a join condition between its two sides, and the remaining terms."""
    keys: list[EquiKey] = []
    rest: list[exp.Expression] = []
    for term in conjuncts(condition):
        kind = type(term)
        if kind is exp.EQ or kind is exp.NullSafeEQ:
            a, b = term.args["this"], term.args["expression"]
            in_a, in_b = columns_of(a), columns_of(b)
            if in_a and in_b:
                if in_a <= left and in_b <= right:
                    keys.append(EquiKey(a, b, kind is exp.NullSafeEQ))
                    continue
                if in_a <= right and in_b <= left:
                    keys.append(EquiKey(b, a, kind is exp.NullSafeEQ))
                    continue
        rest.append(term)
    return keys, rest


@lru_cache(maxsize=4096)
def literal(text: str) -> exp.Literal:
    """A string literal."""
    return exp.Literal(this=text, is_string=True)


def integer(value: int, type_text: str = "BIGINT") -> exp.Expression:
    """An integer constant of a type."""
    number: exp.Expression = exp.Cast(this=exp.Literal(this=str(value), is_string=False), to=data_type(type_text))
    return number


def cast(expression: exp.Expression, kind: DuckType) -> exp.Expression:
    """The expression cast to a type."""
    node: exp.Expression = exp.Cast(this=expression, to=data_type(kind.text))
    return node


def null_of(kind: DuckType) -> exp.Expression:
    """NULL of a type."""
    return cast(exp.Null(), kind)


def not_null(expression: exp.Expression) -> exp.Expression:
    """Whether the expression is not NULL."""
    negated: exp.Expression = exp.Not(this=exp.Is(this=expression, expression=exp.Null()))
    return negated
