"""Reading what DuckDB prints: relations, and the estimates of explained plans."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sabot_sql.catalog.conversion import is_lossy
from sabot_sql.catalog.estimates import Estimates
from sabot_sql.catalog.relation_text import FunctionCall, TableName, parse_relation, split_arguments, text_literal

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("memory.main.t", ("memory", "main", "t")),
        ('"we""ird"."a.b"."t ("', ('we"ird', "a.b", "t (")),
        ("t", ("t",)),
    ],
)
def test_table_names(sql: str, parts: tuple[str, ...]) -> None:
    assert parse_relation(sql) == TableName(parts)


@pytest.mark.parametrize(
    ("sql", "call"),
    [
        (
            "\"system\".main.read_parquet(CAST('a,b(.parquet' AS VARCHAR), (filename = CAST(TRUE AS BOOLEAN)))",
            FunctionCall(
                "read_parquet", ("CAST('a,b(.parquet' AS VARCHAR)",), (("filename", "CAST(TRUE AS BOOLEAN)"),)
            ),
        ),
        (
            (
                "read_csv(CAST(list_value('x', 'y''z') AS VARCHAR[]),"
                " (\"columns\" = CAST(struct_pack(a := 'INT') AS STRUCT(a VARCHAR))))"
            ),
            FunctionCall(
                "read_csv",
                ("CAST(list_value('x', 'y''z') AS VARCHAR[])",),
                (("columns", "CAST(struct_pack(a := 'INT') AS STRUCT(a VARCHAR))"),),
            ),
        ),
        (
            "read_csv('a', header = true, delim := ',')",
            FunctionCall("read_csv", ("'a'",), (("header", "true"), ("delim", "','"))),
        ),
        ('"range"(CAST(1 AS BIGINT), 5)', FunctionCall("range", ("CAST(1 AS BIGINT)", "5"), ())),
        ("f()", FunctionCall("f", (), ())),
    ],
)
def test_function_calls(sql: str, call: FunctionCall) -> None:
    assert parse_relation(sql) == call


@pytest.mark.parametrize("sql", ["", "(SELECT 1)", "t JOIN u", "f(1) AS x", "1"])
def test_what_is_neither_is_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="name"):
        parse_relation(sql)


def test_options_are_found_by_name() -> None:
    call = parse_relation("read_parquet('a', (union_by_name = CAST(TRUE AS BOOLEAN)))")
    assert isinstance(call, FunctionCall)
    assert call.option("union_by_name") == "CAST(TRUE AS BOOLEAN)"
    assert call.option("filename") is None


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a, b", ["a", "b"]),
        ("f(a, b), [c, d], {'e': 1, 'f': 2}", ["f(a, b)", "[c, d]", "{'e': 1, 'f': 2}"]),
        ("'a, b', \"c, d\", 'it''s, so'", ["'a, b'", '"c, d"', "'it''s, so'"]),
        ("'never closed, so", ["'never closed, so"]),
    ],
)
def test_arguments_are_split_at_their_own_commas(text: str, pieces: list[str]) -> None:
    assert split_arguments(text) == pieces


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("'it''s'", "it's"),
        (" CAST('a b' AS VARCHAR) ", "a b"),
        ("CAST('' AS VARCHAR)", ""),
        ("CAST('1' AS INTEGER)", None),
        ("'a' || 'b'", None),
        ("list_value('a')", None),
    ],
)
def test_plain_strings(sql: str, value: str | None) -> None:
    assert text_literal(sql) == value


@pytest.mark.parametrize(
    ("type_name", "lossy"),
    [
        ("BIGINT", False),
        ("HUGEINT", True),
        ("STRUCT(a UHUGEINT[])", True),
        ('STRUCT("UUID" INTEGER)', False),
        ("ENUM('x', 'it''s')", True),
        ("MAP(VARCHAR, UUID)", True),
        ("TIME WITH TIME ZONE", True),
        ("TIMESTAMP WITH TIME ZONE", False),
    ],
)
def test_types_whose_arrow_form_differs(type_name: str, lossy: bool) -> None:
    assert is_lossy([type_name]) is lossy


def node(name: str, rows: int, *children: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "children": list(children), "extra_info": {"Estimated Cardinality": str(rows)}}


SQL = "SELECT … FROM memory.main.a AS r0(column0) JOIN f(1) AS r2(\n    column0,\n    column1) JOIN b AS r5(column0)"


def explained(*roots: dict[str, Any]) -> str:
    return json.dumps(roots)


def test_scans_and_joins_are_estimated() -> None:
    join = node("HASH_JOIN", 40, node("TABLE_SCAN", 100), node("FILTER", 7, node("PARQUET_SCAN", 50)))
    plan = node("TOP_N", 3, node("HASH_GROUP_BY", 5, node("HASH_JOIN", 60, join, node("SEQ_SCAN", 9))))
    estimates = Estimates(SQL, lambda: explained(plan))
    assert estimates.rows(["r0"]) == 100
    assert estimates.rows(["r2"]) == 7
    assert estimates.rows(["r2", "r0"]) == 40
    assert estimates.rows(["r0", "r2", "r5"]) == 60
    assert estimates.rows(["r0", "r5"]) is None
    assert estimates.rows(["r1"]) is None


def test_an_aggregate_does_not_stand_for_its_input() -> None:
    aggregate = node("PROJECTION", 2, node("HASH_GROUP_BY", 2, node("TABLE_SCAN", 100)))
    plan = node("HASH_JOIN", 30, node("HASH_JOIN", 20, aggregate, node("TABLE_SCAN", 50)), node("TABLE_SCAN", 4))
    estimates = Estimates(SQL, lambda: explained(plan))
    assert estimates.rows(["r0"]) == 100
    assert estimates.rows(["r0", "r2"]) == 20


def test_leaves_that_read_nothing_are_not_counted() -> None:
    plan = node("HASH_JOIN", 8, node("HASH_JOIN", 9, node("TABLE_SCAN", 1), node("TABLE_SCAN", 2)), node("X_SCAN", 3))
    plan = node("UNION", 9, plan, node("DUMMY_SCAN", 1))
    assert Estimates(SQL, lambda: explained(plan)).rows(["r5"]) == 3


@pytest.mark.parametrize("text", [None, explained(node("TABLE_SCAN", 5))])
def test_nothing_is_estimated_where_the_plans_do_not_match(text: str | None) -> None:
    assert Estimates(SQL, lambda: text).rows(["r0"]) is None
