"""ASOF RIGHT and FULL joins by way of joins that DuckDB 2.0 gets right."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, passed, rewrite
from sabot_planner.logical.nodes import CteRef, Join, JoinKind, Project, Shared, Window
from sabot_planner.sql.dialect import call
from sabot_planner.sql.duck_type import BIGINT
from sabot_planner.sql.scalars import column, substitute


def asof_in_two_steps(root: Node, names: PlanNames) -> Node:
    """ASOF joins that give rows of the right side without partner find them by their number.

        l ASOF RIGHT JOIN r   is   (l ASOF JOIN r)      RIGHT JOIN r   ON the number of the row of r
        l ASOF FULL JOIN r    is   (l ASOF LEFT JOIN r) FULL JOIN r    ON the number of the row of r

    Where right rows have no partner, DuckDB 2.0 may never end such a join, and loses some of these rows where the left
    side has no row of their key.
    """
    return rewrite(root, lambda node: _in_two_steps(node, names))


_STEPS = {
    JoinKind.ASOF_RIGHT: (JoinKind.ASOF, JoinKind.RIGHT),
    JoinKind.ASOF_FULL: (JoinKind.ASOF_LEFT, JoinKind.FULL),
}


def _in_two_steps(node: Node, names: PlanNames) -> Node:
    if not isinstance(node, Join) or node.kind not in _STEPS:
        return node
    assert node.condition is not None
    matching, preserving = _STEPS[node.kind]
    number = names.column()
    numbered = Window(node.right, (), (Computed(number, exp.Window(this=call("row_number")), BIGINT),))
    shared = Shared(numbered, names.shared())
    one, two = (CteRef(shared, names.columns(len(shared.columns))) for _ in range(2))
    first, second = (dict(zip(shared.columns, reading.names, strict=True)) for reading in (one, two))
    read = {name: column(new) for name, new in first.items()}
    matched = Join(matching, node.left, one, substitute(node.condition, read))
    kept = Project(matched, passed(matched, (*node.left.columns, first[number])))
    same_row = exp.EQ(this=column(first[number]), expression=column(second[number]))
    found = Join(preserving, kept, two, same_row)
    right = tuple(Computed(name, column(second[name]), kind) for name, kind in node.right.schema.items())
    return Project(found, (*passed(node.left), *right))
