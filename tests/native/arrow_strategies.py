"""Random Arrow tables: every type the shuffle carries, nested, with NULLs, sliced and chunked."""

from __future__ import annotations

import datetime as dt
import decimal
import random
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

PLAIN_TYPES: tuple[pa.DataType, ...] = (
    pa.null(),
    pa.bool_(),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal32(9, 2), pa.decimal64(18, 3), pa.decimal128(38, 4), pa.decimal256(60, 5)),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")),
    *(pa.duration("ms"), pa.month_day_nano_interval()),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
    *(pa.binary(3), pa.binary(16), pa.binary(20)),
    *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.uint32(), pa.int64())),
)


def types() -> st.SearchStrategy[pa.DataType]:
    """A type, nested up to a few levels."""
    plain = st.sampled_from(PLAIN_TYPES)
    hashable = st.sampled_from([pa.int32(), pa.string()])

    def nest(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
        fields = st.lists(inner, min_size=1, max_size=3).map(
            lambda members: [pa.field(f"f{i}", member) for i, member in enumerate(members)]
        )
        return st.one_of(
            inner.map(pa.list_),
            inner.map(pa.large_list),
            inner.map(pa.list_view),
            st.tuples(inner, st.integers(1, 3)).map(lambda pair: pa.list_(*pair)),
            fields.map(pa.struct),
            st.tuples(hashable, inner).map(lambda pair: pa.map_(*pair)),
            fields.map(pa.sparse_union),
            fields.map(pa.dense_union),
        )

    return st.recursive(plain, nest, max_leaves=4)


def stored_type(type_: pa.DataType) -> pa.DataType:
    """What the shuffle makes of a type: dictionaries decoded, views contiguous."""
    if pa.types.is_dictionary(type_):
        return type_.value_type
    if type_ in (pa.string_view(), pa.binary_view()):
        return pa.string() if type_ == pa.string_view() else pa.binary()
    if pa.types.is_map(type_):
        return pa.map_(stored_type(type_.key_type), stored_type(type_.item_type))
    if pa.types.is_list_view(type_) or pa.types.is_list(type_):
        return pa.list_(stored_type(type_.value_type))
    if pa.types.is_large_list(type_):
        return pa.large_list(stored_type(type_.value_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(stored_type(type_.value_type), type_.list_size)
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(stored_type(field.type)) for field in type_])
    if pa.types.is_union(type_):
        fields = [type_.field(i).with_type(stored_type(type_.field(i).type)) for i in range(type_.num_fields)]
        return pa.sparse_union(fields) if type_.mode == "sparse" else pa.dense_union(fields)
    return type_


_DAY = 86_400


def _plain_value(type_: pa.DataType, source: random.Random) -> Any:
    """A value of a plain type."""
    t = pa.types
    if t.is_boolean(type_):
        return source.random() < 0.5
    if t.is_integer(type_):
        low = 0 if t.is_unsigned_integer(type_) else -(1 << (type_.bit_width - 1))
        return source.choice([low, 0, 1, 7, low + (1 << type_.bit_width) - 1])
    if t.is_floating(type_):
        value = source.choice([0.0, -0.0, 1.5, float("nan"), float("inf"), -2.25])
        return np.float16(value) if t.is_float16(type_) else value
    if t.is_decimal(type_):
        return decimal.Decimal(source.randint(-(10**8), 10**8)).scaleb(-type_.scale)
    if t.is_date(type_):
        return dt.date(1970, 1, 1) + dt.timedelta(days=source.randint(-40000, 40000))
    if t.is_time(type_):
        return (dt.datetime(2000, 1, 1) + dt.timedelta(seconds=source.randrange(_DAY))).time()
    if t.is_timestamp(type_):
        return dt.datetime(2000, 1, 1, tzinfo=dt.UTC if type_.tz else None) + dt.timedelta(
            seconds=source.randrange(10**8)
        )
    if t.is_duration(type_):
        return dt.timedelta(milliseconds=source.randrange(10**9))
    if type_ == pa.month_day_nano_interval():
        return pa.MonthDayNano([source.randrange(20), source.randrange(40), source.randrange(10**9)])
    if t.is_fixed_size_binary(type_):
        return source.randbytes(type_.byte_width)
    size = source.choice([0, 1, 5, 12, 13, 16, 17, 40, 300])
    if "binary" in str(type_):
        return source.randbytes(size)
    return "".join(source.choices("aé漢z", k=size))


def array(type_: pa.DataType, rows: int, source: random.Random) -> pa.Array:
    """An array of a type with some NULLs, sliced from a longer one."""
    before, after = source.randrange(10), source.randrange(3)
    return _whole(type_, before + rows + after, source).slice(before, rows)


def _whole(type_: pa.DataType, rows: int, source: random.Random) -> pa.Array:
    t = pa.types
    if t.is_null(type_):
        return pa.nulls(rows)
    if t.is_dictionary(type_):
        values = _whole(type_.value_type, 5, source)
        indices = pa.array(
            [None if source.random() < 0.2 else source.randrange(5) for _ in range(rows)], type_.index_type
        )
        return pa.DictionaryArray.from_arrays(indices, values)
    if t.is_union(type_):
        return _union(type_, rows, source)
    mask = np.array([source.random() < 0.2 for _ in range(rows)], bool)
    if t.is_struct(type_):
        children = [array(field.type, rows, source) for field in type_]
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=pa.array(mask))
    if t.is_fixed_size_list(type_):
        values = array(type_.value_type, rows * type_.list_size, source)
        return pa.FixedSizeListArray.from_arrays(values, type=type_, mask=pa.array(mask))
    if t.is_map(type_) or t.is_list(type_) or t.is_large_list(type_) or t.is_list_view(type_):
        return _list(type_, rows, mask, source)
    return pa.array([None if null else _plain_value(type_, source) for null in mask], type_)


def _list(type_: pa.DataType, rows: int, mask: np.ndarray, source: random.Random) -> pa.Array:
    sizes = [source.choice([0, 0, 1, 2, 5]) for _ in range(rows)]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if pa.types.is_map(type_):
        keys = pa.array([_plain_value(type_.key_type, source) for _ in range(offsets[-1])], type_.key_type)
        items = array(type_.item_type, len(keys), source)
        return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, items, type=type_, mask=pa.array(mask))
    values = array(type_.value_type, int(offsets[-1]), source)
    if pa.types.is_list_view(type_):
        starts = pa.array(offsets[:-1][::-1], pa.int32())
        return pa.ListViewArray.from_arrays(
            starts, pa.array(sizes[::-1], pa.int32()), values, type=type_, mask=pa.array(mask)
        )
    kind = pa.LargeListArray if pa.types.is_large_list(type_) else pa.ListArray
    width = pa.int64() if pa.types.is_large_list(type_) else pa.int32()
    return kind.from_arrays(pa.array(offsets, width), values, type=type_, mask=pa.array(mask))


def _union(type_: pa.DataType, rows: int, source: random.Random) -> pa.Array:
    tags = [source.randrange(type_.num_fields) for _ in range(rows)]
    names = [type_.field(i).name for i in range(type_.num_fields)]
    ids = pa.array(tags, pa.int8())
    if type_.mode == "sparse":
        children = [array(type_.field(i).type, rows, source) for i in range(type_.num_fields)]
        return pa.UnionArray.from_sparse(ids, children, names)
    offsets = [tags[:row].count(tag) for row, tag in enumerate(tags)]
    children = [array(type_.field(i).type, tags.count(i), source) for i in range(type_.num_fields)]
    return pa.UnionArray.from_dense(ids, pa.array(offsets, pa.int32()), children, names)


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 300) -> pa.Table:
    """A table with a hash column ``h``, a row number ``n`` and columns of random types, in batches of random sizes."""
    columns = draw(st.lists(types(), min_size=0, max_size=4))
    source = random.Random(draw(st.integers(0, 1 << 32)))
    sizes = draw(st.lists(st.integers(0, max_rows), min_size=1, max_size=3))
    schema = pa.schema([("h", pa.uint64()), ("n", pa.int64()), *((f"c{i}", type_) for i, type_ in enumerate(columns))])
    batches = []
    for size in sizes:
        arrays = [pa.array([source.getrandbits(64) for _ in range(size)], pa.uint64()), array(pa.int64(), size, source)]
        arrays += [array(type_, size, source) for type_ in columns]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)
