"""A directory that the tasks of a COPY write together, and that appears only once it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sabot_planner import Column
from sabot_planner.sql.duck_type import duck_type
from sabot_planner.sql.edge_values import restored
from sabot_planner.sql.text import quote
from sabot_sql.call.staged_files import remove, reveal, staged
from sabot_sql.catalog.write_statements import CopyTo
from sabot_sql.coordinator import FinishedQuery
from sabot_sql.errors import SourceError
from sabot_sql.protocol.task_spec import FileSink
from sabot_sql.service.data_roots import DataRoots

_FORMATS = ("parquet", "csv", "json")
_DIRECTORY_MODE = 0o755
"""What DuckDB makes directories with, less the mask of the process."""
_COMPRESSED = {"gzip": ".gz", "zstd": ".zst"}
# What says how DuckDB lays out files; whoever asks for one of these gets DuckDB's own way, in one writer.
_LAYOUT = frozenset(
    {
        "APPEND",
        "FILENAME_PATTERN",
        "FILE_SIZE_BYTES",
        "HIVE_FILE_PATTERN",
        "OVERWRITE",
        "OVERWRITE_OR_IGNORE",
        "PARTITION_BY",
        "RETURN_FILES",
        "RETURN_STATS",
        "ROW_GROUPS_PER_FILE",
        "USE_TMP_FILE",
        "WRITE_EMPTY_FILE",
        "WRITE_PARTITION_COLUMNS",
    }
)


@dataclass(frozen=True, slots=True)
class DirectorySink:
    """``sink`` writes to a hidden directory beside ``target``; ``replaces`` what is there, unless that is foreign."""

    sink: FileSink
    target: Path
    umask: int
    replaces: bool = False

    def finish(self, finished: FinishedQuery) -> int:
        """Let the files of the committed attempts appear, all at once; gives the number of their rows.

        Raises:
            SourceError: something is there by now.
        """
        directory = Path(self.sink.directory)
        kept = {
            Path(self.sink.path(i, n)): f"part-{i:05d}.{self.sink.extension}" for i, n in enumerate(finished.attempts)
        }
        counts = pa.RecordBatchReader.from_stream(finished.stream).read_all()
        try:
            for path in directory.iterdir():
                if path not in kept:
                    path.unlink()
            for path, name in kept.items():
                path.chmod(0o666 & ~self.umask)  # the agent that wrote it may have been started under another mask
                path.rename(directory / name)
            if self.replaces:
                reveal(directory, self.target)
            else:
                directory.rename(self.target)
        except OSError as error:
            raise SourceError(f"cannot write {self.target}: {error.strerror}", code="FILE_NOT_WRITTEN") from None
        return int(sum(counts.column(0).to_pylist()))


Roots = Sequence[Sequence[str]] | None
"""The directories in which agents of other hosts may read and write, agent by agent; None for those of this host."""


def may_write(target: Path, roots: Roots) -> bool:
    """Whether all agents may write beside ``target``: hosts have those directories in common that all of them name."""
    return roots is None or all(DataRoots(tuple(of_agent)).allows(str(target.parent)) for of_agent in roots)


@contextmanager
def directory_sink(form: object, columns: Sequence[Column], roots: Roots) -> Iterator[DirectorySink | None]:
    """The sink of a COPY with PER_THREAD_OUTPUT to a directory that is new or empty; None for any other statement.

    Whatever is not finished when this closes is removed.
    """
    target = _target(form)
    options = form.chosen() if isinstance(form, CopyTo) else {}
    file_format = (options.get("FORMAT") or (target.suffix[1:] if target else "")).lower() or "csv"
    distinct = len({column.name.lower() for column in columns}) == len(columns)
    if (
        target is None
        or not may_write(target, roots)
        or file_format not in _FORMATS
        or options.keys() & _LAYOUT
        or not distinct
    ):
        yield None
        return
    directory = staged(target)
    try:
        umask = _made(directory)
    except OSError:
        yield None
        return
    try:
        yield DirectorySink(_sink(form, directory, file_format, columns), target, umask)
    finally:
        remove(directory)


@contextmanager
def parquet_sink(target: Path, columns: Sequence[Column]) -> Iterator[DirectorySink]:
    """The sink of tasks that write a Parquet file each; ``columns`` are those of their rows.

    Whatever is not finished when this closes is removed.

    Raises:
        SourceError: nothing can be written there.
    """
    directory = staged(target)
    try:
        umask = _made(directory)
    except OSError as error:
        raise SourceError(f"cannot write {target}: {error.strerror}", code="FILE_NOT_WRITTEN") from None
    try:
        sink = FileSink(str(directory), "parquet", "FORMAT parquet", _items(columns))
        yield DirectorySink(sink, target, umask, replaces=True)
    finally:
        remove(directory)


def _made(directory: Path) -> int:
    """Make a directory as DuckDB does; gives the mask of this process."""
    directory.mkdir()
    umask = 0o777 & ~directory.stat().st_mode  # to ask for the mask itself would set it for all threads
    directory.chmod(_DIRECTORY_MODE & ~umask)
    return umask


def _target(form: object) -> Path | None:
    if not isinstance(form, CopyTo) or "://" in form.path or form.path.startswith("~"):
        return None
    if form.chosen().get("PER_THREAD_OUTPUT", "false").lower() not in ("", "true", "1"):
        return None
    target = Path(os.path.abspath(form.path))  # noqa: PTH100  a link stays what it is
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        return None
    return target


def _sink(form: object, directory: Path, file_format: str, columns: Sequence[Column]) -> FileSink:
    assert isinstance(form, CopyTo)
    chosen = form.chosen()
    left_out = ("PER_THREAD_OUTPUT", "FILE_EXTENSION", "FORMAT")
    options = [o for o in form.option_list() if o.split(None, 1)[0].upper() not in left_out]
    extension = chosen.get("FILE_EXTENSION", "")
    if not extension:
        packed = "" if file_format == "parquet" else _COMPRESSED.get(chosen.get("COMPRESSION", "").lower(), "")
        extension = file_format + packed
    return FileSink(str(directory), extension, ", ".join([f"FORMAT {file_format}", *options]), _items(columns))


def _items(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(
        f"{restored(f'c{i}', duck_type(column.type))} AS {quote(column.name)}" for i, column in enumerate(columns)
    )
