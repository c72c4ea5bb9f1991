"""The result of a query: rows that can be read any number of times, in any form, and how they came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from sabot_sql import arguments
from sabot_sql.arguments import needed, whole
from sabot_sql.call.running import RunningQuery
from sabot_sql.catalog.conversion import Converter, is_lossy
from sabot_sql.catalog.kept_rows import keep_rows
from sabot_sql.duck.streams import batch_rows
from sabot_sql.errors import SessionClosed, UsageError
from sabot_sql.explain_view import explained_html, explained_text, is_explained
from sabot_sql.plan_view import Plan
from sabot_sql.plan_view.units import plural
from sabot_sql.result_store import ResultStore, Rows, rebatched
from sabot_sql.result_values import are_plain, python_rows, row_type
from sabot_sql.table_view import MAX_HTML_BYTES, TableSummary, html_table, text_table

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_T = TypeVar("_T")

_ITERATION_ROWS = 10_000
"""So many rows are converted without a look at Ctrl-C."""
_SHOWN_ROWS = 20
_SMALL_ROWS = 5_000
"""So many rows are made Python values here; more are faster by way of DuckDB."""


class Result:
    """Rows, names and types exactly as DuckDB gives them for the same statement.

    It is complete when it is made: nothing runs any more, reading it again reads the same rows. A large result lives
    in a file of its session and goes with that. ``fetchone`` and ``fetchmany`` share one position, as in PEP 249.
    It is an Arrow stream for whoever reads those: ``pa.table(result)``, ``pl.DataFrame(result)``. As a context manager
    it lets its rows go at the end. Not for use by several threads at once.
    """

    def __init__(
        self,
        store: Rows,
        columns: Sequence[tuple[str, str]],
        converter: Converter,
        *,
        sql: str,
        query_id: str,
        plan: Mapping[str, Any],
        stats: Mapping[str, Any],
    ) -> None:
        self._kept: Rows | None = store
        self._length = store.rows
        self._converter = converter
        self.columns = [name for name, _ in columns]
        self.types = [type_name for _, type_name in columns]
        self.sql = sql
        self.query_id = query_id
        self.plan = Plan(plan)
        self.stats = dict(stats)
        self._position = 0
        self._shown: tuple[int, list[tuple[Any, ...]], list[tuple[Any, ...]]] | None = None

    # -------------------------------------------------------------------------------------------------------- life

    @property
    def closed(self) -> bool:
        """Whether the rows were let go."""
        return self._kept is None

    def close(self) -> None:
        """Let the rows go, in memory or on disk; names, types, plan and statistics stay. May be called again."""
        self._kept = None
        self._shown = None

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _store(self) -> Rows:
        if self._kept is None:
            raise SessionClosed("the result was closed", hint="read its rows before close(), or run the query again")
        return self._kept

    def keep(self, file: str | PathLike[str]) -> None:
        """Write the rows to ``file``, with DuckDB's own types, for :class:`~sabot_sql.catalog.kept_rows.KeptRows`.

        Raises:
            SabotSQLError: they cannot be written.
        """
        keep_rows(self._store, self._converter, self.types, Path(file))

    # ----------------------------------------------------------------------------------------------------- columns

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns, as all Arrow forms of the result have them."""
        kept = self._arrow_store
        if kept is not None:
            return self._named_schema(kept)
        return self._converted(lambda relation: relation.to_arrow_table(), 0, 0).schema

    @property
    def description(self) -> list[tuple[str, str, None, None, None, None, None]]:
        """Name and DuckDB type of each column, in the form of PEP 249."""
        columns = zip(self.columns, self.types, strict=True)
        return [(name, type_name, None, None, None, None, None) for name, type_name in columns]

    # ------------------------------------------------------------------------------------------------------- Arrow

    def to_arrow_table(self) -> pa.Table:
        """All rows as a table with the schema that DuckDB's own ``to_arrow_table`` has."""
        kept = self._arrow_store
        if kept is None:
            return self._converted(lambda relation: relation.to_arrow_table())
        schema = self._named_schema(kept)
        return pa.Table.from_batches(kept.reader(schema), schema)

    arrow = to_arrow_table

    def to_arrow_reader(self, batch_size: int = 1_000_000) -> pa.RecordBatchReader:
        """All rows in batches of at most ``batch_size``, and of 16 MiB unless one row has more."""
        whole("batch_size", batch_size, least=1)
        kept = self._arrow_store
        if kept is None:
            return pa.RecordBatchReader.from_batches(self.schema, self._converted_batches(batch_size))
        schema = self._named_schema(kept)
        return pa.RecordBatchReader.from_batches(schema, rebatched(kept.reader(schema), batch_size))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow_reader().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    @property
    def _arrow_store(self) -> ResultStore | None:
        """The rows, if they are kept in the form that DuckDB's own Arrow of them has."""
        store = self._store
        return store if isinstance(store, ResultStore) and not is_lossy(self.types) else None

    def _named_schema(self, kept: ResultStore) -> pa.Schema:
        fields = zip(self.columns, kept.schema, strict=True)
        return pa.schema([field.with_name(name) for name, field in fields])

    def _converted_batches(self, batch_size: int) -> Iterator[pa.RecordBatch]:
        part = (0, len(self))
        with self._store.opened(self._converter, self.columns, self.types, part, lambda _: nullcontext()) as relation:
            yield from rebatched(relation.to_arrow_reader(min(batch_size, batch_rows())), batch_size)

    def _converted(self, convert: Callable[[Any], _T], offset: int = 0, count: int | None = None) -> _T:
        """What ``convert`` makes of the rows, or of ``count`` of them from ``offset`` on, as a relation.

        Many rows are converted in a thread, so that Ctrl-C is answered.
        """
        running = RunningQuery("conversion", None)
        part = (offset, len(self) - offset if count is None else count)

        def work() -> _T:
            with self._store.opened(self._converter, self.columns, self.types, part, running.interrupts) as relation:
                return convert(relation)

        return work() if part[1] <= _ITERATION_ROWS else running.run(work)

    # ------------------------------------------------------------------------------------------------------ frames

    def df(self) -> pd.DataFrame:
        """All rows as a pandas frame."""
        pandas = needed("pandas")
        if not self.columns:
            empty: pd.DataFrame = pandas.DataFrame()
            return empty
        frame: pd.DataFrame = self._converted(lambda relation: relation.df())
        return frame

    to_pandas = df

    def pl(self) -> pl.DataFrame:
        """All rows as a polars frame."""
        polars = needed("polars")
        if not self.columns:
            empty: pl.DataFrame = polars.DataFrame()
            return empty
        frame: pl.DataFrame = self._converted(lambda relation: relation.pl())
        return frame

    to_polars = pl

    # ------------------------------------------------------------------------------------------------ Python values

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None after the last."""
        rows = self.fetchmany(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """The next ``size`` rows, fewer at the end."""
        rows = self._rows(self._position, whole("size", size))
        self._position += len(rows)
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows after the last one fetched."""
        rows = self._rows(self._position, len(self) - self._position)
        self._position = len(self)
        return rows

    def _rows(self, offset: int, count: int) -> list[tuple[Any, ...]]:
        if not self.columns or count <= 0 or offset >= len(self):
            return []
        store = self._store
        if count <= _SMALL_ROWS and isinstance(store, ResultStore) and are_plain(self.types):
            values = python_rows(store.part(offset, count), self.types)
            if values is not None:
                return values
        rows: list[tuple[Any, ...]] = self._converted(lambda relation: relation.fetchall(), offset, count)
        return rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """All rows; each knows the names of the columns, which ``pd.DataFrame(result)`` asks the first one for."""
        if not self.columns:
            return
        row = row_type(self.columns)
        for offset in range(0, len(self), _ITERATION_ROWS):
            yield from map(row, self._converted(lambda relation: relation.fetchall(), offset, _ITERATION_ROWS))

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return True  # there is a result, also when it has no rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._length, len(self.columns)

    # ------------------------------------------------------------------------------------------------------- files

    def to_parquet(self, path: str | PathLike[str]) -> None:
        """Write all rows to a Parquet file.

        Raises:
            SourceError: it cannot be written.
            UsageError: the statement gave no columns to write.
        """
        file = self._writable_as(path)
        self._converted(lambda relation: relation.to_parquet(file))

    def write_part(self, path: str | PathLike[str], offset: int, count: int) -> None:
        """Write ``count`` rows from ``offset`` on to a Parquet file, as :meth:`to_parquet` does all of them."""
        file = self._writable_as(path)
        self._converted(lambda relation: relation.to_parquet(file), offset, count)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write all rows to a CSV file with a header.

        Raises:
            SourceError: it cannot be written.
            UsageError: the statement gave no columns to write.
        """
        file = self._writable_as(path)
        self._converted(lambda relation: relation.to_csv(file))

    def _writable_as(self, path: object) -> str:
        file = arguments.path("path", path)
        if not self.columns:
            raise UsageError("the statement gave no rows that could be written", code="NO_COLUMNS")
        return file

    # ----------------------------------------------------------------------------------------------------- display

    def show(self, max_rows: int = _SHOWN_ROWS, *, max_width: int = 160) -> None:
        """Print the first and last rows as a box table."""
        print(self.to_text(max_rows, max_width=max_width))

    def __repr__(self) -> str:
        try:
            return self.to_text()
        except SessionClosed:
            return self._without_rows()

    def _repr_html_(self) -> str:
        try:
            return self.to_html()
        except SessionClosed:
            return f"<div>{escape(self._without_rows())}</div>"

    def _without_rows(self) -> str:
        """What is shown once the rows have gone, by :meth:`close` or with their session."""
        return f"<closed Result: {plural(self._length, 'row')} × {plural(len(self.columns), 'column')}>"

    def to_text(self, max_rows: int = _SHOWN_ROWS, *, max_width: int = 160) -> str:
        """The first and last rows as a box table of text, at most 100 kB; the tree of an EXPLAIN as a tree."""
        whole("max_rows", max_rows)
        whole("max_width", max_width, least=1)
        if not self.columns:
            return "OK"
        head, tail = self._ends(max_rows)
        if is_explained(self.columns, self.types):
            return explained_text([*head, *tail])
        return text_table(self.columns, self.types, head, tail, summary=self._summary(), max_width=max_width)

    def to_html(self, max_rows: int = _SHOWN_ROWS, *, max_bytes: int = MAX_HTML_BYTES) -> str:
        """The first and last rows as HTML of at most ``max_bytes``, every value escaped and cut where it is long."""
        whole("max_rows", max_rows)
        if not self.columns:
            return "<div>OK</div>"
        head, tail = self._ends(max_rows)
        if is_explained(self.columns, self.types):
            return explained_html([*head, *tail])
        return html_table(self.columns, self.types, head, tail, summary=self._summary(), max_bytes=max_bytes)

    def _ends(self, max_rows: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        # A notebook asks for text and for HTML, and again for each display: the rows are read once.
        if self._shown is None or self._shown[0] != max_rows:
            tail = max_rows // 2 if len(self) > max_rows else 0
            head = min(max_rows, len(self)) - tail
            self._shown = max_rows, self._rows(0, head), self._rows(len(self) - tail, tail)
        return self._shown[1], self._shown[2]

    def _summary(self) -> TableSummary:
        distributed = self.plan.mode != "single"
        return TableSummary(
            len(self),
            elapsed_ms=self.stats.get("elapsed_ms"),
            shuffles=self.plan.shuffles if distributed else None,
            moved_bytes=self.plan.moved_bytes if distributed else None,
            truncated_at=self.stats.get("truncated_at"),
        )
