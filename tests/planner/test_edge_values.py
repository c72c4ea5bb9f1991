"""Values of types that Arrow has not go over an edge and come back as they were, tags of NULL and names included."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from sabot_planner.sql.duck_type import duck_type, is_restored, is_written, lost_on_edges
from sabot_planner.sql.edge_values import restored, written

pytestmark = pytest.mark.fast

KIND = "ENUM('a', 'b')"
UNION = f'UNION(num INTEGER, "s tr" VARCHAR, kind {KIND}, pair TUPLE(INTEGER, {KIND}))'
SETUP = f"""
CREATE TABLE base AS SELECT unnest([
    union_value(num := 5)::{UNION}, NULL, union_value(num := NULL)::{UNION}, union_value("s tr" := 'q,(''"')::{UNION},
    union_value("s tr" := NULL)::{UNION}, union_value(kind := 'b'::{KIND})::{UNION},
    union_value(pair := row(1, 'b'::{KIND}))::{UNION}, union_value(pair := NULL)::{UNION}
]) AS u
"""
UNIONS = [
    "u",
    "[u, NULL, u]",
    f"[]::{UNION}[]",
    "CASE WHEN union_tag(u) = 'num' THEN [u] END",
    "array_value(u, NULL)",
    "{'a': u, 'b c': 1}",
    "CASE WHEN union_tag(u) = 'num' THEN {'a': [u], 'b': {'c': u}} END",
    "MAP {1: u, 2: NULL}",
    "MAP {coalesce(u, union_value(num := 1)): 'x'}",
    "row(u, 1, [row(u)])",
    "union_value(k := u)",
    "union_value(k := [u])",
    "union_value(\"a''b (\" := {'x y': row(1, 'z')})",
    "{'t': TIMESTAMPTZ '2020-01-01', 'u': u, 'tz': TIMETZ '01:00:00+02', 'd': 1.5::DECIMAL(18, 3)}",
]
INTERVALS = [
    "to_hours(3000000)",
    "to_microseconds(9223372036854775807)",
    "to_microseconds(-9223372036854775807) - to_microseconds(1)",
    "to_months(-2147483648) + to_days(2147483647)",
    "to_months(13) - to_days(45) - to_microseconds(59999999)",
    "CASE WHEN union_tag(u) = 'num' THEN to_days(1) END",
    "[to_hours(3000000), NULL]",
    "array_value(to_hours(-3000000), to_days(2))",
    "{'a': {'b': [to_hours(3000000)], 'kind': 'b'::ENUM('a', 'b')}, 'u': u}",
    "MAP {to_hours(3000000): to_months(5)}",
    "union_value(i := to_hours(3000000))",
    "row(to_hours(3000000), 'a')",
]
TUPLES = [
    "row(1, 'a')",
    "CASE WHEN union_tag(u) = 'num' THEN row(1, NULL) END",
    "[row(1, [row(2)])]",
    "MAP {'a': row(1, 2)}",
    "{'a': row(1, {'b': row('c')})}",
    "row()",
    "[row(), NULL]",
    "MAP {'a': row()}",
    "{'a': row(), 'b': row(row(), 2)}",
    "array_value(row(), NULL)",
]
OTHERS = [
    "1",
    "'x'::ENUM('x', 'TUPLE')",
    "['x'::ENUM('x', 'UNION(')]",
    "struct_pack()",
    "{'UNION(': 1, 'TUPLE': 'VARIANT'}",
    "MAP {'a': 1}",
]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(SETUP)
        connection.execute("SET arrow_lossless_conversion = true")
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, relation: str, value: str) -> list[object]:
    """What tells values apart: their hashes, types and texts. Python cannot say all of them."""
    selected = f"SELECT hash(v), typeof(v), v::VARCHAR FROM (SELECT {value} AS v FROM {relation})"
    return connection.execute(selected).fetchall()


@pytest.mark.parametrize("value", UNIONS + INTERVALS + TUPLES + OTHERS)
def test_a_value_comes_back_as_it_was(connection: duckdb.DuckDBPyConnection, value: str) -> None:
    expected = rows(connection, "base", value)
    ((type_text,), *_) = connection.execute(f"SELECT typeof({value}) FROM base").fetchall()
    kind = duck_type(type_text)
    assert kind.text == type_text
    sent = connection.sql(f"SELECT {written('x', kind)} AS x FROM (SELECT {value} AS x FROM base)")
    connection.register("edge", pa.RecordBatchReader.from_stream(sent).read_all())
    assert rows(connection, "edge", restored("x", kind)) == expected
    assert is_written(kind) is (value in UNIONS + INTERVALS)
    assert is_restored(kind) is (value in UNIONS + INTERVALS + TUPLES)


def test_the_tag_of_a_null_comes_back(connection: duckdb.DuckDBPyConnection) -> None:
    sent = connection.sql(f"SELECT {written('u', duck_type(UNION))} AS u FROM base")
    connection.register("edge", pa.RecordBatchReader.from_stream(sent).read_all())
    back = connection.execute(
        f"SELECT union_tag(u) FROM (SELECT {restored('u', duck_type(UNION))} AS u FROM edge)"
    ).fetchall()
    assert back == connection.execute("SELECT union_tag(u) FROM base").fetchall()
    assert [tag for (tag,) in back].count("num") == 2


@pytest.mark.parametrize(
    ("type_text", "lost"),
    [
        ("INTEGER", None),
        ("VARIANT", "VARIANT"),
        ("STRUCT(a VARIANT[])", "VARIANT"),
        ('STRUCT("VARIANT" INTEGER)', None),
        ("TUPLE", "TUPLE of nothing"),
        ("MAP(VARCHAR, TUPLE)", "TUPLE of nothing"),
        ("TUPLE(INTEGER)", None),
        ("UNION(a INTEGER)[]", None),
        ("INTERVAL", None),
    ],
)
def test_what_is_lost(type_text: str, lost: str | None) -> None:
    assert lost_on_edges(duck_type(type_text)) == lost
