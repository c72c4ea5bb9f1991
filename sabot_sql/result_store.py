"""Where the rows of a result live: in memory, or in one file once they are many."""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from sabot_sql.arrow_types import plain_boolean, with_leaves
from sabot_sql.errors import ResourceError, SessionClosed
from sabot_sql.forks import is_own
from sabot_sql.result_room import HeldBytes, ResultRoom
from sabot_sql.scratch import Scratch

if TYPE_CHECKING:
    from sabot_sql.catalog.conversion import Converter, Interrupts
    from sabot_sql.catalog.held_rows import HeldRows

_BATCH_BYTES = 16 << 20
_numbers = itertools.count(1)


class Rows(Protocol):
    """The rows of a result, wherever they are; they can be read any number of times."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    @property
    def size_bytes(self) -> int:
        """What they take, where that is known."""
        ...

    @property
    def on_disk(self) -> bool:
        """Whether they are in a file."""
        ...

    @property
    def truncated_at(self) -> int | None:
        """How many they were cut to, if they were."""
        ...

    def opened(
        self,
        converter: Converter,
        columns: Sequence[str],
        types: Sequence[str],
        part: tuple[int, int],
        interrupts: Interrupts,
    ) -> AbstractContextManager[Any]:
        """A relation over ``part`` of the rows, an offset and a count, with the user's names and DuckDB's types.

        Raises:
            SessionClosed: they went with their session.
        """
        ...


class ResultStore:
    """Record batches that can be read any number of times.

    A BOOLEAN is Arrow's own ``bool``, at whatever depth, as in DuckDB's results. Columns are named ``c0``, ``c1``, …
    here: the user's names may repeat.
    """

    def __init__(
        self,
        schema: pa.Schema,
        batches: list[pa.RecordBatch],
        path: Path | None,
        source: _Limited | None,
        held: HeldBytes | None = None,
    ) -> None:
        """Batches of the columns of ``schema``, in memory or in the file ``path``, under whatever names."""
        self.schema = schema
        self.rows = source.rows if source else 0
        self.size_bytes = source.size_bytes if source else 0
        self.truncated_at = source.rows if source and source.truncated else None
        self._batches = batches
        self._held = held
        self._path = path
        if path is not None:
            weakref.finalize(self, _forget, path, os.getpid())

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
        room: ResultRoom,
        budget_bytes: int,
        *,
        max_rows: int | None = None,
        borrowed: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> ResultStore:
        """Read ``reader`` to its end; to a file, once all results of ``room`` have ``budget_bytes`` in memory.

        Rows past ``max_rows`` are left out. ``borrowed`` batches lie in memory that somebody else will take back, so
        they are copied. ``check`` is called for each batch and raises when the rows are not wanted any more.

        Raises:
            ResourceError: the file cannot be written.
        """
        schema = numbered(reader.schema)
        source = _Limited(reader, max_rows, check)
        held = room.enter()
        batches: list[pa.RecordBatch] = []
        for batch in source:
            batches.append(_copied(batch) if borrowed else batch)
            held.size_bytes = source.size_bytes
            if room.is_too_much(held, budget_bytes):
                del batch
                path = _write_file(itertools.chain(_emptied(batches), source), source.schema, room.scratch)
                return cls(schema, [], path, source)
        return cls(schema, batches, None, source, held)

    def reader(self, schema: pa.Schema | None = None) -> pa.RecordBatchReader:
        """All rows, from the start; under the names of ``schema``, where it is given.

        Raises:
            SessionClosed: the rows were on disk and went with their session.
        """
        schema = self.schema if schema is None else schema
        try:
            stored = iter(self._batches) if self._path is None else _read_file(self._path)
        except FileNotFoundError:
            raise SessionClosed("the rows of this result were on disk and went with their session") from None
        return pa.RecordBatchReader.from_batches(schema, (renamed(batch, schema) for batch in stored))

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

    def opened(
        self,
        converter: Converter,
        columns: Sequence[str],
        types: Sequence[str],
        part: tuple[int, int],
        interrupts: Interrupts,
    ) -> AbstractContextManager[Any]:
        """A relation over ``part`` of the rows, an offset and a count, with the user's names and DuckDB's types."""
        offset, count = part
        reader = self.reader()
        if offset > 0 or count < self.rows:
            reader = pa.RecordBatchReader.from_batches(self.schema, self.part(offset, count))
        return converter.open(reader, columns, types, interrupts)


class HeldStore:
    """Rows that only DuckDB can hold: they stay in the session's own, and go with it."""

    on_disk = False
    size_bytes = 0

    def __init__(self, rows: HeldRows, count: int, max_rows: int | None) -> None:
        """Keep the first ``max_rows`` of ``count`` rows."""
        self.rows = count if max_rows is None else min(count, max_rows)
        self.truncated_at = self.rows if self.rows < count else None
        self._held = rows

    def opened(
        self,
        converter: Converter,
        columns: Sequence[str],
        types: Sequence[str],
        part: tuple[int, int],
        interrupts: Interrupts,
    ) -> AbstractContextManager[Any]:
        """A relation over ``part`` of the rows, an offset and a count, with the user's names.

        Raises:
            SessionClosed: they went with their session.
        """
        offset, count = part
        rows = f"(FROM {self._held.sql} LIMIT {max(0, min(count, self.rows - offset))} OFFSET {offset})"
        return converter.open_held(rows, columns, interrupts)


class _Limited:
    """The batches of a reader that have rows, up to ``max_rows`` rows, with the types of results; counts them."""

    def __init__(self, reader: pa.RecordBatchReader, max_rows: int | None, check: Callable[[], None]) -> None:
        kinds = numbered(reader.schema).types
        self.schema = pa.schema([field.with_type(kind) for field, kind in zip(reader.schema, kinds, strict=True)])
        self._reader = reader
        self._max_rows = max_rows
        self._check = check
        self._changes = reader.schema.types != kinds
        self.rows = 0
        self.size_bytes = 0
        self.truncated = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._reader:
            self._check()
            if batch.num_rows == 0:
                continue
            size_bytes = batch.get_total_buffer_size()
            if self._max_rows is not None and self.rows + batch.num_rows > self._max_rows:
                self.truncated = True
                batch = batch.slice(0, self._max_rows - self.rows)
                size_bytes = batch.nbytes
            self.rows += batch.num_rows
            self.size_bytes += size_bytes
            if batch.num_rows:
                yield _kept(batch, self.schema) if self._changes else batch
            if self.truncated:
                return


def numbered(schema: pa.Schema) -> pa.Schema:
    """``schema`` as results are kept: columns named by their positions, BOOLEAN as ``bool``."""
    kinds = [with_leaves(field.type, plain_boolean) for field in schema]
    return pa.schema([field.with_name(f"c{i}").with_type(kinds[i]) for i, field in enumerate(schema)])


def renamed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of ``batch`` under the names of ``schema``, without a copy."""
    if not schema:
        return batch
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _kept(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of ``batch`` in the types of ``schema``, without a copy of those that have them."""
    columns = [
        column if column.type.equals(kind) else column.cast(kind)
        for column, kind in zip(batch.columns, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def batches(stream: object) -> pa.RecordBatchReader:
    """The record batches of anything with ``__arrow_c_stream__``."""
    return pa.RecordBatchReader.from_stream(stream)


def rebatched(batches: Iterable[pa.RecordBatch], max_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most ``max_rows``, and of 16 MiB unless one row has more, without a copy."""
    for batch in bounded(batches):
        if batch.num_rows <= max_rows:
            yield batch
            continue
        for offset in range(0, batch.num_rows, max_rows):
            yield batch.slice(offset, max_rows)


def bounded(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of 16 MiB at most, unless one row has more, without a copy."""
    for batch in batches:
        if batch.get_total_buffer_size() <= _BATCH_BYTES:
            yield batch
            continue
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            if part.num_rows <= 1 or part.nbytes <= _BATCH_BYTES:
                yield part
                continue
            half = part.num_rows // 2
            waiting += [part.slice(half), part.slice(0, half)]


def _copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    counted = pa.MockOutputStream()
    with pa.ipc.new_stream(counted, batch.schema) as writer:
        writer.write_batch(batch)
    # A sink that grows would end up with up to twice what it needs.
    buffer = pa.allocate_buffer(counted.size())
    with pa.FixedSizeBufferWriter(buffer) as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(buffer).read_next_batch()


def _emptied(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    # Each batch is let go once written, so that memory and file do not hold the rows twice.
    batches.reverse()
    while batches:
        yield batches.pop()


def _write_file(batches: Iterable[pa.RecordBatch], schema: pa.Schema, scratch: Scratch) -> Path:
    path = scratch.path / f"result-{next(_numbers)}.arrow"
    try:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in bounded(batches):
                writer.write_batch(batch)
    except OSError as error:
        _unlink(path)
        if "exception_type" in str(error):
            raise  # the producer's failure, not the disk's
        raise ResourceError(f"cannot keep the result on disk: {error}", code="DISK_FULL") from None
    except BaseException:
        _unlink(path)
        raise
    # What the rows had in memory on their way: the pool would keep it.
    pa.default_memory_pool().release_unused()
    return path


def _read_file(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a file, without a copy: they lie in its pages.

    Pages that were read are given up as the next batch is asked for; whoever still has the rows gets them again from
    the kernel's cache. Otherwise the process would come to have the whole file in memory.
    """
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    def batches() -> Iterator[pa.RecordBatch]:
        source = pa.BufferReader(pa.py_buffer(pages))
        given_up = 0
        for batch in pa.ipc.open_stream(source):
            yield batch
            read = source.tell() // mmap.PAGESIZE * mmap.PAGESIZE
            if read > given_up:
                pages.madvise(mmap.MADV_DONTNEED, given_up, read - given_up)
                given_up = read

    return batches()


def _forget(path: Path, owner: int) -> None:
    if is_own(owner):
        _unlink(path)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
