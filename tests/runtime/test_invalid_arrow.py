"""Arrow objects whose offsets, views or lengths lead out of their buffers are refused, not followed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings

import sabot_sql
from sabot_native import StreamError, UnsupportedType, check_stream
from sabot_sql import Session, SourceError
from tests.native.arrow_strategies import tables


def buffer(form: str, *values: int) -> pa.Buffer:
    return pa.py_buffer(struct.pack(f"<{len(values)}{form}", *values))


def strings(*offsets: int, form: str = "i", type_: pa.DataType | None = None) -> pa.Array:
    buffers = [None, buffer(form, *offsets), pa.py_buffer(b"abcdefgh")]
    return pa.Array.from_buffers(type_ or pa.string(), len(offsets) - 1, buffers)


def view(size: int, index: int, offset: int, validity: pa.Buffer | None = None) -> pa.Array:
    views = pa.py_buffer(struct.pack("<i4sii", size, b"abcd", index, offset) * 4)
    return pa.Array.from_buffers(pa.string_view(), 4, [validity, views, pa.py_buffer(b"abcdefghijklmnop")])


def lists(*offsets: int) -> pa.Array:
    buffers = [None, buffer("i", *offsets)]
    return pa.Array.from_buffers(pa.list_(pa.int64()), len(offsets) - 1, buffers, children=[pa.array([1, 2, 3])])


def list_views(offset: int, size: int) -> pa.Array:
    buffers = [None, buffer("i", offset, offset), buffer("i", size, size)]
    return pa.Array.from_buffers(pa.list_view(pa.int64()), 2, buffers, children=[pa.array([1, 2, 3])])


def dictionary(*indexes: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indexes, pa.int32()), pa.array(["a", "b"]), safe=False)


def union(types: list[int], offsets: list[int]) -> pa.Array:
    buffers = [None, buffer("b", *types), buffer("i", *offsets)]
    type_ = pa.dense_union([pa.field("x", pa.int64()), pa.field("y", pa.string())])
    children = [pa.array([1, 2]), pa.array(["a", "b"])]
    return pa.Array.from_buffers(type_, len(types), buffers, children=children)


def nested(array: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([array], ["inner"])


INVALID: dict[str, Callable[[], pa.Array]] = {
    "offsets that decrease": lambda: strings(0, 5, 2, 8),
    "offsets below zero": lambda: strings(0, -5, 2, 8),
    "one of the offsets past the values": lambda: strings(0, 1 << 30, 8, 8),
    "large offsets that decrease": lambda: strings(0, 1 << 40, 2, 8, form="q", type_=pa.large_string()),
    "binary offsets that decrease": lambda: strings(0, 8, 0, 8, type_=pa.binary()),
    "a view of no buffer": lambda: view(16, 5, 0),
    "a view of a buffer below zero": lambda: view(16, -1, 0),
    "a view past its buffer": lambda: view(16, 0, 8),
    "a view far past its buffer": lambda: view(2**31 - 1, 0, 2**31 - 1),
    "a view that begins below zero": lambda: view(16, 0, -8),
    "a view of a size below zero": lambda: view(-1, 0, 0),
    "lists that decrease": lambda: lists(0, 3, 1, 3),
    "a list past its values": lambda: lists(0, 300, 3),
    "a list view past its values": lambda: list_views(2, 2),
    "a list view below zero": lambda: list_views(-1, 2),
    "a list view of a size below zero": lambda: list_views(1, -1),
    "an index past its dictionary": lambda: dictionary(0, 1, 2),
    "an index below zero": lambda: dictionary(0, -1),
    "a union of an unknown type": lambda: union([0, 5], [0, 0]),
    "a union past its child": lambda: union([0, 1], [0, 2]),
    "a union below its child": lambda: union([0, 1], [0, -1]),
    "inside a struct": lambda: nested(strings(0, 5, 2, 8)),
    "inside a list": lambda: pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), strings(0, 5, 2, 8)),
}


def exported(table: pa.Table) -> Any:
    class Exported:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return table.__arrow_c_stream__(requested_schema)

    return Exported()


FORMS: dict[str, Callable[[pa.Array], object]] = {
    "table": lambda array: pa.table({"a": array}),
    "later batch": lambda array: pa.table({"a": pa.chunked_array([array.slice(0, 0), array])}),
    "slice": lambda array: pa.concat_tables([pa.table({"a": array})] * 2).slice(len(array)),
    "batch": lambda array: pa.record_batch({"a": array}),
    "reader": lambda array: pa.table({"a": array}).to_reader(),
    "array": lambda array: array,
    "chunked array": lambda array: pa.chunked_array([array]),
    "stream": lambda array: exported(pa.table({"a": array})),
}


@pytest.fixture(scope="module", params=["auto", 2], ids=lambda agents: f"agents {agents}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with sabot_sql.connect(agents=request.param, memory_limit="1GiB") as opened:
        yield opened


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", INVALID)
def test_invalid_arrow_is_refused(session: Session, kind: str, form: str) -> None:
    value = FORMS[form](INVALID[kind]())
    with pytest.raises(SourceError, match="cannot be read"):
        session.register("t", value)
    value = FORMS[form](INVALID[kind]())
    with pytest.raises(SourceError, match="cannot be read"):
        session.query("SELECT * FROM t", scope={"t": value})
    assert session.query("SELECT 42").fetchall() == [(42,)]


def test_what_a_null_hides_is_not_looked_at() -> None:
    nothing = pa.py_buffer(b"\x00")
    check_stream(pa.chunked_array([view(16, 5, 0, validity=nothing)]))
    hidden = pa.DictionaryArray.from_buffers(
        pa.dictionary(pa.int32(), pa.string()), 2, [nothing, buffer("i", 7, -7)], dictionary=pa.array(["a"])
    )
    check_stream(pa.chunked_array([hidden]))


@settings(max_examples=100, deadline=None)
@given(table=tables())
def test_valid_tables_of_every_type_are_sound(table: pa.Table) -> None:
    check_stream(table)
    check_stream(table.slice(len(table) // 3, len(table) // 2))


def test_a_table_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import sabot_native

    checks: list[object] = []
    monkeypatch.setattr(sabot_native, "check_stream", checks.append)
    table, other = pa.table({"a": ["x", "y"]}), pa.table({"a": ["z"]})
    with sabot_sql.connect() as session:
        for _ in range(3):
            assert session.query("SELECT count(*) FROM other", scope={"other": other}).fetchall() == [(1,)]
            session.register("t", table)
            assert session.query("SELECT count(*) FROM t, other", scope={"other": other}).fetchall() == [(2,)]
    assert len(checks) == 2


def test_types_that_the_shuffle_has_not_are_left_to_arrow() -> None:
    from sabot_sql.catalog.arrow_check import check_arrow

    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int32()), pa.array(["a", "b"]))
    with pytest.raises(UnsupportedType):
        check_stream(pa.chunked_array([runs]))
    check_arrow(runs)


def test_the_error_names_the_column() -> None:
    with pytest.raises(StreamError, match="column 'wrong': offsets decrease"):
        check_stream(pa.table({"right": strings(0, 1, 2, 3), "wrong": strings(0, 5, 2, 8)}))
