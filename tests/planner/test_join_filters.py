"""The keys of a finished side filter the other side before it moves, where unmatched rows leave no trace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sabot_planner import EdgeFacts, OperatorGraph, PlanSettings, QueryPlan, ShuffleEdge, ShuffleEdgeType
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

JOIN = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k"


@pytest.fixture
def large(context: FakeContext) -> FakeContext:
    """Planned for 200 million rows of t and 60 million of u, all hashed; what is measured is in the test's hands."""
    context.settings, context.factor = PlanSettings(broadcast_bytes=0, gather_rows=0), 1_000_000
    return context


def graph(plan: QueryPlan) -> OperatorGraph:
    return plan.operator_graph


def edge_from(plan: QueryPlan, label: str) -> ShuffleEdge:
    """The edge that leaves the stage whose label begins so."""
    (edge,) = (e for e in graph(plan).edges if graph(plan).operator(e.source).label.startswith(label))
    return edge


def measured(plan: QueryPlan, edge: ShuffleEdge, rows: int, *more: str) -> QueryPlan:
    """The plan once ``edge`` was counted; the stages ``more`` have started as well."""
    return plan.revise({edge.edge_id: EdgeFacts(rows, rows * 16)}, frozenset({edge.source, *more}))


def filters(plan: QueryPlan) -> list[ShuffleEdge]:
    return [e for e in graph(plan).edges if e.rereads is not None]


def filtered_labels(plan: QueryPlan) -> list[str]:
    return [graph(plan).operator(e.target).label for e in filters(plan)]


# --- which joins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "by_left", "by_right"),
    [
        ("t JOIN u ON t.k = u.k", True, True),
        ("t LEFT JOIN u ON t.k = u.k", True, False),
        ("t RIGHT JOIN u ON t.k = u.k", False, True),
        ("t FULL JOIN u ON t.k = u.k", False, False),
        ("t SEMI JOIN u ON t.k = u.k", True, True),
        ("t ANTI JOIN u ON t.k = u.k", True, False),
        ("t JOIN u ON t.k IS NOT DISTINCT FROM u.k", True, True),
        ("t JOIN u ON t.k = u.k AND t.v < u.w", True, True),
        ("t LEFT JOIN u ON t.k = u.k AND t.v < u.w", True, False),
        ("t ANTI JOIN u ON t.k = u.k AND t.v < u.w", True, False),
    ],
)
def test_only_a_side_whose_unmatched_rows_vanish_is_filtered(
    large: FakeContext, join: str, by_left: bool, by_right: bool
) -> None:
    columns = "t.v" if "SEMI" in join or "ANTI" in join else "t.v, u.w"
    plan = large.plan(f"SELECT {columns} FROM {join}")
    for side, other, expected in (("t", "u", by_left), ("u", "t", by_right)):
        revised = measured(plan, edge_from(plan, f"scan {side}"), 1_000)
        assert [label.startswith(f"scan {other}") for label in filtered_labels(revised)] == [True] * expected, describe(
            revised
        )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT v FROM t WHERE n NOT IN (SELECT n FROM u)",
        "SELECT v, n IN (SELECT n FROM u) AS m FROM t",
        "SELECT t.v, u.w FROM t JOIN u ON t.v < u.w",
        "SELECT t.v, u.w FROM t POSITIONAL JOIN u",
        # A row that a filter keeps back could have ended the query.
        (
            "SELECT x.e, u.w FROM (SELECT k, CASE WHEN v > 500 THEN error('no')::INTEGER ELSE v END AS e FROM t) x"
            " LEFT JOIN (SELECT k, CASE WHEN w > 500 THEN error('no')::INTEGER ELSE w END AS w FROM u) u ON x.k = u.k"
        ),
    ],
)
def test_not_in_and_joins_without_equal_keys_filter_nothing(large: FakeContext, sql: str) -> None:
    plan = large.plan(sql)
    for edge in graph(plan).edges:
        assert not filters(measured(plan, edge, 10)), describe(plan)


# --- how low ------------------------------------------------------------------------------------------------------


def landing(large: FakeContext, sql: str, side: str = "scan u") -> tuple[QueryPlan, list[str]]:
    plan = large.plan(sql)
    revised = measured(plan, edge_from(plan, side), 1_000)
    return revised, [graph(revised).operator(e.target).sql for e in filters(revised)]


def test_the_filter_is_put_below_filters_and_projections_of_plain_columns(large: FakeContext) -> None:
    _, (sql,) = landing(
        large, "SELECT x.a, u.w FROM (SELECT k AS a, v + 1 AS b FROM t WHERE v % 3 > 0) x JOIN u ON a = u.k"
    )
    assert "FROM (scan_0 SEMI JOIN e" in sql
    assert "WHERE" in sql


def test_a_computed_key_is_compared_where_it_is_computed(large: FakeContext) -> None:
    """Below the filter its cast might fail on rows that the filter takes away."""
    text = "(SELECT CAST(s AS INTEGER) AS a, v FROM t WHERE s <> '3')"
    _, (sql,) = landing(large, f"SELECT x.v, u.w FROM {text} x JOIN u ON x.a = u.w")
    assert sql.index("WHERE") < sql.index("SEMI JOIN")


def test_groups_are_filtered_before_they_are_formed(large: FakeContext) -> None:
    sql = "SELECT u.w, a.m FROM (SELECT k, avg(v) AS m FROM t GROUP BY k) a JOIN u ON a.k = u.k"
    _, (text,) = landing(large, sql)
    assert "EXPORT_STATE" in text
    assert "FROM (scan_0 SEMI JOIN e" in text
    assert_runs(large, sql)


@pytest.mark.parametrize(
    "inner",
    [
        "SELECT k, v FROM t ORDER BY v LIMIT 50",
        "SELECT k, v FROM t LIMIT 50",
        "SELECT k, row_number() OVER (ORDER BY v) AS v FROM t",
        "SELECT DISTINCT ON (g) k, v FROM t ORDER BY v",
        "SELECT k, sum(v) AS v FROM t GROUP BY ROLLUP (k)",
        "SELECT max(k) AS k, sum(v) AS v FROM t GROUP BY g",
    ],
)
def test_what_other_rows_decide_is_never_filtered_before_it_is_decided(large: FakeContext, inner: str) -> None:
    sql = f"SELECT a.v, u.w FROM ({inner}) a JOIN u ON a.k = u.k"
    revised, texts = landing(large, sql)
    assert not any("scan_0" in text for text in texts), describe(revised)
    assert_runs(large, sql)


def test_a_window_by_the_key_is_filtered_below(large: FakeContext) -> None:
    numbered = "(SELECT k, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM t)"
    sql = f"SELECT a.n, u.w FROM {numbered} a JOIN u ON a.k = u.k"
    _, (text,) = landing(large, sql)
    assert "scan_0 SEMI JOIN" in text


def test_both_sides_of_a_join_below_are_filtered_where_it_makes_the_keys_equal(large: FakeContext) -> None:
    sql = "SELECT t.v, e.v, u.w FROM t JOIN early AS e ON t.k = e.k RIGHT JOIN u ON u.k = t.k"
    plan = large.plan(sql)
    revised = measured(plan, edge_from(plan, "scan u"), 1_000)
    assert sorted(label.split(" ·")[0] for label in filtered_labels(revised)) == ["scan early", "scan t"], describe(
        revised
    )


def test_a_stage_that_has_started_keeps_what_it_computes(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, other = edge_from(plan, "scan u"), edge_from(plan, "scan t")
    assert measured(plan, first, 1_000, other.source) is plan


def test_no_filter_comes_between_a_sort_and_its_ranges(large: FakeContext) -> None:
    """The stage that reads the ranges could still take one, where the one that writes them has started."""
    plan = large.plan("SELECT x.v, u.w FROM u JOIN (SELECT k, v FROM t ORDER BY v) AS x ON x.k = u.k")
    ranges = edge_from(plan, "scan t")
    assert ranges.edge_type is ShuffleEdgeType.RANGE
    for started, filtered in (((), "scan t"), ((ranges.source,), "order by")):
        now = measured(plan, edge_from(plan, "scan u"), 1000, *started)
        (label,) = filtered_labels(now)
        assert label.startswith(filtered), describe(now)


def test_a_shared_expression_is_not_filtered_for_one_of_its_readers(large: FakeContext) -> None:
    sql = (
        "WITH c AS MATERIALIZED (SELECT k, sum(v) AS w FROM t GROUP BY k)"
        " SELECT x.k, u.w FROM c AS x JOIN u ON x.k = u.k UNION ALL SELECT k, w FROM c"
    )
    _, texts = landing(large, sql)
    assert not any("EXPORT_STATE" in text or "scan_" in text for text in texts)
    assert_runs(large, sql)


# --- whether it pays, and what is said of it ----------------------------------------------------------------------


def test_the_plan_says_what_was_measured_and_what_it_saves(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, other = edge_from(plan, "scan u"), edge_from(plan, "scan t")
    revised = measured(plan, first, 6_000_000)
    (again,) = filters(revised)
    assert (again.edge_type, again.rereads, again.source) == (ShuffleEdgeType.BROADCAST, first.edge_id, first.source)
    assert again.target == other.source
    assert again.reason == (
        "6,000,000 rows measured (estimated 60,000,000) of about 60,000,000: their keys keep about 90% of 3.2 GB from"
        " moving"
    )
    changed = next(e for e in graph(revised).edges if e.edge_id == other.edge_id)
    assert changed.reason.endswith(f"filtered by {first.edge_id}")
    assert changed.rows_estimated == (other.rows_estimated or 0) // 10


def test_most_keys_filter_nothing(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    assert measured(plan, edge_from(plan, "scan u"), 50_000_000) is plan


def test_few_bytes_are_moved_rather_than_filtered(large: FakeContext) -> None:
    large.settings = replace(large.settings, filter_bytes=1 << 40)
    plan = large.plan(JOIN)
    assert measured(plan, edge_from(plan, "scan u"), 1_000) is plan


def test_keys_that_a_task_could_not_hold_filter_nothing(large: FakeContext) -> None:
    large.settings = replace(large.settings, grant_bytes=1 << 20)
    plan = large.plan(JOIN)
    assert measured(plan, edge_from(plan, "scan u"), 100_000) is plan
    assert filters(measured(plan, edge_from(plan, "scan u"), 1_000))


def test_a_stage_waits_for_keys_that_promise_to_filter_it(large: FakeContext) -> None:
    """Grouped by the key, the join cannot copy a side: nothing but the filter makes the stage wait."""
    plan = large.plan("SELECT u.k, count(*) FROM t JOIN u ON t.k = u.k AND u.w % 7 = 3 GROUP BY u.k")
    first, other = edge_from(plan, "scan u"), edge_from(plan, "scan t")
    assert graph(plan).operator(other.source).start_after == (first.source,), describe(plan)
    refused = measured(plan, first, 55_000_000)
    assert not filters(refused)
    said = next(e.reason for e in graph(refused).edges if e.edge_id == first.edge_id)
    assert "no filter, it would let about 92% of" in said
    assert measured(refused, first, 55_000_000) is refused, "decided once"


def test_a_left_join_waits_in_one_direction_only(large: FakeContext) -> None:
    """The larger side waits to be left in place, so the smaller one must not wait to be filtered."""
    plan = large.plan("SELECT t.v, u.w FROM (SELECT * FROM t WHERE v % 7 = 3) t LEFT JOIN u ON t.k = u.k")
    waiting = {o.operator_id: o.start_after for o in graph(plan).operators if o.start_after}
    for operator, awaited in waiting.items():
        assert not any(operator in waiting.get(other, ()) for other in awaited), describe(plan)


def test_without_adaptivity_nothing_is_filtered(large: FakeContext) -> None:
    large.settings = replace(large.settings, adaptive=False)
    plan = large.plan(JOIN)
    assert measured(plan, edge_from(plan, "scan u"), 10) is plan


def test_a_filter_whose_join_turns_out_empty_keeps_its_source(large: FakeContext) -> None:
    plan = large.plan(JOIN)
    first, other = edge_from(plan, "scan u"), edge_from(plan, "scan t")
    revised = measured(plan, first, 1_000)
    facts = {first.edge_id: EdgeFacts(1_000, 16_000), other.edge_id: EdgeFacts(0, 0)}
    empty = revised.revise(facts, frozenset({first.source, other.source}))
    assert empty is not revised
    assert {e.source for e in filters(empty)} <= {o.operator_id for o in graph(empty).operators}


# --- rows ---------------------------------------------------------------------------------------------------------


def assert_runs(context: FakeContext, sql: str) -> Simulation:
    """The query with every filter that is possible, whatever it costs."""
    context.settings = forced(3, filter_bytes=0, filter_share=1.0)
    simulation = Simulation(context, context.plan(sql))
    assert_same(fetch(context.connection, sql), simulation.run())
    return simulation


KEYS = """
SELECT * FROM (VALUES
    (1, 1.5::DOUBLE, 'x', 1.10::DECIMAL(5, 2), 'x'::ENUM('x', 'y'), TIMESTAMP '2024-01-01', [1], 1::HUGEINT),
    (2, -0.0, 'B', 2.20, 'y', TIMESTAMP '2024-01-02', [2], 2),
    (3, 'NaN', NULL, NULL, NULL, NULL, NULL, NULL),
    (4, NULL, '', 1.10, 'x', TIMESTAMP '2024-01-01', [1], 1),
    (5, 0.0, 'a ', 3.30, 'y', TIMESTAMP 'infinity', [NULL], 3)
) AS v(id, d, s, m, e, ts, l, h)"""


@pytest.mark.parametrize("equal", ["=", "IS NOT DISTINCT FROM"])
@pytest.mark.parametrize(
    "keys",
    [
        "a.d {} b.d",
        "a.s {} b.s",
        "a.m {} b.m",
        "a.e {} b.e",
        "a.ts {} b.ts",
        "a.l {} b.l",
        "a.h {} b.id",
        "a.m {} b.d",
        "a.d {} b.id",
        "a.e {} b.s",
        "a.d {} b.d AND a.s {} b.s",
    ],
)
@pytest.mark.parametrize("kind", ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"])
def test_keys_of_all_types_filter_as_they_join(context: FakeContext, kind: str, keys: str, equal: str) -> None:
    context.connection.execute(f"CREATE OR REPLACE TABLE ka AS {KEYS}")
    context.connection.execute(f"CREATE OR REPLACE TABLE kb AS SELECT * FROM ({KEYS}) WHERE id <> 2")
    columns = "a.id" if kind in ("SEMI JOIN", "ANTI JOIN") else "a.id, b.id AS other"
    sql = f"SELECT {columns} FROM ka a {kind} kb b ON {keys.replace('{}', equal)}"
    assert_runs(context, sql)


QUERIES = {
    "chain": "SELECT t.v, u.w, e.at FROM t JOIN u ON t.k = u.k JOIN early AS e ON e.v = u.w JOIN small s ON s.k = e.k",
    "left chain": "SELECT t.v, u.w, e.at FROM (FROM t WHERE v % 50 = 3) t LEFT JOIN u ON t.k = u.k"
    " LEFT JOIN early e ON e.v = u.w",
    "exists": "SELECT v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.w > 50)"
    " AND NOT EXISTS (SELECT 1 FROM early e WHERE e.k = t.k AND e.v > 70)",
    "scalar": "SELECT v, (SELECT max(w) FROM u WHERE u.k = t.k) FROM t WHERE v % 9 = 4",
    "not in": "SELECT v FROM t WHERE n NOT IN (SELECT n FROM u WHERE w > 57) AND k IN (SELECT k FROM small)",
    "aggregate of a part": "SELECT sum(t.v) FROM t JOIN small s ON s.k = t.k AND s.name = 'name 3'"
    " WHERE t.v < (SELECT 0.7 * avg(x.v) FROM t x WHERE x.k = s.k)",
    "union": "SELECT x.k, u.w FROM (SELECT k, v FROM t UNION ALL SELECT k, v FROM early) x"
    " JOIN u ON x.k = u.k AND u.w < 9",
    "lists": "SELECT u.w, a.l FROM (SELECT k, list(v ORDER BY v) AS l, first(s) AS f FROM t GROUP BY k) a"
    " JOIN u ON a.k = u.k",
    "a sorted side": "SELECT x.v, u.w FROM (FROM u WHERE w < 9) u"
    " JOIN (SELECT k, v FROM t ORDER BY v, k DESC) x ON x.k = u.k",
    "a sorted side of distinct rows": "SELECT x.v, u.w FROM (SELECT DISTINCT ON (w) k, w FROM u WHERE w < 9) u"
    " JOIN (SELECT k, v FROM t ORDER BY v, k DESC) x ON x.k = u.k",
    "full above": "SELECT x.v, e.at FROM (SELECT t.v, u.w FROM t JOIN u ON t.k = u.k) x FULL JOIN early e ON e.v = x.w",
}


@pytest.mark.parametrize("name", QUERIES)
def test_filters_never_change_rows(context: FakeContext, name: str) -> None:
    simulation = assert_runs(context, QUERIES[name])
    assert filters(simulation.plan), describe(simulation.plan)
