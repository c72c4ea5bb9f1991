"""Which hashed inputs may have a partition shared out: those of whose rows each gives its own rows of the result."""

from __future__ import annotations

import pytest

from sabot_planner import ShuffleEdgeType
from tests.planner.context import FakeContext, describe

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("sql", "split"),
    [
        ("SELECT t.v, u.w FROM t JOIN u ON t.k = u.k", {"t", "u"}),
        ("SELECT t.v, u.w FROM t LEFT JOIN u ON t.k = u.k", {"t"}),
        ("SELECT t.v, u.w FROM t RIGHT JOIN u ON t.k = u.k", {"u"}),
        ("SELECT t.v, u.w FROM t FULL JOIN u ON t.k = u.k", set()),
        ("SELECT t.v FROM t SEMI JOIN u ON t.k = u.k", {"t"}),
        ("SELECT t.v FROM t ANTI JOIN u ON t.k = u.k", {"t"}),
        ("SELECT sum(t.v), avg(u.w) FROM t JOIN u ON t.k = u.k", {"t", "u"}),
        ("SELECT t.g, sum(u.w) FROM t JOIN u ON t.k = u.k GROUP BY t.g", {"t", "u"}),
        ("SELECT DISTINCT t.k FROM t LEFT JOIN u ON t.k = u.k", set()),
        ("SELECT t.k, median(u.w) FROM t JOIN u ON t.k = u.k GROUP BY t.k", set()),
        ("SELECT t.v, row_number() OVER (PARTITION BY t.k ORDER BY u.w) FROM t JOIN u ON t.k = u.k", set()),
        # More than two hashed inputs: what is split is split against all the others.
        ("SELECT t.v FROM t JOIN u ON t.k = u.k LEFT JOIN early e ON e.k = t.k", {"t", "u"}),
        ("SELECT t.v FROM t LEFT JOIN u ON t.k = u.k SEMI JOIN early e ON e.k = t.k", {"t"}),
        # The other branch of a union would come out once per task.
        (
            (
                "SELECT v, count(*) FROM (SELECT t.v FROM t JOIN u ON t.k = u.k UNION ALL "
                "SELECT e.v FROM early e JOIN late l ON e.k = l.k) GROUP BY v"
            ),
            set(),
        ),
    ],
)
def test_only_rows_that_decide_for_themselves_are_split(context: FakeContext, sql: str, split: set[str]) -> None:
    plan = context.plan(sql)
    found = {
        plan.operator_graph.operator(e.source).label.split(" ")[1]
        for e in plan.operator_graph.edges
        if e.splittable and e.edge_type is ShuffleEdgeType.HASH
    }
    assert found == split, describe(plan)
