"""Exported SQL goes through the tree unchanged, and the tree shows what the planner needs to see."""

from __future__ import annotations

import duckdb
import pytest
from sqlglot import exp

from sabot_planner.errors import PlannerError, Undistributable
from sabot_planner.sql.dialect import call, data_type, function_call, join_type, parse_exported, to_sql, type_text
from sabot_planner.sql.print_guard import same_meaning

pytestmark = pytest.mark.fast

# (as DuckDB prints it, as we print it); where both are one text it stands once.
SAME = None
FORMS: list[tuple[str, str | None]] = [
    ("SELECT CAST(1 AS INTEGER) AS one", SAME),
    ("SELECT NULL AS a, TRUE AS b, FALSE AS c", SAME),
    ('SELECT CAST(NULL AS "NULL") AS x, CAST(\'[1]\' AS "JSON") AS y', SAME),
    ("SELECT X'41' AS a, B'010' AS b, 'it''s' AS c, '' AS d, 'two\nlines' AS e", SAME),
    ("SELECT .5 AS a, 1e10 AS b, 1.50 AS c, - 5 AS d, 1_000 AS e", SAME),
    ('SELECT "a ""b""" AS "c d", "SELECT" AS "x.y"', SAME),
    ('SELECT "system".main."*"(a, "system".main.f()) AS x', SAME),
    ('SELECT "system".main.sum(r0.c0) EXPORT_STATE AS s FROM t AS r0(c0)', SAME),
    ('SELECT "system".main.list(DISTINCT c0 ORDER BY c1 DESC NULLS FIRST, c2 ASC NULLS LAST) AS l FROM t', SAME),
    ('SELECT "system".main.avg(c0) FILTER (WHERE (c1 > 2)) AS a FROM t', SAME),
    ('SELECT "system".main.count(DISTINCT c0) FILTER (WHERE (c1 > 2)) OVER (PARTITION BY c2) AS a FROM t', SAME),
    (
        'SELECT "system".main.last_value(c0 IGNORE NULLS) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS w',
        SAME,
    ),
    ('SELECT "system".main.first_value(c0 ORDER BY c1 ASC NULLS LAST IGNORE NULLS) OVER (PARTITION BY c2) AS w', SAME),
    ("SELECT f(c0) OVER (PARTITION BY c1, c2 ORDER BY c3 ASC NULLS LAST) AS w FROM t", SAME),
    ("SELECT f(c0) OVER (RANGE BETWEEN CAST(1 AS BIGINT) PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES) AS w", SAME),
    ("SELECT f() OVER (GROUPS 2 PRECEDING EXCLUDE CURRENT ROW) AS w, f() OVER () AS v", SAME),
    ("SELECT f(c0, (lambda x: g(x, 1))) AS a, f(c0, (lambda x, i: (x < i))) AS b", SAME),
    (
        "SELECT CASE WHEN ((a)) THEN (1) ELSE CASE WHEN (b) THEN 2 END END AS x",
        "SELECT CASE WHEN a THEN 1 ELSE CASE WHEN b THEN 2 END END AS x",
    ),
    ("SELECT c0[1: 2] AS a, c0[: 2] AS b, c0[1: ] AS c, c0[1: -: 2] AS d, c0['k'] AS e, c0[1: 5: 2] AS f", SAME),
    ('SELECT struct_pack(a := 1, "b c" := f(2)) AS s', SAME),
    ("SELECT ((a = 1) AND (b IS NULL) AND ((c IS NOT NULL) OR (d IS DISTINCT FROM e))) AS p", SAME),
    ("SELECT ((a IS NOT DISTINCT FROM b) AND (c IN (1, 2)) AND (NOT (d IN (3))) AND (e BETWEEN 1 AND 2)) AS p", SAME),
    ("SELECT (NOT (a IS NULL)) AS p, (NOT a) AS q", SAME),
    ("SELECT ((a AND b) AND c) AS p, (a AND (b AND c)) AS q", SAME),
    ("SELECT COALESCE(a, b, 1) AS c, TRY_CAST(a AS INTEGER) AS d, GROUPING(a, b) AS g", SAME),
    ("SELECT a COLLATE NOCASE COLLATE C AS x FROM t ORDER BY a COLLATE C ASC NULLS LAST", SAME),
    ("SELECT (SELECT 1 AS a) AS s", SAME),
    ("SELECT a FROM t LIMIT (CAST(79.9 AS DOUBLE)) %", SAME),
    ("SELECT a FROM t ORDER BY a DESC NULLS FIRST LIMIT CAST(5 AS BIGINT) OFFSET CAST(2 AS BIGINT)", SAME),
    ("SELECT DISTINCT ON (c0, c1) c0, c2 FROM t ORDER BY c0 ASC NULLS LAST", SAME),
    ("SELECT a, f(b) AS s FROM t GROUP BY GROUPING SETS ((), (a), (a, b))", SAME),
    ("SELECT a FROM (SELECT a FROM t) AS r(a) USING SAMPLE 10%(Bernoulli)", SAME),
    ("SELECT a FROM t USING SAMPLE 1000(SYSTEM, 42)", SAME),
    ("SELECT c0 FROM (VALUES (1, 'a'), (2, NULL)) AS r0(c0, c1)", SAME),
    ('SELECT column0 FROM "system".main."range"(CAST(10 AS BIGINT)) AS r0(column0)', SAME),
    ("SELECT a FROM main.read_parquet(list_value('f.parquet'), (file_row_number = TRUE)) AS r0(a)", SAME),
    ("SELECT a FROM memory.main.t AS r0(a, b)", SAME),
    ("(SELECT 1 AS a) UNION ALL (SELECT 2 AS a)", SAME),
    ("SELECT a FROM ((SELECT 1 AS a) EXCEPT (SELECT 2 AS a)) AS r(a)", SAME),
    ("SELECT a FROM ((SELECT 1 AS a) INTERSECT ALL ((SELECT 2 AS a) UNION (VALUES (3)))) AS r(a)", SAME),
    ("(SELECT 1 AS a) UNION ALL (SELECT 2 AS a) UNION ALL (SELECT 3 AS a)", SAME),
    ("((SELECT 1 AS a) UNION ALL (SELECT 2 AS a)) UNION ALL (SELECT 3 AS a)", SAME),
    ("SELECT a FROM (((VALUES (1)) UNION ALL (VALUES (2)) LIMIT 1) UNION ALL (VALUES (3))) AS r(a)", SAME),
    ("WITH x(c0) AS MATERIALIZED (SELECT 1 AS c0), y AS NOT MATERIALIZED (SELECT c0 FROM x) SELECT c0 FROM y", SAME),
    (
        """WITH RECURSIVE t(c0, c1) USING KEY (c0, max(c1) AS c1) AS NOT MATERIALIZED ((SELECT 1 AS c0, 2 AS c1) \
UNION (SELECT c0, c1 FROM recurring.t AS r(c0, c1))) SELECT c0 FROM t AS s(c0, c1)""",
        SAME,
    ),
    ("SELECT 1 AS a FROM (WITH x(c0) AS MATERIALIZED (SELECT 1 AS c0) SELECT c0 FROM x) AS r(c0)", SAME),
    ("SELECT 1 AS a FROM (a AS r0(x) INNER JOIN b AS r1(x) ON (r0.x = r1.x))", SAME),
    ("SELECT 1 AS a FROM ((a LEFT JOIN b ON (a.x = b.x)) CROSS JOIN c)", SAME),
    ("SELECT 1 AS a FROM (a FULL JOIN (b INNER JOIN c ON (b.x = c.x)) ON (a.x = b.x))", SAME),
    ("SELECT __mark_join_marker FROM (a JOIN BY (TYPE MARK) (SELECT 1 AS c0) AS r(c0) ON (a.x = r.c0))", SAME),
    ("SELECT 1 AS a FROM (a JOIN BY (TYPE RIGHT_SEMI) b ON (a.x = b.x))", SAME),
    ("SELECT 1 AS a FROM (a SEMI JOIN b ON (a.x = b.x))", SAME),
    ("SELECT 1 AS a FROM (a ASOF LEFT JOIN b ON ((a.k = b.k) AND (a.x >= b.x)))", SAME),
    ("SELECT 1 AS a FROM (a POSITIONAL JOIN b)", SAME),
]

TYPES = [
    "INTEGER", "DECIMAL(18,3)", "VARCHAR[]", "INTEGER[3]", "INTEGER[3][]", "STRUCT(a INTEGER, \"b c\" DECIMAL(4,1)[])",
    "MAP(VARCHAR, STRUCT(x TIMESTAMP_NS))", "UNION(num INTEGER, str VARCHAR)", "ENUM('a', 'b''c')",
    "TIMESTAMP_US", "TIMESTAMPTZ", "TIMETZ", "INTERVAL", "HUGEINT", "UHUGEINT", "BIGNUM", "VARIANT", "BIT",
    "TUPLE(INTEGER, BLOB)", '"NULL"', '"JSON"', "GEOMETRY('OGC:CRS84')", "STRUCT",
]  # fmt: skip


@pytest.mark.parametrize(("exported", "printed"), FORMS)
def test_a_form_is_printed_as_it_was_read(exported: str, printed: str | None) -> None:
    expected = exported if printed is None else printed
    assert to_sql(parse_exported(exported)) == expected
    assert to_sql(parse_exported(expected)) == expected


@pytest.mark.parametrize("text", TYPES)
def test_a_type_keeps_its_text(text: str) -> None:
    tree = parse_exported(f"SELECT CAST(a AS {text}) AS x")
    cast = tree.expressions[0].this
    assert type_text(cast) == text
    assert to_sql(tree) == f"SELECT CAST(a AS {text}) AS x"


@pytest.mark.parametrize(
    ("join", "word"),
    [
        ("INNER JOIN", "INNER"),
        ("CROSS JOIN", "CROSS"),
        ("LEFT JOIN", "LEFT"),
        ("RIGHT JOIN", "RIGHT"),
        ("FULL JOIN", "FULL"),
        ("FULL OUTER JOIN", "FULL"),
        ("SEMI JOIN", "SEMI"),
        ("ANTI JOIN", "ANTI"),
        ("ASOF INNER JOIN", "ASOF"),
        ("ASOF LEFT JOIN", "ASOF_LEFT"),
        ("POSITIONAL JOIN", "POSITIONAL"),
        ("JOIN BY (TYPE MARK)", "MARK"),
        ("JOIN BY (TYPE SINGLE)", "SINGLE"),
        ("JOIN BY (TYPE RIGHT_SEMI)", "RIGHT_SEMI"),
        ("JOIN BY (TYPE RIGHT_ANTI)", "RIGHT_ANTI"),
    ],
)
def test_join_types(join: str, word: str) -> None:
    (node,) = parse_exported(f"SELECT 1 AS a FROM (x {join} y ON (x.a = y.a))").args["joins"]
    assert join_type(node) == word


def test_joins_lean_to_the_left_and_only_a_right_hand_join_nests() -> None:
    tree = parse_exported("SELECT 1 AS a FROM (((a CROSS JOIN b) CROSS JOIN c) CROSS JOIN (d CROSS JOIN e))")
    assert tree.args["from_"].this.name == "a"
    names = [join.this.this.name for join in tree.args["joins"]]
    assert names[:2] == ["b", "c"]
    nested = tree.args["joins"][2].this
    assert isinstance(nested, exp.Subquery)
    assert nested.this.name == "d"
    assert nested.args["joins"][0].this.name == "e"


def test_a_call_shows_its_name_arguments_and_modifiers() -> None:
    tree = parse_exported(
        "SELECT \"system\".main.string_agg(DISTINCT a, ',' ORDER BY b DESC NULLS LAST) FILTER (WHERE c) AS x, "
        '"system".main.ROW_NUMBER() OVER (PARTITION BY a) AS y, a AS z, "system".main.sum(a) EXPORT_STATE AS w FROM t'
    )
    aggregate, window, column, state = (alias.this for alias in tree.expressions)
    name, arguments = function_call(aggregate) or ("", [])
    assert (name, len(arguments)) == ("string_agg", 2)
    assert aggregate.args["distinct"] is True
    assert aggregate.args["order"].expressions[0].args["desc"] is True
    assert aggregate.args["order"].expressions[0].args["nulls_first"] is False
    assert aggregate.args["filter"].name == "c"
    assert function_call(window) == ("row_number", [])
    assert function_call(column) is None
    assert state.args["export_state"] is True
    assert column.parent is tree.expressions[2]


def test_built_nodes_are_printed() -> None:
    key = call("hash", exp.Cast(this=exp.column("c0", "r0"), to=data_type("HUGEINT")))
    tree = exp.Select(expressions=[exp.Alias(this=key, alias=exp.to_identifier("h", quoted=True))])
    assert to_sql(tree) == 'SELECT "system".main.hash(CAST(r0.c0 AS HUGEINT)) AS "h"'


def test_printing_a_foreign_node_is_an_error() -> None:
    with pytest.raises(PlannerError, match="RegexpLike"):
        to_sql(exp.RegexpLike(this=exp.column("a"), expression=exp.Literal.string("b")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT",
        "SELECT a b",
        "SELECT a FROM",
        "SELECT CAST(a AS",
        "SELECT e'x'",
        "SELECT a + b",
        "SELECT f(a",
        "SELECT a FROM (b AS x INNER JOIN c) AS y",
        "SELECT a; SELECT b",
        "(SELECT 1) UNION ALL (SELECT 2) EXCEPT (SELECT 3)",
        "(SELECT 1) UNION ALL (SELECT 2) UNION (SELECT 3)",
        "SELECT a FROM " + "(SELECT a FROM " * 2000 + "t" + ") AS r(a)" * 2000,
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(Undistributable, match="the exported plan"):
        parse_exported(text)


# Statements whose exports contain every form above, as the pinned DuckDB prints them.
SETUP = """
CREATE TABLE t AS SELECT range % 7 AS k, range AS v, 's' || range % 3 AS s,
  CASE WHEN range % 4 = 0 THEN NULL ELSE range END AS n, [range, range + 1] AS l,
  {'a': range, 'b': 'x'} AS st, DATE '2024-01-01' + range::INT AS d FROM range(50);
CREATE TABLE u AS SELECT range AS k, 'n' || range AS name FROM range(5);
CREATE TYPE mood AS ENUM ('sad', 'ok');
"""
STATEMENTS = [
    "SELECT k, sum(v), count(DISTINCT s), avg(n) FILTER (WHERE v > 3) FROM t GROUP BY k ORDER BY k DESC LIMIT 3",
    "SELECT k, s, sum(v), grouping(k, s) FROM t GROUP BY CUBE (k, s)",
    "SELECT * FROM t WHERE k NOT IN (SELECT k FROM u) AND EXISTS (SELECT 1 FROM u WHERE u.k < t.k)",
    "SELECT k, (SELECT max(name) FROM u WHERE u.k = t.k) FROM t",
    "SELECT * FROM t FULL JOIN u USING (k)",
    "SELECT * FROM u LEFT JOIN t ON u.k = t.k AND t.v > 10",
    "SELECT * FROM t ASOF JOIN u ON t.v >= u.k",
    "SELECT * FROM t POSITIONAL JOIN u",
    "SELECT k FROM t UNION SELECT k FROM u EXCEPT ALL SELECT 1",
    "SELECT k FROM t UNION ALL SELECT k FROM u UNION ALL (SELECT v FROM t LIMIT 3) UNION ALL SELECT 1 ORDER BY 1",
    "SELECT k FROM t UNION SELECT k FROM u UNION SELECT v FROM t UNION ALL SELECT 7 UNION ALL SELECT 8",
    "SELECT k FROM t EXCEPT ALL SELECT k FROM u EXCEPT ALL SELECT v FROM t",
    "SELECT list_transform(l, lambda x, i: x + i), l[1:2], l[1], st.a, {'c': v}, MAP {'q': v} FROM t",
    "SELECT 'sad'::mood, '41'::BLOB, INTERVAL 3 DAY + d, try_cast(s AS INT), v::DECIMAL(9, 2), '101'::BIT FROM t",
    "SELECT last_value(n IGNORE NULLS) OVER (PARTITION BY k ORDER BY v ROWS 3 PRECEDING EXCLUDE TIES) FROM t",
    "SELECT string_agg(s, ',' ORDER BY v DESC), list(v ORDER BY v) FROM t",
    "SELECT DISTINCT ON (k) k, v FROM t ORDER BY k, v DESC",
    "SELECT * FROM t ORDER BY v LIMIT 10%",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT unnest(l) FROM r, t",
    "SELECT * FROM (VALUES (1, NULL), (2, 'a''b')) AS x(a, b) WHERE a IS NOT DISTINCT FROM 1 OR b BETWEEN 'a' AND 'b'",
    "SELECT s COLLATE NOCASE AS c, count(*) FROM t GROUP BY c ORDER BY c",
    "PIVOT (FROM t) ON s IN ('s0', 's1') USING sum(v) GROUP BY k",
    "SELECT CASE WHEN k = 1 THEN 'one' WHEN k IS NULL THEN NULL ELSE s END FROM t WHERE k NOT IN (1, 2)",
]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(SETUP)
    return connection


@pytest.mark.parametrize("disabled", ["", "grouping_sets,window_self_join,partial_aggregate_pushdown"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_duckdb_understands_what_was_printed_as_what_it_exported(
    connection: duckdb.DuckDBPyConnection, statement: str, disabled: str
) -> None:
    connection.execute(f"SET disabled_optimizers = '{disabled}'")
    (exported,) = [text for _, text in connection.execute(f"EXPLAIN (SQL) {statement}").fetchall()]
    printed = to_sql(parse_exported(exported))
    before, after = (
        connection.execute("SELECT json_serialize_sql($1), json_serialize_sql($2)", [exported, printed]).fetchone()
        or ()
    )
    assert same_meaning(before, after)
    rows = connection.execute(statement)
    expected, columns = sorted(map(repr, rows.fetchall())), rows.description
    rows = connection.execute(printed)
    assert sorted(map(repr, rows.fetchall())) == expected
    assert [c[:2] for c in rows.description] == [c[:2] for c in columns]
