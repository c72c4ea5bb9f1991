"""The first rows of a filtered scan are looked for by many small tasks, which know how many are needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sabot_planner import Operator, PlanSettings
from tests.planner.context import FakeContext

pytestmark = pytest.mark.fast


@pytest.fixture
def large(context: FakeContext) -> FakeContext:
    """200 million rows of t."""
    context.settings, context.factor = PlanSettings(), 1_000_000
    return context


def search(context: FakeContext, sql: str) -> Operator:
    plan = context.plan(sql)
    return plan.operator_graph.operators[0]


@pytest.mark.parametrize(
    ("sql", "rows", "tasks"),
    [
        ("SELECT v FROM t WHERE v % 7 = 3 LIMIT 5", 5, 24),
        ("SELECT v + 1 FROM t WHERE v % 7 = 3 LIMIT 5 OFFSET 100", 105, 24),
        ("SELECT v FROM t LIMIT 5", 5, 3),
        ("SELECT v FROM t WHERE v % 7 = 3 ORDER BY v LIMIT 5", None, 3),
        ("SELECT v FROM t WHERE v % 7 = 3", None, 3),
    ],
)
def test_how_many_tasks_and_rows(large: FakeContext, sql: str, rows: int | None, tasks: int) -> None:
    found = search(large, sql)
    assert (found.first_rows, found.parallelism) == (rows, tasks)


def test_without_adaptivity_nothing_is_skipped_so_tasks_are_as_always(large: FakeContext) -> None:
    large.settings = replace(large.settings, adaptive=False)
    assert search(large, "SELECT v FROM t WHERE v % 7 = 3 LIMIT 5").parallelism == 3


def test_few_rows_are_not_worth_more_tasks(context: FakeContext) -> None:
    context.settings = PlanSettings()
    assert search(context, "SELECT v FROM t WHERE v % 7 = 3 LIMIT 5").parallelism == 3
