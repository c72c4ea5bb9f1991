"""Expressions and the columns that stand for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sabot_planner.sql.dialect import to_sql
from sabot_planner.sql.expression_tree import map_nodes, sizes


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
        self._shapes.add((type(expression), sizes(expression)(expression)))

    def apply(self, expression: exp.Expression) -> exp.Expression:
        """The expression with its outermost known parts replaced."""
        if not self._columns:
            return expression
        size_of = sizes(expression)

        def edit(node: exp.Expression) -> exp.Expression | None:
            known = (type(node), size_of(node)) in self._shapes
            return self._columns.get(to_sql(node)) if known else None

        return map_nodes(expression, edit)
