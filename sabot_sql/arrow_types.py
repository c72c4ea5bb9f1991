"""Arrow types rebuilt with other types inside."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa


def with_leaves(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """``kind`` with ``change`` applied to each type in it that is not nested; members of a union stay as they are."""

    def changed(field: pa.Field) -> pa.Field:
        return field.with_type(with_leaves(field.type, change))

    if kind.num_fields == 0:
        return change(kind)
    if pa.types.is_map(kind):
        return pa.map_(changed(kind.key_field), changed(kind.item_field))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(changed(kind.value_field), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(changed(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([changed(field) for field in kind])
    return kind if pa.types.is_union(kind) else change(kind)


def plain_boolean(kind: pa.DataType) -> pa.DataType:
    """Arrow's own ``bool`` for the byte-wide extension type that DuckDB's lossless conversion makes of BOOLEAN."""
    return pa.bool_() if isinstance(kind, pa.Bool8Type) else kind
