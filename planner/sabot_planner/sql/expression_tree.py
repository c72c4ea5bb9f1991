"""Walking over scalar expressions, from lists and not on Python's stack: they may be of any depth.

The nodes of sqlglot are equal to others that are spelled alike, so that what is found for single nodes is kept by their
identity: here, for as long as one function runs, and nowhere else in the planner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp


def children(expression: exp.Expression) -> list[exp.Expression]:
    """The direct sub-expressions; the names and types that are parts of an expression are none."""
    if type(expression) in _LEAVES:
        return []
    found: list[exp.Expression] = []
    for value in expression.args.values():
        if type(value) is list:
            found += [item for item in value if isinstance(item, exp.Expression)]
        elif isinstance(value, exp.Expression) and type(value) not in _NAMES_AND_TYPES:
            found.append(value)
    return found


_NAMES_AND_TYPES = frozenset({exp.Identifier, exp.DataType})
_LEAVES = frozenset({exp.Column, exp.Literal, exp.Null, exp.Boolean, exp.Var, *_NAMES_AND_TYPES})


def nodes(expression: exp.Expression) -> list[exp.Expression]:
    """The expression and everything inside it, what is outside first."""
    found = [expression]
    for node in found:  # which grows meanwhile
        if type(node) not in _LEAVES:
            found += children(node)
    return found


def map_nodes(expression: exp.Expression, edit: Callable[[exp.Expression], exp.Expression | None]) -> exp.Expression:
    """A copy in which every node for which ``edit`` returns another one is replaced; replaced nodes are not entered.

    What holds no replaced node is not copied.
    """
    new: dict[int, exp.Expression] = {}
    kept: list[exp.Expression] = []
    left = [expression]
    while left:
        node = left.pop()
        replaced = edit(node)
        if replaced is not None:
            new[id(node)] = replaced
        else:
            if type(node) not in _LEAVES:
                kept.append(node)
                left += reversed(children(node))
    for node in reversed(kept):  # what is inside comes first
        args: dict[str, Any] = {}
        changed = False
        for name, value in node.args.items():
            if isinstance(value, exp.Expression):
                args[name] = new.get(id(value), value)
                changed |= args[name] is not value
            elif type(value) is list:
                args[name] = [new.get(id(v), v) if isinstance(v, exp.Expression) else v for v in value]
                changed |= any(a is not b for a, b in zip(args[name], value, strict=True))
            else:
                args[name] = value
        if changed:
            new[id(node)] = type(node)(**args)
    return new.get(id(expression), expression)


def sizes(expression: exp.Expression) -> Callable[[exp.Expression], int]:
    """Tell how many nodes a node of the expression is made of; parentheses are none."""
    counted: dict[int, int] = {}
    for node in reversed(nodes(expression)):
        size = 0 if type(node) is exp.Paren else 1
        for inner in children(node):
            size += counted[id(inner)]
        counted[id(node)] = size
    return lambda node: counted[id(node)]
