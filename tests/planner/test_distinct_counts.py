"""Distinct keys that were counted where a HASH edge was written decide plans that group or join by the same keys."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sabot_planner import PlanSettings, QueryPlan, ShuffleEdge, ShuffleEdgeType
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast


def counted(context: FakeContext, sql: str) -> dict[str, int]:
    """Run a query, compare its rows with DuckDB's, and say what was counted of its edges' keys, by their names."""
    simulation = Simulation(context, context.plan(sql))
    assert_same(fetch(context.connection, sql), simulation.run())
    names = simulation.plan.key_identities()
    counts = {edge_id: facts.distinct_keys for edge_id, facts in simulation.facts.items()}
    return {name: count for edge_id, name in names.items() if (count := counts.get(edge_id)) is not None}


def edges(plan: QueryPlan) -> tuple[ShuffleEdge, ...]:
    return plan.operator_graph.edges


def estimate(plan: QueryPlan, edge_type: ShuffleEdgeType = ShuffleEdgeType.RANGE) -> tuple[int | None, str]:
    """Rows that the one edge of that type is thought to have, and by whom."""
    (edge,) = (e for e in edges(plan) if e.edge_type is edge_type)
    return edge.rows_estimated, edge.estimated_by


def known(context: FakeContext, *queries: str) -> None:
    for sql in queries:
        context.memory |= counted(context, sql)
    assert context.memory


BY_V = "SELECT v, row_number() OVER (PARTITION BY v ORDER BY k) FROM t"


# --- what is counted under which name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k",
        "SELECT k, sum(v) FROM t GROUP BY k",
        "SELECT k, list(v) FROM t GROUP BY k",
        "SELECT DISTINCT k FROM t",
        "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) FROM t",
        "SELECT k, count(*) FROM (SELECT k, s, max(v) FROM t GROUP BY k, s) GROUP BY k",
        "SELECT k, count(*) FROM (SELECT DISTINCT k, s FROM t) GROUP BY k",
        "SELECT x.c, u.w FROM (SELECT k + 0 AS z, k AS c FROM t) x JOIN u ON x.c = u.k",
    ],
    ids=["join", "phases", "rows", "distinct", "window", "groups of groups", "groups of distinct", "renamed"],
)
def test_the_same_keys_of_the_same_rows_have_one_name(context: FakeContext, sql: str) -> None:
    (name,) = counted(context, "SELECT k, median(v) FROM t GROUP BY k")
    assert counted(context, sql).get(name) == 7, describe(context.plan(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT k, median(v) FROM t WHERE v > 20 GROUP BY k",
        "SELECT k, median(w) FROM u GROUP BY k",
        "SELECT k + 1, median(v) FROM t GROUP BY k + 1",
        "SELECT k, s, median(v) FROM t GROUP BY k, s",
        "SELECT g, median(v) FROM t GROUP BY g",
        "SELECT k, median(x) FROM (SELECT k, unnest([v, 1]) AS x FROM t) GROUP BY k",
    ],
)
def test_other_keys_or_rows_have_another(context: FakeContext, sql: str) -> None:
    (name,) = counted(context, "SELECT k, median(v) FROM t GROUP BY k")
    assert counted(context, sql)
    assert name not in counted(context, sql)


def test_a_null_is_a_key(context: FakeContext) -> None:
    assert list(counted(context, "SELECT n, median(v) FROM t GROUP BY n").values()) == [5]


def test_nothing_is_named_of_rows_that_are_not_all(context: FakeContext) -> None:
    """A LIMIT, grouping sets, and rows that other keys have filtered while the query ran."""
    assert not counted(context, "SELECT k, median(v) FROM (SELECT * FROM t LIMIT 50) GROUP BY k")
    assert not counted(context, "SELECT k, g, sum(v) FROM t GROUP BY ROLLUP (k, g)")
    context.settings = forced(3, filter_bytes=0, filter_share=1.0)
    sql = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k AND u.w % 9 = 2"
    simulation = Simulation(context, context.plan(sql))
    simulation.run()
    (again,) = (e for e in edges(simulation.plan) if e.rereads)
    filtered = next(e for e in edges(simulation.plan) if e.source == again.target)
    names = simulation.plan.key_identities()
    assert filtered.edge_id not in names
    assert again.rereads in names


def test_a_name_never_stands_for_two_numbers(context: FakeContext) -> None:
    """Whatever is counted, or measured of groups, under one name by any of many queries is the same number."""
    seen: dict[str, tuple[int, str]] = {}
    for sql in MANY:
        simulation = Simulation(context, context.plan(sql))
        rows = simulation.run()
        names, keys = simulation.plan.identities(), simulation.plan.key_identities()
        found: list[tuple[str, int]] = [("result", len(rows.rows))]
        found = [(names[e], n) for e, n in found if e in names]
        found += [(names[e], facts.rows) for e, facts in simulation.facts.items() if e in names]
        found += [(keys[e], f.distinct_keys) for e, f in simulation.facts.items() if e in keys and f.distinct_keys]
        for name, count in found:
            if name.startswith("groups") and " in " not in name:
                before = seen.setdefault(name, (count, sql))
                assert before[0] == count, f"{name}: {before} and {count} of {sql}"
    assert len(seen) > 20


MANY = [
    "SELECT k, sum(v) FROM t GROUP BY k",
    "SELECT k, count(*) FROM (SELECT k, s, max(v) FROM t GROUP BY k, s) GROUP BY k",
    "SELECT m, count(*) FROM (SELECT k, s, max(v) AS m FROM t GROUP BY k, s) GROUP BY m",
    "SELECT m, count(*) FROM (SELECT k, max(v) AS m FROM t GROUP BY k) GROUP BY m",
    "SELECT DISTINCT k, s FROM t",
    "SELECT DISTINCT n FROM t WHERE v % 3 = 1",
    "SELECT n, count(DISTINCT s), sum(v) FROM t WHERE v % 3 = 1 GROUP BY n",
    "SELECT count(DISTINCT v), count(DISTINCT k) FROM t",
    "SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k",
    "SELECT t.k, count(*) FROM t JOIN u ON t.n = u.n GROUP BY t.k",
    "SELECT u.k, count(*) FROM t LEFT JOIN u ON t.v = u.w GROUP BY u.k",
    "SELECT t.g, median(u.w) FROM t JOIN u ON t.k = u.k AND t.n = u.n GROUP BY t.g",
    "SELECT t.v FROM t WHERE t.k IN (SELECT k FROM u WHERE w > 50)",
    "SELECT a.v, b.v FROM t a JOIN t b ON a.k = b.g",
    "SELECT a.k, count(*) FROM t a JOIN t b ON a.v = b.v + 1 GROUP BY a.k",
    "SELECT k, rank() OVER (PARTITION BY k, s ORDER BY v) FROM t",
    "SELECT r, count(*) FROM (SELECT rank() OVER (PARTITION BY k ORDER BY s) AS r FROM t) GROUP BY r",
    "SELECT k, count(*) FROM (SELECT k FROM t UNION ALL SELECT k FROM u) GROUP BY k",
    "SELECT k FROM t INTERSECT SELECT k FROM u",
    "SELECT k % 2, count(*) FROM t GROUP BY 1",
    "SELECT x, count(*) FROM (SELECT k % 2 + 1 AS x FROM t) GROUP BY x",
    "SELECT x * 3, count(*) FROM (SELECT k % 2 + 1 AS x FROM t) GROUP BY 1",
    "SELECT k, max(c) FROM (SELECT k, g, count(*) AS c FROM t GROUP BY k, g HAVING count(*) > 9) GROUP BY k",
    (
        "WITH x AS MATERIALIZED (SELECT k, n, v FROM t WHERE v > 30) "
        "SELECT a.k, count(*) FROM x a JOIN x b ON a.n = b.n AND a.v = b.v GROUP BY a.k"
    ),
    "SELECT DISTINCT ON (k, g) k, g, v FROM t ORDER BY k, g, v",
    "SELECT k, count(*) FROM (SELECT DISTINCT ON (k, g) k, g, v FROM t ORDER BY k, g, v) GROUP BY k",
    "SELECT x, count(*) FROM (SELECT unnest([k, g]) AS x FROM t) GROUP BY x",
]


# --- what it decides ------------------------------------------------------------------------------------------------


def test_groups_are_estimated_by_the_keys_of_a_join(context: FakeContext) -> None:
    known(context, "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k AND t.s <> u.s")
    plan = context.plan("SELECT k, sum(v) FROM t GROUP BY k ORDER BY k")
    assert estimate(plan) == (7, "an earlier run")
    assert estimate(plan, ShuffleEdgeType.HASH) == (21, "an earlier run"), "in each of three tasks"


def test_distinct_is_estimated_by_the_keys_of_a_join(context: FakeContext) -> None:
    known(context, "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k AND t.s <> u.s")
    assert estimate(context.plan("SELECT DISTINCT k FROM t ORDER BY k")) == (7, "an earlier run")


def test_the_first_phase_is_left_out_where_keys_are_nearly_as_many_as_rows(context: FakeContext) -> None:
    sql = "SELECT v, count(*), sum(k) FROM t GROUP BY v"
    assert any(e.reason == "partial groups of equal keys must meet" for e in edges(context.plan(sql)))
    known(context, BY_V)
    (edge,) = (e for e in edges(context.plan(sql)) if e.edge_type is ShuffleEdgeType.HASH)
    assert "of 200 rows with 200 distinct keys by an earlier run: the rows move as they are" in edge.reason
    counted(context, sql)
    filtered = context.plan(sql.replace("FROM t", "FROM t WHERE v < 100 AND k > 1"))
    assert not any(e.reason == "partial groups of equal keys must meet" for e in edges(filtered))


COUNTS: Mapping[str, tuple[str, int]] = {
    "left side": ("SELECT t.k, count(*) FROM t GROUP BY t.k", 200 * 60 // 7),
    "right side": ("SELECT k, count(*) FROM u GROUP BY k", 200 * 60 // 9),
}


@pytest.mark.parametrize("side", COUNTS)
def test_a_join_has_as_many_rows_as_its_keys_say(context: FakeContext, side: str) -> None:
    """|L| · |R| by the distinct keys of the side that has more of them, or of the one that is known."""
    sql = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k ORDER BY t.v, u.w"
    assert estimate(context.plan(sql))[1] == "DuckDB"
    before, rows = COUNTS[side]
    known(context, before)
    found, by = estimate(context.plan(sql))
    assert by == "an earlier run"
    assert found == pytest.approx(rows, abs=1)
    known(context, *(query for query, _ in COUNTS.values()))
    assert estimate(context.plan(sql))[0] == pytest.approx(200 * 60 / 9, abs=1)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("a.v % 2 = 0", 200 * 1000 / 7),
        ("a.v % 2 = 0 AND b.v % 3 = 1", 200 * 200 / 7),
        ("a.k < 3", 200 * 200 / (7 / 5)),
        ("a.k + a.v > 5", 200 * 1000 / 7),
    ],
    ids=["other columns", "of both sides", "the keys", "the keys of one side"],
)
def test_keys_of_a_whole_table_serve_its_filtered_rows(context: FakeContext, condition: str, rows: float) -> None:
    """A filter on other columns takes rows of all keys away; one on the keys takes keys away with all of their rows."""
    context.rows = {"t": 1000}
    known(context, "SELECT k, median(v) FROM t GROUP BY k")
    sql = f"SELECT a.v, b.v FROM t a JOIN t b ON a.k = b.k WHERE {condition} ORDER BY 1, 2"
    assert estimate(context.plan(sql)) == (round(rows), "an earlier run")


def test_a_join_by_more_than_equality_is_estimated_as_before(context: FakeContext) -> None:
    sql = "SELECT a.v, b.v FROM t a JOIN t b ON a.k = b.k AND a.v < b.v ORDER BY 1, 2"
    before = estimate(context.plan(sql))
    known(context, "SELECT k, median(v) FROM t GROUP BY k")
    assert estimate(context.plan(sql)) == before


def test_keys_that_came_through_a_join_are_those_of_its_side(context: FakeContext) -> None:
    known(context, "SELECT k, median(v) FROM t GROUP BY k", "SELECT g, median(v) FROM t GROUP BY g")
    sql = "SELECT a.k, count(*) FROM t a JOIN t b ON a.g = b.g GROUP BY a.k ORDER BY 1"
    assert estimate(context.plan(sql)) == (7, "an earlier run")


def test_distinct_keys_decide_what_is_copied(context: FakeContext) -> None:
    """A join thought to have as many rows as its larger side is hashed for the next; one of few is copied."""
    names = counted(context, BY_V)
    context.settings, context.rows = PlanSettings(repeat_rows=0), {"t": 20_000_000, "u": 1_000}
    context._sources.clear()
    sql = "SELECT x.f, c.f FROM (SELECT t.n, u.k AS f FROM t JOIN u ON t.v = u.w) x JOIN t c ON x.n = c.n"
    assert moved(context.plan(sql)) == [("broadcast", 1_000), ("hash", 4_000_000), ("hash", 20_000_000)]
    context.memory = dict.fromkeys(names, 20_000_000)
    assert moved(context.plan(sql)) == [("broadcast", 1_000), ("broadcast", 1_000)]


def moved(plan: QueryPlan) -> list[tuple[str, int | None]]:
    return sorted((str(edge.edge_type), edge.rows_estimated) for edge in edges(plan))


def test_a_filter_of_groups_is_not_estimated_by_the_rows_of_their_table(context: FakeContext) -> None:
    """DuckDB's estimate for a scan is none for what stands above groups of it."""
    groups = "(SELECT k, max(v) AS m FROM t GROUP BY k HAVING m > 9)"
    plan = context.plan(f"SELECT x.k, u.w FROM {groups} x JOIN u ON x.m = u.w")
    assert moved(plan) == [("hash", 10), ("hash", 12), ("hash", 50)]


def test_outer_joins_keep_their_rows(context: FakeContext) -> None:
    known(context, "SELECT t.v, x.w FROM t JOIN (SELECT w, k FROM u) x ON t.v = x.w")
    sql = "SELECT t.v, u.k FROM t LEFT JOIN u ON t.v = u.w ORDER BY 1, 2"
    assert estimate(context.plan(sql)) == (200, "an earlier run")
    known(context, *(query for query, _ in COUNTS.values()))
    sql = "SELECT t.v, u.w FROM t LEFT JOIN u ON t.k = u.k ORDER BY 1, 2"
    assert estimate(context.plan(sql))[0] == pytest.approx(200 * 60 / 9, abs=1)


def test_another_version_of_a_table_knows_nothing(context: FakeContext) -> None:
    known(context, *(query for query, _ in COUNTS.values()))
    context.factor = 2  # the fake's versions differ by it
    context._sources.clear()
    assert not any(e.estimated_by == "an earlier run" for e in edges(context.plan("SELECT DISTINCT k FROM t")))
    sql = "SELECT t.v, u.w FROM t JOIN u ON t.k = u.k ORDER BY t.v"
    assert not any(e.estimated_by == "an earlier run" for e in edges(context.plan(sql)))
