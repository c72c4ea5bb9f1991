"""Rewrites before distribution, and the ones that would be wrong; columns that nothing reads go."""

from __future__ import annotations

import pytest

from sabot_planner.logical.node import Node, walk
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Join,
    JoinKind,
    Project,
    Scan,
    Shared,
    Values,
    Window,
)
from sabot_planner.logical.prune import prune
from sabot_planner.logical.rules.apply import apply_rules
from sabot_planner.logical.rules.inline_ctes import inline_ctes
from sabot_planner.logical.rules.mark_to_semi import mark_to_semi
from tests.planner.context import FakeContext, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast


def kinds(root: Node) -> list[JoinKind]:
    return [n.kind for n in walk(root) if isinstance(n, Join)]


# --- marks


def test_in_becomes_a_semi_join(context: FakeContext) -> None:
    root = context.built("SELECT v FROM t WHERE v > 5 AND n IN (SELECT n FROM u WHERE w > 3)")
    if JoinKind.MARK in kinds(root):
        assert kinds(mark_to_semi(root, context.names)) == [JoinKind.SEMI]
    assert JoinKind.MARK not in kinds(apply_rules(root, context.names))


def test_not_in_stays_a_mark_join_because_of_null(context: FakeContext) -> None:
    """x NOT IN (1, NULL) is NULL for x = 2; ANTI would keep the row."""
    sql = "SELECT v FROM t WHERE n NOT IN (SELECT n FROM u)"
    root = context.built(sql)
    assert kinds(root) == [JoinKind.MARK], "DuckDB 2.0 exports NOT IN as a mark join"
    assert kinds(apply_rules(root, context.names)) == [JoinKind.MARK]
    expected = fetch(context.connection, sql)
    assert expected.rows == (), "u.n holds a NULL"
    assert_same(expected, Simulation(context, context.plan(sql)).run())


def test_a_mark_that_is_shown_stays(context: FakeContext) -> None:
    root = context.built("SELECT v, n IN (SELECT n FROM u) FROM t")
    assert kinds(apply_rules(root, context.names)) == kinds(root) == [JoinKind.MARK]


@pytest.mark.parametrize(
    "where",
    [
        "n IN (SELECT n FROM u)",
        "n NOT IN (SELECT n FROM u WHERE n > 1)",
        "n NOT IN (SELECT n FROM u)",
        "n NOT IN (SELECT n FROM u WHERE u.k = t.k)",
        "n IN (SELECT n FROM u WHERE u.k = t.k)",
        "NOT (n IN (SELECT n FROM u WHERE w > 50) AND k > 2)",
        "n IN (SELECT n FROM u WHERE w > 50) OR k = 1",
        "n IN (SELECT n FROM u WHERE w > 50) IS NULL",
        "(k, n) IN (SELECT k, n FROM u)",
        "(k, n) NOT IN (SELECT k, n FROM u WHERE n IS NOT NULL)",
        "v > ANY (SELECT w FROM u WHERE u.k = t.k)",
        "v > ALL (SELECT w FROM u)",
        "EXISTS (SELECT 1 FROM u WHERE u.n = t.n) AND NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.v)",
        "n NOT IN (SELECT n FROM u WHERE w * w = 7)",
        "k IN (SELECT k FROM u) AND v IN (SELECT w FROM u) AND n NOT IN (SELECT k FROM small WHERE k > 2)",
    ],
)
@pytest.mark.parametrize("copied", [0, 1 << 20])
def test_membership_is_three_valued(context: FakeContext, where: str, copied: int) -> None:
    context.settings = forced(3, broadcast_bytes=copied)
    sql = f"SELECT v FROM t WHERE {where}"
    assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())


# --- common table expressions


def test_an_expression_that_is_read_once_is_written_in_place(context: FakeContext) -> None:
    root = context.built("WITH c AS MATERIALIZED (SELECT k, sum(v) AS s FROM t GROUP BY k) SELECT * FROM c WHERE s > 9")
    assert not any(isinstance(n, CteRef | Shared) for n in walk(inline_ctes(root, context.names)))


def test_an_expression_that_is_read_twice_is_computed_once(context: FakeContext) -> None:
    sql = (
        "WITH c AS MATERIALIZED (SELECT k, sum(v) AS s FROM t GROUP BY k) SELECT * FROM c AS a JOIN c AS b ON a.k = b.s"
    )
    root = inline_ctes(context.built(sql), context.names)
    assert len([n for n in walk(root) if isinstance(n, CteRef)]) == 2
    assert len([n for n in walk(root) if isinstance(n, Shared)]) == 1


def test_a_filtered_scan_is_cheaper_to_read_again_than_to_keep(context: FakeContext) -> None:
    shared = "WITH c AS MATERIALIZED (SELECT k, v + 1 AS x FROM t WHERE v % 3 = 0)"
    sql = f"{shared} SELECT a.x, b.x FROM c AS a JOIN c AS b USING (k)"
    root = inline_ctes(context.built(sql), context.names)
    assert not any(isinstance(n, CteRef) for n in walk(root))
    assert_names_are_unique(root)


def test_names_are_unique_in_the_whole_plan(context: FakeContext) -> None:
    for sql in (
        "WITH c AS MATERIALIZED (SELECT k, v FROM t WHERE v > 3) SELECT * FROM c AS a JOIN c AS b ON a.k = b.v",
        "SELECT a.k, b.k FROM t AS a JOIN t AS b ON a.v = b.v WHERE a.k IN (SELECT k FROM t)",
        "SELECT k, list_transform([v], lambda c1: c1 + v) FROM t",
    ):
        assert_names_are_unique(apply_rules(context.built(sql), context.names))


def test_a_lambdas_parameter_captures_no_column(context: FakeContext) -> None:
    calls = "list_transform([v, 1], lambda c1: c1 + g), list_filter([v], lambda c2, c3: c2 > c3 + k)"
    sql = f"SELECT k, {calls} FROM t ORDER BY v"
    assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())


def assert_names_are_unique(root: Node) -> None:
    made: list[str] = []
    for node in walk(root):
        if isinstance(node, Scan | Values | CteRef):
            made += node.columns
        elif isinstance(node, Project | Window):
            made += [i.name for i in node.items if i.name not in node.input.columns]
        elif isinstance(node, Aggregate):
            made += [i.name for i in node.keys + node.aggregates]
    assert len(made) == len(set(made)), sorted(n for n in made if made.count(n) > 1)


# --- DISTINCT in two levels


def test_distinct_arguments_are_made_distinct_first(context: FakeContext) -> None:
    root = apply_rules(context.built("SELECT k, sum(DISTINCT g), count(DISTINCT g) FROM t GROUP BY k"), context.names)
    assert not any(
        a.expression.args.get("distinct") for n in walk(root) if isinstance(n, Aggregate) for a in n.aggregates
    )
    assert any(isinstance(n, Distinct | Aggregate) for n in walk(root))


# --- pruning


def read_columns(root: Node) -> dict[str, set[str]]:
    """What each scan is asked for: its columns that any node above mentions."""
    found: dict[str, set[str]] = {}
    for node in walk(root):
        for child in node.inputs:
            if isinstance(child, Scan):
                used = set(node.columns) & set(child.columns)
                found.setdefault(child.source.name, set()).update(used)
    return found


@pytest.mark.parametrize(
    ("sql", "width"),
    [
        ("SELECT t.v FROM t JOIN u ON t.k = u.k", 2),
        ("SELECT t.v, row_number() OVER (PARTITION BY t.k ORDER BY t.s) FROM t", 3),
        ("SELECT DISTINCT k FROM t", 1),
        ("SELECT v FROM t ORDER BY s", 2),
        ("SELECT k FROM (SELECT k, v, s, f FROM t UNION ALL SELECT k, w, s, n FROM u)", 1),
        ("SELECT k, median(f) FROM t GROUP BY k", 2),
        ("SELECT count(*) FROM (SELECT k, v, s FROM t ORDER BY v LIMIT 5)", 2),
    ],
)
def test_an_exchange_moves_only_what_is_read(context: FakeContext, sql: str, width: int) -> None:
    graph = context.plan(sql).operator_graph
    assert graph is not None
    from_scans = [e for e in graph.edges if graph.operator(e.source).scans]
    assert all(len(e.columns) <= width for e in from_scans), [e.columns for e in graph.edges]


def test_pruning_keeps_the_columns_of_the_result_and_their_order(context: FakeContext) -> None:
    for sql in (
        "SELECT s, v, k FROM t",
        "SELECT s, v, k FROM t UNION ALL SELECT s, w, k FROM u",
        "FROM t JOIN u USING (k)",
    ):
        root = context.built(sql)
        assert prune(root).columns == root.columns


def test_an_unnest_that_nobody_reads_still_multiplies_rows(context: FakeContext) -> None:
    sql = "SELECT count(*), sum(v) FROM (SELECT v, unnest([k, g, 7]) AS x FROM t)"
    assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())


def test_rows_without_columns_are_still_counted(context: FakeContext) -> None:
    for sql in (
        "SELECT count(*) FROM t, small",
        "SELECT count(*) FROM t JOIN u ON t.k = u.k",
        "SELECT 1 FROM t",
        "SELECT count(*) FROM (SELECT 1 FROM t UNION ALL SELECT 2 FROM u)",
        "SELECT count(*) FROM (SELECT DISTINCT k FROM t)",
    ):
        assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())
