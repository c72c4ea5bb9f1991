"""Fixtures of the rules: one file a rule, pairs of plans before and after it.

``python -m tests.planner.rule_fixtures`` writes the plans anew for the titles and queries that the files hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Node
from sabot_planner.logical.rules.apply import RULES
from tests.planner.conftest import TABLES
from tests.planner.context import FakeContext, forced
from tests.planner.tree_text import tree_text

FOLDER = Path(__file__).resolve().parent / "fixtures" / "rules"
_TITLE, _BEFORE, _AFTER, _UNCHANGED = "# ", "--- before\n", "--- after\n", "(unchanged)\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A query, and its plan before and after a rule; ``after`` is None where the rule must leave it alone."""

    rule: str
    title: str
    sql: str
    before: str
    after: str | None


def path_of(rule: Callable[[Node, PlanNames], Node]) -> Path:
    """The fixture of a rule."""
    return FOLDER / f"{rule.__name__}.txt"


def cases(rule: Callable[[Node, PlanNames], Node]) -> list[Case]:
    """The cases of a rule's fixture."""
    found = []
    for block in ("\n" + path_of(rule).read_text()).split(f"\n{_TITLE}")[1:]:
        title, _, rest = block.partition("\n")
        sql, _, plans = rest.partition(_BEFORE)
        before, _, after = plans.partition(_AFTER)
        after = after.rstrip("\n") + "\n"
        found.append(Case(rule.__name__, title, sql.strip(), before, None if after == _UNCHANGED else after))
    return found


def made(context: FakeContext, rule: Callable[[Node, PlanNames], Node], case: Case) -> Case:
    """The case as the planner makes it now."""
    root = context.built(case.sql)
    changed = rule(root, context.names)
    after = None if changed is root else tree_text(changed)
    return Case(case.rule, case.title, case.sql, tree_text(root), after)


def write(context: FakeContext, rule: Callable[[Node, PlanNames], Node]) -> None:
    """Write the plans of a rule's fixture anew."""
    blocks = []
    for case in (made(context, rule, case) for case in cases(rule)):
        after = _UNCHANGED if case.after is None else case.after
        blocks.append(f"{_TITLE}{case.title}\n{case.sql}\n{_BEFORE}{case.before}{_AFTER}{after}")
    path_of(rule).write_text("\n".join(blocks))


if __name__ == "__main__":
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(TABLES)
        for each in RULES:
            write(FakeContext(connection, settings=forced(3)), each)
