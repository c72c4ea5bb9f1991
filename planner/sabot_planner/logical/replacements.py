"""Expressions and the columns that stand for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sabot_planner.sql.dialect import to_sql
from sabot_planner.sql.scalars import children, map_nodes, nodes


@dataclass(slots=True)
class Replacements:
    """Expressions that columns stand for; the same text is the same expression.

    A node is printed only where an expression of its class and size is looked for: of one size there are no two nodes
    of which one is inside the other, so that the time goes by the length of what is searched.
    """

    _columns: dict[str, exp.Expression] = field(default_factory=dict)
    _shapes: set[tuple[type[exp.Expression], int]] = field(default_factory=set)

    def add(self, text: str, expression: exp.Expression, column: exp.Expression) -> None:
        """Let ``column`` stand for ``expression``, which is printed as ``text``."""
        self._columns[text] = column
        self._shapes.add((type(expression), sizes(expression)[id(expression)]))

    def apply(self, expression: exp.Expression) -> exp.Expression:
        """The expression with its outermost known parts replaced."""
        if not self._columns:
            return expression
        counted = sizes(expression)

        def edit(node: exp.Expression) -> exp.Expression | None:
            known = (type(node), counted[id(node)]) in self._shapes
            return self._columns.get(to_sql(node)) if known else None

        return map_nodes(expression, edit)


def sizes(expression: exp.Expression) -> dict[int, int]:
    """How many nodes each node of the expression is made of, by identity; parentheses are none."""
    counted: dict[int, int] = {}
    for node in reversed(nodes(expression)):
        size = 0 if type(node) is exp.Paren else 1
        for inner in children(node):
            size += counted[id(inner)]
        counted[id(node)] = size
    return counted
