"""Where the rows of a result live: in memory, or in one file once they are many."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from sabot_sql.errors import ResourceError, SessionClosed
from sabot_sql.scratch import Scratch

_numbers = itertools.count(1)


class ResultStore:
    """Record batches that can be read any number of times.

    Columns are named ``c0``, ``c1``, … here: the user's names may repeat.
    """

    def __init__(
        self, schema: pa.Schema, batches: list[pa.RecordBatch], path: Path | None, source: _Limited | None
    ) -> None:
        self.schema = schema
        self.rows = source.rows if source else 0
        self.size_bytes = source.size_bytes if source else 0
        self.truncated_at = source.rows if source and source.truncated else None
        self._batches = batches
        self._path = path
        if path is not None:
            weakref.finalize(self, _unlink, path)

    @property
    def on_disk(self) -> bool:
        """Whether the rows are in a file."""
        return self._path is not None

    @classmethod
    def empty(cls) -> ResultStore:
        """No columns and no rows: what a statement leaves that gives none."""
        return cls(pa.schema([]), [], None, None)

    @classmethod
    def drain(
        cls,
        reader: pa.RecordBatchReader,
        scratch: Scratch,
        budget_bytes: int,
        *,
        max_rows: int | None = None,
        borrowed: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> ResultStore:
        """Read ``reader`` to its end; from ``budget_bytes`` on all rows go to one Arrow IPC file in ``scratch``.

        Rows past ``max_rows`` are left out. ``borrowed`` batches lie in memory that somebody else will take back, so
        they are copied. ``check`` is called for each batch and raises when the rows are not wanted any more.

        Raises:
            ResourceError: the file cannot be written.
        """
        schema = numbered(reader.schema)
        source = _Limited(reader, schema, max_rows, check)
        batches: list[pa.RecordBatch] = []
        for batch in source:
            batches.append(_copied(batch) if borrowed else batch)
            if source.size_bytes > budget_bytes:
                path = _write_file(itertools.chain(_emptied(batches), source), schema, scratch)
                return cls(schema, [], path, source)
        return cls(schema, batches, None, source)

    def reader(self) -> pa.RecordBatchReader:
        """All rows, from the start.

        Raises:
            SessionClosed: the rows were on disk and went with their session.
        """
        if self._path is None:
            return pa.RecordBatchReader.from_batches(self.schema, self._batches)
        try:
            source = pa.memory_map(str(self._path))
        except FileNotFoundError:
            raise SessionClosed("the rows of this result were on disk and went with their session") from None
        return pa.ipc.open_stream(source)

    def part(self, offset: int, count: int) -> list[pa.RecordBatch]:
        """``count`` rows from row ``offset`` on."""
        found = []
        for batch in self.reader():
            if offset < batch.num_rows and count > 0:
                piece = batch.slice(offset, count)
                found.append(piece)
                count -= piece.num_rows
            offset = max(0, offset - batch.num_rows)
            if count <= 0:
                break
        return found


class _Limited:
    """The batches of a reader that have rows, under the names of ``schema``, up to ``max_rows`` rows; counts them."""

    def __init__(
        self, reader: pa.RecordBatchReader, schema: pa.Schema, max_rows: int | None, check: Callable[[], None]
    ) -> None:
        self._reader = reader
        self._schema = schema
        self._max_rows = max_rows
        self._check = check
        self.rows = 0
        self.size_bytes = 0
        self.truncated = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._reader:
            self._check()
            if batch.num_rows == 0:
                continue
            if self._max_rows is not None and self.rows + batch.num_rows > self._max_rows:
                self.truncated = True
                batch = batch.slice(0, self._max_rows - self.rows)
            self.rows += batch.num_rows
            self.size_bytes += batch.nbytes
            if batch.num_rows:
                yield renamed(batch, self._schema)
            if self.truncated:
                return


def numbered(schema: pa.Schema) -> pa.Schema:
    """``schema`` with its columns named by their positions."""
    return pa.schema([field.with_name(f"c{i}") for i, field in enumerate(schema)])


def renamed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of ``batch`` under the names of ``schema``, without a copy."""
    if not schema:
        return batch
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def batches(stream: object) -> pa.RecordBatchReader:
    """The record batches of anything with ``__arrow_c_stream__``."""
    return pa.RecordBatchReader.from_stream(stream)


def rebatched(batches: Iterable[pa.RecordBatch], max_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most ``max_rows``, without a copy."""
    for batch in batches:
        for offset in range(0, batch.num_rows, max_rows):
            yield batch.slice(offset, max_rows)


def _copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def _emptied(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    # Each batch is let go once written, so that memory and file do not hold the rows twice.
    batches.reverse()
    while batches:
        yield batches.pop()


def _write_file(batches: Iterable[pa.RecordBatch], schema: pa.Schema, scratch: Scratch) -> Path:
    path = scratch.path / f"result-{next(_numbers)}.arrow"
    try:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    except OSError as error:
        _unlink(path)
        if "exception_type" in str(error):
            raise  # the producer's failure, not the disk's
        raise ResourceError(f"cannot keep the result on disk: {error}", code="DISK_FULL") from None
    except BaseException:
        _unlink(path)
        raise
    return path


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
