"""The order of the rules: each is a free function, a plan in and a plan out."""

from __future__ import annotations

from collections.abc import Callable

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Node
from sabot_planner.logical.rules.asof_in_two_steps import asof_in_two_steps
from sabot_planner.logical.rules.inline_ctes import inline_ctes
from sabot_planner.logical.rules.mark_to_semi import mark_to_semi
from sabot_planner.logical.rules.whole_windows import whole_windows

RULES: tuple[Callable[[Node, PlanNames], Node], ...] = (
    mark_to_semi,
    asof_in_two_steps,
    whole_windows,
    inline_ctes,
)


def apply_rules(root: Node, names: PlanNames) -> Node:
    """Apply all rules in order; ``names`` gives columns that they make their names."""
    for rule in RULES:
        root = rule(root, names)
    return root
