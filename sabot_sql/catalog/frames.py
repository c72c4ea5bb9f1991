"""Python objects as tables: what counts as one, where names are looked up, how they are cut into slices."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

from sabot_sql.errors import BindError


class Scope(Protocol):
    """Where a name is looked up: a mapping, or the variables of a running function."""

    def get(self, name: str, /) -> Any:
        """The value of the name, or None."""
        ...


class _FunctionLocals:
    """The variables of a function's frame.

    Python copies all of them when they are asked for and keeps the copy with the frame, which would hold on to values
    that the function lets go: they are asked for only when it has a variable of that name.
    """

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        code = frame.f_code
        self._names = frozenset((*code.co_varnames, *code.co_cellvars, *code.co_freevars))

    def get(self, name: str, /) -> Any:
        return self._frame.f_locals.get(name) if name in self._names else None


# Frames of these packages stand between the user's code and us.
_OUR_PACKAGES = ("sabot_sql", "sabot_magics", "IPython", "ipykernel")

_numbers = itertools.count(1)


def caller_scopes() -> tuple[Scope, ...]:
    """The local and global names of the nearest frame that is the user's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _OUR_PACKAGES:
            if frame.f_code.co_flags & inspect.CO_NEWLOCALS:
                return _FunctionLocals(frame), frame.f_globals
            return frame.f_locals, frame.f_globals
        frame = frame.f_back
    return ()


def find_object(name: str, scopes: Iterable[Scope]) -> object | None:
    """The object of that name that can be a table, looked up in ``scopes`` in order."""
    for scope in scopes:
        found: object = scope.get(name)
        if found is not None and is_table(found):
            return found
    return None


def is_table(value: object) -> bool:
    """Whether ``value`` can be registered: a frame, an Arrow object, anything with an Arrow stream."""
    if isinstance(value, type):
        return False
    return hasattr(value, "__arrow_c_stream__") or _kind(value) is not None


def _kind(value: object) -> str | None:
    package = type(value).__module__.partition(".")[0]
    name = type(value).__name__
    if package == "pandas" and name == "DataFrame":
        return "pandas"
    if package == "polars" and name in ("DataFrame", "LazyFrame"):
        return "polars"
    if package == "pyarrow":
        if name in ("Table", "RecordBatch", "RecordBatchReader"):
            return "arrow"
        if any(base.__name__ == "Dataset" for base in type(value).__mro__):
            return "dataset"
    return None


@dataclass(frozen=True, eq=False)
class MemorySource:
    """A table that lives in this process.

    ``value`` is what DuckDB reads; ``origin`` the user's object, kept alive and recognised by identity. ``columns``
    are names with DuckDB types, filled in once DuckDB has bound it.
    """

    name: str
    number: int
    value: Any
    origin: object
    rows: int | None
    size_bytes: int | None
    max_slices: int

    def slice(self, index: int, count: int) -> Any:
        """The ``index``-th of ``count`` runs of rows, without a copy."""
        if count == 1:
            return self.value
        if self.rows is None:
            return _dataset_slice(self.value, index, count)
        first, last = self.rows * index // count, self.rows * (index + 1) // count
        if type(self.value).__module__.startswith("pandas"):
            return self.value.iloc[first:last]
        return self.value.slice(first, last - first)


def memory_source(name: str, value: object) -> MemorySource:
    """``value`` as a table named ``name``; a stream that can be read once only is read now.

    Raises:
        BindError: it cannot be a table.
    """
    if not is_table(value):
        raise BindError(
            f"{name!r} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be a table",
            code="NOT_A_TABLE",
            hint="tables are pandas and polars frames, Arrow tables, batches, readers and datasets, "
            "and objects with __arrow_c_stream__",
        )
    kind = _kind(value)
    number = next(_numbers)
    readable: Any = value
    if kind == "pandas":
        size = int(readable.memory_usage(index=False, deep=False).sum())
        return MemorySource(name, number, value, value, len(readable), size, max(2, len(readable)))
    if kind == "dataset":
        return MemorySource(name, number, value, value, None, None, _dataset_fragments(value))
    table = _arrow_table(readable, kind)
    return MemorySource(name, number, table, value, table.num_rows, table.nbytes, max(2, table.num_rows))


def _arrow_table(value: Any, kind: str | None) -> Any:
    import pyarrow as pa

    if kind == "polars":
        if type(value).__name__ == "LazyFrame":
            value = value.collect()
        return value.to_arrow()
    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, pa.RecordBatchReader):
        return value.read_all()
    return pa.RecordBatchReader.from_stream(value).read_all()


def _dataset_fragments(dataset: Any) -> int:
    # Only a dataset of files can be put together again from a part of its fragments.
    return max(1, len(dataset.files)) if hasattr(dataset, "files") else 1


def _dataset_slice(dataset: Any, index: int, count: int) -> Any:
    import pyarrow.dataset as ds

    fragments = list(dataset.get_fragments())
    first, last = len(fragments) * index // count, len(fragments) * (index + 1) // count
    if first == last:
        return dataset.schema.empty_table()
    return ds.FileSystemDataset(
        fragments[first:last], schema=dataset.schema, format=dataset.format, filesystem=dataset.filesystem
    )
