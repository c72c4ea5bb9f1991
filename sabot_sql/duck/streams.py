"""A statement that DuckDB has started, and its rows as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb


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
