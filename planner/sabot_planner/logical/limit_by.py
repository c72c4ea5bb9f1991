"""LIMIT and OFFSET by values that the query computes itself.

DuckDB exports them as subqueries over a shared expression of one row. They stay what they are: all rows are gathered in
their order, and DuckDB evaluates the clause in that one task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.logical.node import Node, Schema, derived
from sabot_planner.logical.nodes import Join, JoinKind, Values
from sabot_planner.sql.expression_tree import map_nodes, nodes
from sabot_planner.sql.scalars import column


@dataclass(frozen=True, eq=False)
class LimitBy(Node):
    """The first rows in input order; ``limit`` and ``offset`` are expressions over the one row of ``values``."""

    input: Node
    values: Node
    limit: exp.Expression | None
    offset: exp.Expression | None
    percent: bool

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The rows, and the row of the values."""
        return (self.input, self.values)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return self._over(input=inputs[0], values=inputs[1])

    @derived
    def schema(self) -> Schema:
        """That of the rows."""
        return self.input.schema

    @property
    def visible(self) -> Schema:
        """The one row of the values."""
        return self.values.schema

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        """The values of its two clauses."""
        return tuple(clause for clause in (self.limit, self.offset) if clause is not None)


def take_computed_limit(tree: exp.Expression, read: Callable[[exp.Expression], Node]) -> Callable[[Node], Node]:
    """Take LIMIT and OFFSET out of the block ``tree`` if they have subqueries; gives what puts them on its rows.

    ``read`` gives the plan of a subquery, of one column.
    """
    limit, offset = tree.args.get("limit"), tree.args.get("offset")
    clauses = [clause.args["expression"] for clause in (limit, offset) if clause is not None]
    if not any(type(node) is exp.Subquery for clause in clauses for node in nodes(clause)):
        return lambda node: node
    # One row even where a subquery has none, which then is NULL.
    values: Node = Values((), (), ((),))

    def edit(node: exp.Expression) -> exp.Expression | None:
        nonlocal values
        if type(node) is not exp.Subquery:
            return None
        value = read(node.args["this"])
        values = Join(JoinKind.LEFT, values, value, exp.Boolean(this=True))
        return column(value.columns[0])

    first = map_nodes(limit.args["expression"], edit) if limit is not None else None
    skipped = map_nodes(offset.args["expression"], edit) if offset is not None else None
    percent = limit is not None and bool(limit.args.get("percent"))
    tree.set("limit", None)
    tree.set("offset", None)
    return lambda node: LimitBy(node, values, first, skipped, percent)
