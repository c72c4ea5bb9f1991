"""Expressions nest and chain as far as DuckDB lets them: no pass over them stands on Python's stack."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlglot import exp

from sabot_planner.logical.replacements import Replacements
from sabot_planner.sql.dialect import parse_exported, to_sql
from sabot_planner.sql.expression_tree import map_nodes, nodes
from sabot_planner.sql.scalars import columns_of, conjunction, conjuncts

DEPTH = 5_000

SHAPES: dict[str, Callable[[int], str]] = {
    "calls": lambda n: '"+"(' * n + "1" + ", 2)" * n,
    "right-hand calls": lambda n: '"+"(1, ' * n + "2" + ")" * n,
    "cases": lambda n: "CASE WHEN a THEN 1 ELSE " * n + "2" + " END" * n,
    "conditions": lambda n: "CASE WHEN " * n + "a" + " THEN TRUE END" * n,
    "casts": lambda n: "CAST(" * n + "a" + " AS BIGINT)" * n,
    "negations": lambda n: "(NOT " * n + "a" + ")" * n,
    "comparisons": lambda n: "(" * n + "a" + " = b)" * n,
    "pairs": lambda n: "(" * n + "a" + " AND b)" * n,
    "coalesce": lambda n: "COALESCE(" * n + "a" + ", b)" * n,
    "subscripts": lambda n: "a" + "[1]" * n,
    "AND": lambda n: "(" + " AND ".join(["a"] * n) + ")",
    "OR": lambda n: "(" + " OR ".join(["(a = b)"] * n) + ")",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_read_changed_and_printed(shape: str) -> None:
    text = SHAPES[shape](DEPTH)
    tree = parse_exported(f"SELECT {text} AS x")
    assert to_sql(tree) == f"SELECT {text} AS x"
    expression = tree.expressions[0].this
    other = map_nodes(expression, lambda node: exp.Null() if type(node) is exp.Column else None)
    assert columns_of(other) == frozenset()
    assert len(nodes(other)) <= len(nodes(expression))
    edits = Replacements()
    edits.add("a", exp.column("a"), exp.column("b"))
    edits.add(to_sql(expression), expression, exp.column("whole"))
    assert to_sql(edits.apply(expression)) == "whole"
    assert to_sql(edits.apply(exp.Not(this=expression))) == "(NOT whole)"


def test_a_long_conjunction_is_taken_apart_and_put_together() -> None:
    terms = conjuncts(
        parse_exported("SELECT (" + " AND ".join(f"c{i}" for i in range(DEPTH)) + ") AS x").expressions[0].this
    )
    assert [to_sql(t) for t in terms] == [f"c{i}" for i in range(DEPTH)]
    whole = conjunction(terms)
    assert whole is not None
    assert [to_sql(t) for t in conjuncts(whole)] == [f"c{i}" for i in range(DEPTH)]


def test_a_pair_in_parentheses_stays_one_operand() -> None:
    for text in ("((a AND b) AND c)", "(a AND (b AND c))", "(a OR (b OR c) OR d)", "((a OR b) AND (c OR d))"):
        assert to_sql(parse_exported(f"SELECT {text} AS x")) == f"SELECT {text} AS x"
