"""Names in exported SQL to columns of the plan: what is visible where."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.logical.node import Node

MARKER = "__mark_join_marker"


@dataclass(slots=True)
class Scope:
    """The columns that a FROM clause makes visible; ``marker`` is the column of its MARK join."""

    columns: dict[tuple[str, str], str] = field(default_factory=dict)
    marker: str | None = None

    def add(self, alias: str, names: list[str], columns: tuple[str, ...]) -> None:
        """Make ``columns`` visible as ``alias.name``."""
        for name, column in zip(names, columns, strict=True):
            self.columns[alias, name] = column

    def merge(self, other: Scope) -> None:
        """Make visible what ``other`` shows."""
        self.columns.update(other.columns)
        if other.marker is not None:
            if self.marker is not None:
                raise Undistributable("two mark joins in one FROM clause")
            self.marker = other.marker

    def resolve(self, expression: exp.Expression) -> exp.Expression:
        """Rename, in place, every qualified column of the expression to its plan-wide name."""
        stack = [expression]
        while stack:
            node = stack.pop()
            kind = type(node)
            if kind is exp.Column:
                self._resolve_column(node)
                continue
            if kind is exp.Subquery or kind is exp.Select:
                raise Undistributable("a subquery inside an expression")
            for value in node.args.values():
                if isinstance(value, exp.Expression):
                    stack.append(value)
                elif type(value) is list:
                    stack.extend(v for v in value if isinstance(v, exp.Expression))
        return expression

    def _resolve_column(self, node: exp.Expression) -> None:
        identifier = node.args["this"]
        name = identifier.args["this"]
        table = node.args.get("table")
        if table is None:
            if name == MARKER and self.marker is not None:
                node.set("this", exp.Identifier(this=self.marker, quoted=False))
            return  # otherwise a lambda's parameter
        found = self.columns.get((table.args["this"], name))
        if found is None:
            raise Undistributable(f"the exported plan names an unknown column {table.args['this']}.{name}")
        node.set("this", exp.Identifier(this=found, quoted=False))
        node.set("table", None)


@dataclass(slots=True)
class Relation:
    """A relation of a FROM clause: its plan and what it makes visible."""

    node: Node
    scope: Scope
