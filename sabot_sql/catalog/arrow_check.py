"""Arrow objects of the user's process are checked once before anything follows their offsets."""

from __future__ import annotations

import weakref
from typing import Any

import pyarrow as pa


class CheckedObjects:
    """Remembers which objects were found sound; Arrow's are never changed.

    The object itself is what is meant, so that its address is the key: equal ones may lie in other buffers.
    """

    def __init__(self) -> None:
        self._sound: dict[int, weakref.ref[object]] = {}

    def check(self, origin: object, table: Any) -> None:
        """Check ``table``, which is ``origin`` or was read from it.

        Raises:
            ValueError: an offset, view, index or length in it leads out of its buffers.
        """
        known = self._sound.get(id(origin))
        if known is not None and known() is origin:
            return
        check_arrow(table)
        key = id(origin)
        try:
            self._sound[key] = weakref.ref(origin, lambda _: self._sound.pop(key, None))
        except TypeError:
            return  # it is checked again the next time


def check_arrow(table: Any) -> None:
    """Check a table or an array in time that grows with its rows, not with the bytes of its values.

    Raises:
        ValueError: an offset, view, index or length in it leads out of its buffers.
    """
    import sabot_native  # native code, which a session that reads no Arrow does not need

    table.validate()  # sizes of buffers, and that first and last offsets are inside
    try:
        sabot_native.check_stream(pa.chunked_array([table]) if isinstance(table, pa.Array) else table)
    except sabot_native.UnsupportedType:
        table.validate(full=True)
    except sabot_native.NativeError as error:
        raise ValueError(str(error)) from None
