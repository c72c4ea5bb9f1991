"""A logical plan as an indented tree, one node a line, for fixtures and messages."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum

from sqlglot import exp

from sabot_planner import SourceInfo
from sabot_planner.logical.node import Computed, Node, SortKey
from sabot_planner.logical.nodes import CteRef, Shared
from sabot_planner.sql.dialect import to_sql
from tests.planner.plan_text import renumbered


def tree_text(root: Node) -> str:
    """The tree; a shared node is written where it is first read. Columns are numbered as they appear."""
    lines: list[str] = []
    written: set[str] = set()

    def write(node: Node, depth: int) -> None:
        said = ", ".join(f"{name}={text}" for name, text in _attributes(node))
        lines.append(f"{'  ' * depth}{type(node).__name__}({said})")
        if isinstance(node, CteRef) and node.shared.cte_id in written:
            return
        if isinstance(node, Shared):
            written.add(node.cte_id)
        for child in node.inputs:
            write(child, depth + 1)

    write(root, 0)
    return renumbered("\n".join(lines)) + "\n"


def _attributes(node: Node) -> list[tuple[str, str]]:
    found = [(f.name, _text(getattr(node, f.name))) for f in fields(node) if f.name not in ("cte_id", "types")]
    return [(name, text) for name, text in found if text is not None]


def _text(value: object) -> str | None:
    """A field's value, None where it is an input or says nothing."""
    match value:
        case Node() | None | False | ():
            return None
        case exp.Expression():
            return to_sql(value)
        case Computed(name, expression, _):
            return f"{name}: {to_sql(expression)}"
        case SortKey(expression, descending, nulls_first):
            return f"{to_sql(expression)} {'DESC' if descending else 'ASC'} NULLS {'FIRST' if nulls_first else 'LAST'}"
        case SourceInfo():
            return value.name
        case Enum():
            return str(value)
        case tuple():
            items = [_text(item) for item in value]
            return None if all(item is None for item in items) else f"[{', '.join(i or '()' for i in items)}]"
        case _:
            return str(value)
