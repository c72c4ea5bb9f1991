"""Finds the key values behind the hashes of heavy hitters, while the rows that have them are still there."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

import sabot_native
from sabot_planner.sql.text import quote
from sabot_sql.agent.runner import edge_sql, stream_name
from sabot_sql.protocol.task_spec import EdgeInput, KeyQuestion
from sabot_sql.transport.interface import Transport

if TYPE_CHECKING:
    import duckdb

_SHOWN_CHARACTERS = 40
_SAMPLED_ROWS = 100_000
_CANDIDATES = 4
_BARE = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*|BOOLEAN)\Z")


class KeyFinder:
    """Answers :class:`KeyQuestion` on a DuckDB connection of its own, from committed outputs.

    The answer is for people: a question that is not answered in time, or fails, has none.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, manager: sabot_native.ShuffleManager, transport: Transport
    ) -> None:
        self._connection = connection
        self._manager = manager
        self._transport = transport

    def find(self, question: KeyQuestion, deadline_ms: int) -> str | None:
        """The key as people write it, ``(a, b) = (1, 'x')``; None where it was not found within ``deadline_ms``."""
        cursor = self._connection.cursor()
        # The stream of the rows stops at the deadline by itself; this stops whatever DuckDB does besides.
        timer = threading.Timer(deadline_ms / 1e3, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            ends = time.monotonic() + deadline_ms / 1e3
            values = self._by_sql(cursor, question, ends) if question.key_sql else self._native(cursor, question, ends)
        except Exception:  # noqa: BLE001  a name that cannot be told is not worth a query
            return None
        finally:
            timer.cancel()
            cursor.close()
        return None if values is None else shown_key(question.names, values)

    def _by_sql(
        self, cursor: duckdb.DuckDBPyConnection, question: KeyQuestion, ends: float
    ) -> list[tuple[str | None, str]] | None:
        keys = ", ".join(question.key_sql)
        found = f"WHERE system.main.hash({keys}) = {question.hash}::UBIGINT LIMIT 1"
        return _values(cursor, question.key_sql, f"{self._rows(cursor, question.edge, ends)} {found}")

    def _native(
        self, cursor: duckdb.DuckDBPyConnection, question: KeyQuestion, ends: float
    ) -> list[tuple[str | None, str]] | None:
        """Of the most frequent keys among the first rows, the one that the partitioner hashes so."""
        keys = tuple(map(quote, question.names))
        listed = ", ".join(keys)
        sample = f"SELECT {listed} {self._rows(cursor, question.edge, ends)} LIMIT {_SAMPLED_ROWS}"
        frequent = (
            f"SELECT {listed} FROM ({sample}) GROUP BY ALL ORDER BY system.main.count_star() DESC LIMIT {_CANDIDATES}"
        )
        table = pa.RecordBatchReader.from_stream(cursor.sql(frequent)).read_all()
        for row in range(table.num_rows):
            candidate = table.slice(row, 1)
            if self._native_hash(candidate, question) == question.hash:
                cursor.register("candidate", candidate)
                return _values(cursor, keys, "FROM candidate")
        return None

    def _rows(self, cursor: duckdb.DuckDBPyConnection, edge: EdgeInput, ends: float) -> str:
        manifests = [sabot_native.Manifest.from_bytes(data) for data in edge.manifests]
        left_ms = max(1, int((ends - time.monotonic()) * 1e3))
        stream = self._transport.open(manifests, edge.first, edge.last, deadline_ms=left_ms)
        cursor.register(stream_name(edge.edge_id), stream)
        return f"FROM ({edge_sql(edge)})"

    def _native_hash(self, row: pa.Table, question: KeyQuestion) -> int:
        query_id = f"key-{question.query_id}"[:64]
        scheme = sabot_native.Scheme.hash_columns(list(question.names), 1)
        output = sabot_native.Output(query_id=query_id, edge_id="key", task=0, attempt=0, scheme=scheme)
        self._manager.register_shuffle(query_id)
        try:
            (manifest,) = self._manager.write_partition(row, [output], deadline_ms=1000)
            return manifest.heavy[0][0]
        finally:
            self._manager.release(query_id, None)


def shown_key(names: Sequence[str], values: Sequence[tuple[str | None, str]]) -> str:
    """The key as people write it; ``values`` are texts with DuckDB types, and are clipped."""
    shown = [_shown_value(text, duckdb_type) for text, duckdb_type in values]
    if len(shown) == 1:
        return f"{names[0]} IS NULL" if values[0][0] is None else f"{names[0]} = {shown[0]}"
    return f"({', '.join(names)}) = ({', '.join(shown)})"


def _values(cursor: duckdb.DuckDBPyConnection, keys: Sequence[str], rows: str) -> list[tuple[str | None, str]] | None:
    row = cursor.execute(
        f"SELECT {', '.join(f'CAST({k} AS VARCHAR), system.main.typeof({k})' for k in keys)} {rows}"
    ).fetchone()
    return None if row is None else list(zip(row[::2], row[1::2], strict=True))


def _shown_value(text: str | None, duckdb_type: str) -> str:
    if text is None:
        return "NULL"
    text = re.sub(r"\s+", " ", text)
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 1] + "…"
    return text if _BARE.match(duckdb_type) else "'" + text.replace("'", "''") + "'"
