"""A shared expression that is read by several stages: what its stage has brought together stays together."""

from __future__ import annotations

import pytest

from sabot_planner import PlanSettings, QueryPlan, ShuffleEdgeType
from sabot_planner.distribute.partitioning import (
    Arbitrary,
    Clustered,
    Hashed,
    SinglePartition,
    Together,
    from_afar,
    merge_equal,
    renamed,
    satisfies,
    without,
)
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

SHARED = "WITH c AS MATERIALIZED (SELECT k, n, sum(v) AS s FROM t GROUP BY k, n) "
READERS = {
    "by its keys": "SELECT * FROM (SELECT k, n, max(s) AS m FROM c GROUP BY k, n) JOIN c USING (k, n)",
    "by more than its keys": "SELECT * FROM (SELECT k, n, s, count(*) AS m FROM c GROUP BY ALL) JOIN c USING (k, n, s)",
    "by less than its keys": "SELECT * FROM (SELECT k, count(*) AS m FROM c GROUP BY k) JOIN c USING (k)",
    "by a value": "SELECT * FROM (SELECT s, count(*) AS m FROM c GROUP BY s) JOIN c USING (s)",
    "distinct": "SELECT count(*) FROM (SELECT DISTINCT n, k FROM c) JOIN c USING (k, n)",
    "a window": "SELECT * FROM (SELECT k, n, rank() OVER (PARTITION BY k, n ORDER BY s) FROM c) JOIN c USING (k, n)",
    "renamed twice": "SELECT * FROM (SELECT a.k AS x, a.n AS y, count(*) FROM c AS a GROUP BY ALL)"
    " JOIN c ON x = c.k AND y IS NOT DISTINCT FROM c.n",
    "padded": "SELECT d.k, count(*) FROM (SELECT u.k, c.k AS l, c.n FROM u LEFT JOIN c ON u.k = c.k) AS d JOIN c"
    " ON d.k = c.k GROUP BY d.k",
}


def hashed(plan: QueryPlan) -> list[tuple[str, ...]]:
    return [edge.keys for edge in plan.operator_graph.edges if edge.edge_type is ShuffleEdgeType.HASH]


@pytest.mark.parametrize(
    "settings", [forced(3), forced(2, broadcast_bytes=1 << 20), PlanSettings(gather_rows=0, repeat_rows=0)]
)
@pytest.mark.parametrize("name", READERS)
def test_rows_are_duckdbs(context: FakeContext, name: str, settings: PlanSettings) -> None:
    context.settings = settings
    sql = SHARED + READERS[name]
    plan = context.plan(sql)
    assert_same(fetch(context.connection, sql), Simulation(context, plan).run())


def test_groups_of_its_keys_are_not_moved_again(context: FakeContext) -> None:
    context.settings = forced(3, broadcast_bytes=1 << 20)
    plan = context.plan(SHARED + READERS["by its keys"])
    assert hashed(plan) == [("k", "n")], describe(plan)


def test_groups_of_fewer_keys_are(context: FakeContext) -> None:
    """Rows hashed by (k, n) and grouped by k would give a group once per task."""
    context.settings = forced(3, broadcast_bytes=1 << 20)
    plan = context.plan(SHARED + READERS["by less than its keys"])
    assert ("k",) in hashed(plan), describe(plan)


def test_what_another_stage_brought_together_is_placed_by_no_rule() -> None:
    names = {"k": {"a"}, "n": {"b"}}
    afar = from_afar(Hashed((frozenset({"k"}), frozenset({"n"}))), names)
    assert afar == Together((frozenset({"a"}), frozenset({"b"})))
    assert satisfies(afar, Clustered(("a", "b", "c")))
    assert not satisfies(afar, Clustered(("a",)))
    assert from_afar(Hashed((frozenset({"other"}),)), names) == Arbitrary()
    assert from_afar(Arbitrary(), names) == Arbitrary()
    assert from_afar(SinglePartition(), names) == SinglePartition()
    assert merge_equal(afar, [("a", "x")]) == Together((frozenset({"a", "x"}), frozenset({"b"})))
    assert renamed(afar, {"a": {"z"}}) == Arbitrary()
    assert without(afar, frozenset({"a"})) == Arbitrary()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT x, sum(v) OVER () FROM (SELECT k + 1 AS x, v FROM t) JOIN u ON x = u.k",
        "SELECT x, q FROM (SELECT x, sum(v) OVER () AS q FROM (SELECT k + 1 AS x, v FROM t)) JOIN u ON x = u.k",
        "SELECT x, q, count(*) FROM (SELECT x, avg(v) OVER () AS q FROM (SELECT k + 1 AS x, v FROM t)) GROUP BY x, q",
    ],
)
def test_a_computed_key_under_a_window_over_all_rows_is_looked_for_once(context: FakeContext, sql: str) -> None:
    """What the window shares has its names again above: the search for the key's table went round for ever."""
    context.settings = forced(3)
    assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())
