"""How large a source is, as far as that can be told without reading its rows."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MOST_FILES = 64
"""So many are looked at; what lies in more is not small."""
_MAGIC = "*?["
_PARQUET = (".parquet", ".pq")
_PLAIN = (".csv", ".tsv", ".json", ".ndjson", ".jsonl")


def size_bytes(source: object) -> int | None:
    """Bytes of a table in memory, or of files once they are unpacked; None where nobody can tell."""
    try:
        files = _files(source)
        return _of_table(source) if files is None else _of_files(files)
    except Exception:  # noqa: BLE001  a file that is not there, or an object of the user's: reading it says what is wrong
        return None


def _of_table(source: Any) -> int | None:
    for measure in (
        lambda: source.nbytes,  # Arrow
        lambda: source.estimated_size(),  # polars
        lambda: int(source.memory_usage(index=False).sum()),  # pandas
    ):
        try:
            size = measure()
        except Exception:  # noqa: BLE001  it is of another kind
            continue
        if isinstance(size, int):
            return size
    return None


def _files(source: object) -> list[str] | None:
    """The files that a source names; None where it names none."""
    named = source if isinstance(source, list | tuple) else [source]
    names = [os.fspath(item) for item in named if isinstance(item, str | os.PathLike)]
    if not names or len(names) != len(named):
        return None
    files: list[str] = []
    for name in names:
        files += glob.glob(name, recursive=True) if any(c in name for c in _MAGIC) else [name]  # noqa: PTH207  as DuckDB
    return files


def _of_files(files: Sequence[str]) -> int | None:
    if not files or len(files) > _MOST_FILES:
        return None
    sizes = [_of_file(Path(file)) for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _of_file(file: Path) -> int | None:
    if file.suffix.lower() in _PARQUET:
        import pyarrow.parquet as pq  # which a job of other sources does not need

        footer = pq.read_metadata(file)
        return sum(int(footer.row_group(group).total_byte_size) for group in range(footer.num_row_groups))
    return file.stat().st_size if file.suffix.lower() in _PLAIN else None
