"""A statement that DuckDB has started, and its rows as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_BATCH_BYTES = 4 << 20
"""What a batch of rows of known width is meant to have: its rows may be a few times as wide as those before."""
_NARROW_ROWS = 16_384
"""More rows do not make a batch cheaper, but touch pages that are not in the cache any more."""
_VECTOR_ROWS = 2_048
"""DuckDB has so many rows in hand at a time, however wide they are: such a batch is at most as large as that."""
_TOO_WIDE = "maximum total string size for regular string buffers"


def batch_rows(row_bytes: float | None = None) -> int:
    """How many rows to export at a time, where rows had ``row_bytes`` on average before; None if that is not known.

    DuckDB counts rows only. Rows of 50 kB in batches of the usual size would be a gigabyte each.
    """
    if row_bytes is None:
        return _VECTOR_ROWS
    return max(1, min(_NARROW_ROWS, int(_BATCH_BYTES / max(row_bytes, 1.0))))


def is_too_wide(message: str) -> bool:
    """Whether a stream failed since the texts of a batch have more than 2 GiB: with one row at a time it does not."""
    return _TOO_WIDE in message


class StartedStatement:
    """A running statement; its rows can be read once, by ``__arrow_c_stream__``.

    DuckDB's own relations bind a statement twice, once for their schema and once to run it, which is a tenth of a short
    query. What they run in the end is called here.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str, values: Any, batch_rows: int) -> None:
        """Start ``sql`` on ``connection``, which runs nothing else until the stream of the rows is
        released, or this object where nobody took the stream.

        Raises:
            duckdb.Error: it cannot be bound, or failed before its first row.
        """
        self._result = connection._submit(sql, values, "stream", batch_rows)
        self.columns = tuple((column[0], str(column[1])) for column in self._result.description)
        """Names with DuckDB's types."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._result.arrow_capsule()
