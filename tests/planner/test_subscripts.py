"""Subscripts are written as calls of the functions behind them, which can be qualified."""

from __future__ import annotations

import duckdb
import pytest

from sabot_planner.errors import Undistributable
from sabot_planner.sql.dialect import parse_exported, to_sql
from sabot_planner.sql.duck_type import duck_type
from sabot_planner.sql.subscripts import fields_as_calls, slices_as_calls

pytestmark = pytest.mark.fast

VALUES = """SELECT x FROM (VALUES ("system".main.list_value(1, 2, 3, 4)), (NULL)) AS t(x)"""


@pytest.mark.parametrize(
    "subscript", ["x[2: 3]", "x[: 3]", "x[2: ]", "x[: ]", "x[1: -: 2]", "x[1: 4: 2]", "x[-2: ]", "x[2: 4][: 2]"]
)
def test_a_slice_is_a_call_of_the_same_value(subscript: str) -> None:
    tree = parse_exported(f"SELECT {subscript} AS y FROM ({VALUES}) AS t(x)")
    slices_as_calls(tree)
    written = to_sql(tree)
    assert "array_slice" in written
    assert "[" not in written
    with duckdb.connect() as connection:
        expected = connection.execute(f"SELECT {subscript} AS y FROM ({VALUES}) AS t(x)").fetchall()
        assert connection.execute(written).fetchall() == expected
        connection.execute("CREATE MACRO array_slice(a, b, c) AS 'hidden', (a, b, c, d) AS 'hidden'")
        connection.execute("CREATE MACRO list_value() AS 'hidden'")
        assert connection.execute(written).fetchall() == expected


@pytest.mark.parametrize(
    ("subscript", "written"),
    [
        ("x['a']", """"system".main.struct_extract(x, 'a')"""),
        ("x['A']", """"system".main.struct_extract(x, 'A')"""),
        ("x['b']['c d']", """"system".main.struct_extract("system".main.struct_extract(x, 'b'), 'c d')"""),
        ("x['v']['z']", """"system".main.variant_extract("system".main.struct_extract(x, 'v'), 'z')"""),
    ],
)
def test_a_field_is_a_call_by_the_type_of_its_column(subscript: str, written: str) -> None:
    (item,) = parse_exported(f"SELECT {subscript}").args["expressions"]
    types = {"x": duck_type('STRUCT(a INTEGER, b STRUCT("c d" INTEGER), v VARIANT)')}
    assert to_sql(fields_as_calls(item, types)) == written


def test_a_field_of_what_has_none_is_refused() -> None:
    (item,) = parse_exported("SELECT x['a']").args["expressions"]
    with pytest.raises(Undistributable, match="a subscript of a value of type INTEGER"):
        fields_as_calls(item, {"x": duck_type("INTEGER")})
