"""ASOF RIGHT and FULL joins by way of joins that DuckDB 2.0 gets right."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.logical.nodes import Computed, CteRef, Join, JoinKind, Node, Project, Shared, Window, rewrite
from sabot_planner.sql.dialect import call
from sabot_planner.sql.scalars import column, substitute


def asof_in_two_steps(root: Node) -> Node:
    """ASOF joins that give rows of the right side without partner find them by their number.

        l ASOF RIGHT JOIN r   is   (l ASOF JOIN r)      RIGHT JOIN r   ON the number of the row of r
        l ASOF FULL JOIN r    is   (l ASOF LEFT JOIN r) FULL JOIN r    ON the number of the row of r

    Where right rows have no partner, DuckDB 2.0 may never end such a join, and loses some of these rows where the left
    side has no row of their key.
    """
    return rewrite(root, _in_two_steps)


_STEPS = {
    JoinKind.ASOF_RIGHT: (JoinKind.ASOF, JoinKind.RIGHT),
    JoinKind.ASOF_FULL: (JoinKind.ASOF_LEFT, JoinKind.FULL),
}


def _in_two_steps(node: Node) -> Node:
    if not isinstance(node, Join) or node.kind not in _STEPS:
        return node
    assert node.condition is not None
    matching, preserving = _STEPS[node.kind]
    number = f"{node.right.columns[0]}n"
    numbered = Window(node.right, (), (Computed(number, exp.Window(this=call("row_number"))),))
    shared = Shared(numbered, f"asof_{number}")
    one, two = (CteRef(shared, tuple(f"{name}{suffix}" for name in shared.columns)) for suffix in ("a", "b"))
    read = {name: column(f"{name}a") for name in shared.columns}
    matched = Join(matching, node.left, one, substitute(node.condition, read))
    kept = Project(matched, _same((*node.left.columns, f"{number}a")))
    found = Join(preserving, kept, two, exp.EQ(this=column(f"{number}a"), expression=column(f"{number}b")))
    right = tuple(Computed(name, column(f"{name}b")) for name in node.right.columns)
    return Project(found, (*_same(node.left.columns), *right))


def _same(names: tuple[str, ...]) -> tuple[Computed, ...]:
    return tuple(Computed(name, column(name)) for name in names)
