"""Windows, orders, limits, set operations, shared and recursive expressions: DuckDB's rows over several tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sabot_planner import Mode, OperatorGraph, Placement, PlanSettings, ShuffleEdgeType
from tests.planner.context import FakeContext, describe
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same, difference
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast


def check(context: FakeContext, sql: str, *, ordered: bool = False) -> str:
    """Demand DuckDB's rows; gives the plan as text."""
    plan = context.plan(sql)
    assert plan.operator_graph.ordered is ordered
    expected, actual = fetch(context.connection, sql), Simulation(context, plan).run()
    found = difference(expected, actual, [1] * len(expected.rows) if ordered else None)
    assert found is None, f"{found}\n{describe(plan)}"
    return describe(plan)


# --- windows

WINDOWS = {
    "keys": "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v), rank() OVER (PARTITION BY k ORDER BY g) FROM t",
    "expression": "SELECT v, lag(v) OVER (PARTITION BY k + g ORDER BY v) FROM t",
    "NULL keys": "SELECT v, row_number() OVER (PARTITION BY n ORDER BY v) FROM t",
    "two lists": "SELECT v, sum(v) OVER (PARTITION BY k), count(*) OVER (PARTITION BY g, s) FROM t",
    "over groups": "SELECT k, sum(sum(v)) OVER (PARTITION BY k), g FROM t GROUP BY k, g",
    "qualify": "SELECT k, v FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY v DESC) <= 2",
    "filter": "SELECT v, sum(v) FILTER (g = 1) OVER (PARTITION BY k ORDER BY v) FROM t",
    "frame": "SELECT v, avg(v) OVER (PARTITION BY k ORDER BY v ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) FROM t",
    "ignore nulls": "SELECT v, last_value(n IGNORE NULLS) OVER (PARTITION BY k ORDER BY v) FROM t",
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_by_key(context: FakeContext, name: str) -> None:
    plan = check(context, WINDOWS[name])
    assert plan.startswith("distributed"), plan


def test_a_window_on_the_join_key_needs_no_second_shuffle(context: FakeContext) -> None:
    plan = check(context, "SELECT t.v, sum(u.w) OVER (PARTITION BY t.k) FROM t JOIN u ON t.k = u.k")
    assert plan.count("HASH(") == 2, plan


# --- order and limit


ORDERS = [
    *("v", "v DESC", "k, v", "k DESC, v DESC", "n NULLS FIRST, v", "n DESC NULLS LAST, v", "s, v", "s DESC, v % 7, v"),
    *(
        "f, v",
        "[k, g], v",
        "{'a': s, 'b': k} DESC, v",
        "g::TINYINT, v::SMALLINT",
        "(v % 3 = 0), v",
    ),
    "TIMESTAMP '2024-01-01' + to_hours(v::INT)",
]


@pytest.mark.parametrize("order", ORDERS)
def test_rows_come_in_order_over_ranges(context: FakeContext, order: str) -> None:
    plan = check(context, f"SELECT v, k, s FROM t ORDER BY {order}", ordered=True)
    assert "RANGE(" in plan


@pytest.mark.parametrize("order", ["k", "s DESC", "n NULLS FIRST"])
def test_equal_rows_of_an_order_stay_together_and_whole(context: FakeContext, order: str) -> None:
    sql = f"SELECT {order.partition(' ')[0]} FROM t ORDER BY {order}"
    check(context, sql, ordered=True)


@pytest.mark.parametrize(
    "limit", ["LIMIT 1", "LIMIT 7", "LIMIT 7 OFFSET 5", "OFFSET 190", "LIMIT 500", "LIMIT 10 OFFSET 195"]
)
def test_the_first_rows_of_an_order(context: FakeContext, limit: str) -> None:
    check(context, f"SELECT v, s FROM t ORDER BY s, v DESC {limit}", ordered=True)


def test_a_large_limit_is_taken_from_the_ranges(context: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabot_planner.distribute.order_and_limit.TOP_N_ROWS", 3)
    plan = check(context, "SELECT v FROM t ORDER BY v DESC LIMIT 20 OFFSET 3", ordered=True)
    assert "RANGE(" in plan


def test_a_share_of_the_rows_is_gathered(context: FakeContext) -> None:
    plan = check(context, "SELECT v FROM t ORDER BY v LIMIT 5%", ordered=True)
    assert plan.startswith("partly: LIMIT by percent")


@pytest.mark.parametrize("limit", ["LIMIT 5", "LIMIT 17 OFFSET 60", "OFFSET 180"])
def test_a_limit_without_order_takes_the_first_rows(context: FakeContext, limit: str) -> None:
    """DuckDB keeps the order of insertion; so do tasks that are read in the order of their slices."""
    check(context, f"SELECT v FROM t WHERE v % 3 = 0 {limit}" if "180" not in limit else f"SELECT v FROM t {limit}")


COMPUTED_LIMITS = [
    "SELECT v FROM t LIMIT (SELECT max(k) FROM u)",
    "SELECT v, s FROM t ORDER BY v DESC LIMIT (SELECT max(k) FROM u) OFFSET (SELECT min(w) + 2 FROM u)",
    "SELECT v FROM t OFFSET (SELECT w FROM u WHERE w = 42)",
    "SELECT v FROM t ORDER BY v LIMIT (SELECT max(k) FROM u) %",
    "SELECT v FROM t LIMIT 30 % OFFSET ((SELECT min(k) FROM u) + 3)",
    "SELECT v FROM t LIMIT (SELECT w FROM u WHERE w * w = 7)",
    "SELECT v FROM t LIMIT coalesce((SELECT w FROM u WHERE w * w = 7), 5)",
    "SELECT v FROM t LIMIT ((SELECT max(k) FROM u) + (SELECT count(*) FROM small)) // 2",
    "SELECT k, count(*) FROM t WHERE v IN (SELECT w FROM u ORDER BY w LIMIT (SELECT max(k) FROM small)) GROUP BY k",
]


@pytest.mark.parametrize("sql", COMPUTED_LIMITS)
def test_a_limit_may_be_computed(context: FakeContext, sql: str) -> None:
    check(context, sql, ordered=sql.startswith(("SELECT v, s", "SELECT v FROM t ORDER")))


def test_a_limit_over_union_all_takes_branch_by_branch(context: FakeContext) -> None:
    check(context, "SELECT * FROM (SELECT v FROM t UNION ALL SELECT w FROM u) LIMIT 150")
    check(context, "SELECT * FROM (SELECT w FROM u UNION ALL SELECT v FROM t) LIMIT 70 OFFSET 50")


@pytest.mark.parametrize("collation", ["NOCASE", "NOACCENT", '"NOACCENT.NOCASE"', "de"])
@pytest.mark.parametrize("limit", ["", " LIMIT 30 OFFSET 4"])
def test_an_order_by_a_collation_is_one_by_a_key(context: FakeContext, collation: str, limit: str) -> None:
    text = "['b', 'A', 'ä', 'a', 'B', 'Ä', NULL, 'z'][v % 8 + 1]"
    sql = f"SELECT x, v FROM (SELECT v, {text} AS x FROM t) ORDER BY x COLLATE {collation} DESC NULLS LAST, v{limit}"
    assert check(context, sql, ordered=True).startswith("distributed")


def test_an_ordered_subquery_feeds_an_ordered_list(context: FakeContext) -> None:
    check(context, "SELECT list(v) FROM (SELECT v FROM t ORDER BY s, v DESC)")


# --- sets, distinct, shared and recursive expressions

SETS = {
    "union": "SELECT k, g FROM t UNION SELECT k, w FROM u",
    "union all": "SELECT k, s FROM t UNION ALL SELECT k, name FROM small",
    "union of one row": "SELECT k, s FROM t UNION ALL SELECT 7, 'x'",
    "union by name": "SELECT k, v FROM t UNION ALL BY NAME SELECT w AS v, s FROM u",
    "union of three": "SELECT k FROM t UNION SELECT w FROM u UNION SELECT v FROM t",
    "union all of four": "SELECT k, s FROM t UNION ALL SELECT k, name FROM small UNION ALL SELECT w, s FROM u UNION ALL"
    " SELECT 7, 'x'",
    "union all of three, then union": "SELECT k FROM t UNION ALL SELECT k FROM u UNION ALL SELECT w FROM u UNION SELECT"
    " v FROM t",
    "union all on the right": "SELECT k FROM t UNION ALL (SELECT w FROM u UNION ALL SELECT k FROM small UNION ALL"
    " SELECT n FROM t)",
    "chains of other operations": "SELECT k FROM t EXCEPT ALL SELECT w FROM u EXCEPT ALL SELECT k FROM small UNION ALL"
    " SELECT v FROM t INTERSECT ALL SELECT w FROM u",
    "except": "SELECT k, n FROM t EXCEPT SELECT k, n FROM u",
    "except all": "SELECT k FROM t EXCEPT ALL SELECT k FROM u",
    "intersect": "SELECT n FROM t INTERSECT SELECT n FROM u",
    "intersect all": "SELECT n FROM t INTERSECT ALL SELECT n FROM u",
    "other types": "SELECT k::INT FROM t INTERSECT SELECT k::DECIMAL(9, 2) FROM u",
    "nested": "(SELECT k FROM t UNION SELECT w FROM u) EXCEPT (SELECT k FROM small INTERSECT SELECT k FROM t)",
    "distinct": "SELECT DISTINCT k, n FROM t",
    "distinct NULL": "SELECT DISTINCT n FROM t",
    "distinct signed zero": "SELECT count(*) FROM (SELECT DISTINCT CASE WHEN v % 2 = 0 THEN -0.0 ELSE 0.0 END FROM t)",
    "distinct on": "SELECT DISTINCT ON (k) k, v, s FROM t ORDER BY k, v DESC",
    "distinct on many": "SELECT DISTINCT ON (k, g) k, g, v FROM t ORDER BY k, g, v",
}
SHARED = {
    "self join": "WITH c AS MATERIALIZED (SELECT k, sum(v) AS sv FROM t GROUP BY k) SELECT a.k, b.sv FROM c AS"
    " a JOIN c AS b"
    " ON a.k = b.k + 1",
    "four readings": "WITH c AS MATERIALIZED (SELECT k, max(v) AS mv FROM t GROUP BY k) SELECT k FROM c UNION ALL"
    " SELECT mv FROM c UNION ALL (SELECT max(mv) FROM c) UNION ALL (SELECT a.k FROM c AS a JOIN u ON a.mv = u.w + 150)",
    "one of another": "WITH c AS MATERIALIZED (SELECT k, sum(v) AS sv FROM t GROUP BY k), d AS MATERIALIZED"
    " (SELECT c.k, u.w FROM c JOIN u ON c.k = u.k) SELECT d.k, c.sv FROM d JOIN c ON d.w = c.k UNION ALL SELECT"
    " k, w FROM d",
    "scalar": "WITH c AS MATERIALIZED (SELECT k, v FROM t WHERE v % 3 = 0) SELECT k FROM c WHERE v > (SELECT"
    " avg(v) FROM c)",
    "literals": "WITH x AS MATERIALIZED (SELECT sum(q) AS sq FROM (VALUES (1), (2)) AS r(q)) SELECT v, sq FROM t, x"
    " UNION ALL SELECT max(v), max(sq) FROM t, x",
    "of one task": "WITH x AS MATERIALIZED (SELECT max(v) AS m FROM t) SELECT t.v FROM t, x WHERE t.v = x.m"
    " UNION ALL SELECT m FROM x",
}
RECURSIVE = {
    "numbers": "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 20) SELECT t.v FROM t"
    " JOIN r ON t.v = r.i",
    "over a table": "WITH RECURSIVE r(k) AS (SELECT 1 UNION SELECT u.w FROM r JOIN u ON u.k = r.k) SELECT k FROM r",
    "anchor from a table": "WITH RECURSIVE r(a, d) AS (SELECT k, 0 FROM small UNION ALL SELECT a + 1, d + 1"
    " FROM r WHERE d < 3)"
    " SELECT a, count(*) FROM r GROUP BY a",
    "using key": "WITH RECURSIVE r(k, d) USING KEY (k) AS (SELECT k, v FROM t UNION ALL SELECT u.k, r.d + u.w FROM r"
    " JOIN u ON u.w = r.d AND u.w > 0) SELECT k, d FROM r",
    "using key and what was found before": "WITH RECURSIVE r(a, b) USING KEY (a) AS (SELECT k, 0 FROM small UNION"
    " SELECT n.a, o.b + small.k FROM r AS n JOIN recurring.r AS o USING (a) JOIN small ON small.k = o.b + 1) TABLE r",
    "using key and aggregates": "WITH RECURSIVE r(k, s, c, l, m) USING KEY (k, sum(s), count(c) AS c, list(l) AS l,"
    " max(m)) AS (SELECT k, w, w, w, s FROM u UNION SELECT r.k, u.w, 1, u.w, 'y' FROM r JOIN u ON u.k = r.c"
    " WHERE r.c < 7) SELECT k, s, c, list_sort(l), m, typeof(s) FROM r",
    "joined by an aggregate of its keys": "WITH RECURSIVE r(k, s) USING KEY (k, sum(s)) AS (SELECT k, w::INT FROM u"
    " UNION SELECT k, 1 FROM r WHERE s < 150) SELECT t.v, r.k FROM r JOIN t ON t.v = r.s",
    "using key, never a second round": "WITH RECURSIVE r(k, d) USING KEY (k) AS (SELECT k, w FROM u UNION SELECT k, d"
    " FROM r WHERE FALSE) TABLE r",
    "over an aggregate": "WITH RECURSIVE m AS (SELECT k, max(v) AS mv FROM t GROUP BY k),"
    " r(k, d) AS (SELECT 0, 0 UNION ALL SELECT m.k, d + 1 FROM r JOIN m ON m.k = r.k + 1 WHERE d < 9) SELECT * FROM r",
}
ELSE = {
    "unnest": "SELECT k, unnest([v, v + 1, NULL]) AS x FROM t",
    "unnest in from": "SELECT t.v, q.x FROM t, unnest([t.k, t.g]) AS q(x) WHERE q.x > 1",
    "lateral": "SELECT u.w, x.m FROM u, LATERAL (SELECT max(v) AS m FROM t WHERE t.k = u.k) AS x",
    "pivot": "PIVOT t ON g IN (0, 1, 2) USING sum(v), count(*) GROUP BY k",
    "unpivot": "UNPIVOT (SELECT k, v, f::BIGINT AS f FROM t) ON v, f",
    "exists and not": "SELECT v FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.w > 50) AND k NOT IN"
    " (SELECT k FROM small)",
    "all": "SELECT v FROM t WHERE v > ALL (SELECT w FROM u WHERE u.k = t.k)",
    "count of nothing": "SELECT count(*), sum(v), avg(f), min(s) FROM t WHERE v * v = 7",
    "groups of nothing": "SELECT k, count(*) FROM t WHERE v * v = 7 GROUP BY k",
    "limit inside": "SELECT k, count(*) FROM (SELECT * FROM t ORDER BY v DESC LIMIT 30) GROUP BY k",
    "a state that is read where it is made": "SELECT k, finalize(s) FROM (SELECT k, stddev(v) EXPORT_STATE AS s FROM t"
    " GROUP BY k)",
    "unions": "SELECT u, union_tag(u), count(*) FROM (SELECT CASE WHEN g = 0 THEN union_value(a := k)::UNION(a BIGINT,"
    " b VARCHAR) ELSE union_value(b := CASE WHEN g = 1 THEN s END) END AS u FROM t) GROUP BY u",
    "unions in order": "SELECT [u], v FROM (SELECT v, union_value(a := n)::UNION(a BIGINT, b VARCHAR) AS u FROM t)"
    " ORDER BY u, v",
    "tuples": "SELECT row(k, s), count(*), max(row(g, n)) FROM t GROUP BY row(k, s)",
    "a raising branch never taken": "SELECT v, CASE WHEN k > 100 THEN error('no') ELSE k END FROM t",
    "a subquery of one row": "SELECT v FROM t WHERE v > (SELECT w FROM u WHERE w = 42)",
    "a subquery of no row": "SELECT v, (SELECT w FROM u WHERE w * w = 7) FROM t",
    "sample of all": "SELECT count(*) FROM t USING SAMPLE 100%",
}


@pytest.mark.parametrize("name", SETS)
def test_sets(context: FakeContext, name: str) -> None:
    check(context, SETS[name], ordered="ORDER BY" in SETS[name])


@pytest.mark.parametrize("name", SHARED)
def test_shared_expressions(context: FakeContext, name: str) -> None:
    check(context, SHARED[name])


@pytest.mark.parametrize("name", RECURSIVE)
def test_recursive_expressions(context: FakeContext, name: str) -> None:
    check(context, RECURSIVE[name])


@pytest.mark.parametrize("name", ELSE)
def test_other_constructs(context: FakeContext, name: str) -> None:
    check(context, ELSE[name], ordered=" ORDER BY u" in ELSE[name])


@pytest.mark.parametrize("name", ["union", "except all", "distinct"])
def test_sources_in_the_sessions_memory(context: FakeContext, name: str) -> None:
    context.placements = {"t": Placement.SESSION, "small": Placement.SESSION}
    check(context, SETS[name])


def test_a_union_all_of_what_lies_in_the_sessions_memory_needs_no_agents(context: FakeContext) -> None:
    context.placements = {"t": Placement.SESSION, "u": Placement.SESSION}
    sql = "SELECT k FROM t UNION ALL SELECT k FROM u"
    assert context.undistributed(sql)
    check(context, f"SELECT k, count(*) FROM ({sql}) GROUP BY k")


def test_rows_of_a_union_all_leave_in_any_order_where_none_is_to_be_kept(context: FakeContext) -> None:
    sql = "SELECT k FROM t UNION ALL SELECT k FROM u"
    assert planned(context, sql).result_parts is not None
    context.settings = replace(context.settings, keep_order=False)
    assert planned(context, sql).result_parts is None


def planned(context: FakeContext, sql: str) -> OperatorGraph:
    return context.plan(sql).operator_graph


# --- the ladder


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT v, random() FROM t", "random() is volatile"),
        ("SELECT v FROM t ORDER BY random()", "volatile"),
        ("SELECT t.v, q.r FROM t, (VALUES (random()), (random())) AS q(r)", "volatile"),
        ("SELECT v, uuid() FROM t", "volatile"),
        ("SELECT s COLLATE NOCASE AS c, count(*) FROM t GROUP BY c", "collated text"),
        ("SELECT s FROM t EXCEPT SELECT s COLLATE NOCASE FROM t", "collated text"),
        ("SELECT v FROM t ORDER BY CASE WHEN s COLLATE NOCASE = 'A' THEN v END", "collated text"),
        (
            "SELECT k, avg(v) EXPORT_STATE FROM t GROUP BY k",
            "an aggregate state does not survive the way to the result",
        ),
        ("SELECT DISTINCT s FROM (SELECT k, avg(v) EXPORT_STATE AS s FROM t GROUP BY k)", "survive"),
        (
            "SELECT k::VARIANT AS x, count(*) FROM t GROUP BY x",
            "a column of type VARIANT does not survive between agents",
        ),
        ("SELECT CASE WHEN v > 3 THEN row() END AS x, count(*) FROM t GROUP BY x", "a column of type TUPLE of nothing"),
        ("SELECT 42", "reads no table"),
        ("SELECT * FROM range(10)", "no source of the query can be split"),
    ],
)
def test_what_stays_single_says_why(context: FakeContext, sql: str, reason: str) -> None:
    assert reason in context.undistributed(sql)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT median(f) FROM t", "median"),
        ("SELECT v, stddev(v) OVER (ORDER BY v) FROM t", "window"),
        ("SELECT * FROM t POSITIONAL JOIN u", "positional"),
        ("SELECT count(*) FROM (SELECT * FROM t USING SAMPLE 50%)", "SAMPLE"),
        ("SELECT t.v, u.w FROM t FULL JOIN u ON t.v < u.w", "FULL"),
        ("SELECT v FROM t LIMIT 10%", "percent"),
        ("SELECT v FROM t LIMIT (SELECT max(k) FROM u)", "LIMIT by a value"),
    ],
)
def test_what_is_gathered_says_why(context: FakeContext, sql: str, reason: str) -> None:
    plan = context.plan(sql)
    assert plan.mode is Mode.PARTLY, describe(plan)
    assert reason in plan.reason


def test_a_source_that_cannot_be_cut_is_dealt_out_where_others_are_split(context: FakeContext) -> None:
    context.whole = frozenset({"u"})
    plan = check(context, "SELECT k FROM t UNION ALL SELECT w FROM u")
    assert plan.startswith("distributed")


def test_one_agent_has_one_task_of_everything(context: FakeContext) -> None:
    context.agents, context.settings = 1, PlanSettings()
    plan = context.plan("SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k ORDER BY 1")
    assert {o.parallelism for o in plan.operator_graph.operators} == {1}
    assert_same(fetch(context.connection, "SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k ORDER BY 1"),
                Simulation(context, plan).run())  # fmt: skip


def test_a_large_sort_is_cut_into_as_many_ranges_as_agents(context: FakeContext) -> None:
    context.settings, context.factor, context.agents = PlanSettings(), 1_000_000, 4
    plan = context.plan("SELECT v FROM t ORDER BY v")
    (edge,) = plan.operator_graph.edges
    assert (edge.edge_type, edge.bounds_partitions, edge.partitions) == (ShuffleEdgeType.RANGE, 4, 1)
