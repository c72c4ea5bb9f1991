"""Python objects as tables: what counts as one, where names are looked up, how they are cut into slices."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType
from typing import Any, Protocol

from sabot_sql.errors import UsageError
from sabot_sql.stoppable import left_when_stopped


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

# Packages whose arrays are made where nobody can reach into them.
_TRUSTED = ("polars", "duckdb", "_duckdb", "sabot_sql")

Check = Callable[[object, Any], None]
"""Takes an object and the Arrow data it is or gave; raises where that is not sound."""

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


def what_else(name: str, scopes: Iterable[Scope]) -> str | None:
    """What the name stands for in ``scopes`` where that is no table: its type."""
    for scope in scopes:
        found: object = scope.get(name)
        if found is not None:
            return described(found)
    return None


def described(value: object) -> str:
    """The type of a value in words, with what it holds where that is why it is no table."""
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}."
    shape = f" of {value.ndim} dimensions" if _is_array(value) else ""  # type: ignore[attr-defined]
    return f"{module}{kind.__qualname__}{shape}"


TABLES_ARE = (
    "tables are pandas and polars frames and series, Arrow tables, batches, arrays, readers, scanners and datasets, "
    "numpy arrays of one or two dimensions, dicts and lists of one-dimensional numpy arrays, and objects with "
    "__arrow_c_stream__ or __arrow_c_array__"
)
"""A hint for whoever names anything else."""


class Kind(StrEnum):
    """How an object is read."""

    PANDAS = "pandas"
    ARROW = "arrow"
    """A table or an array: sliced without a copy, and never changed."""
    POLARS_SERIES = "polars series"
    NUMPY = "numpy"
    COLUMNS = "columns"
    """A dict, list or tuple of one-dimensional arrays of one length."""
    DATASET = "dataset"
    STREAM = "stream"
    """What has to be read to the end before it can be cut."""
    ONCE = "once"
    """The same, and what was read is gone."""


def is_table(value: object) -> bool:
    """Whether ``value`` can be registered; see :data:`TABLES_ARE`."""
    return kind_of(value) is not None


def kind_of(value: object) -> Kind | None:
    """How ``value`` is read as a table, None where DuckDB would not take it for one."""
    if isinstance(value, type):
        return None
    return _known_kind(value) or _arrow_kind(value)


def _known_kind(value: object) -> Kind | None:
    package, name = type(value).__module__.partition(".")[0], type(value).__name__
    match package, name:
        case "pandas", "DataFrame" | "Series":
            return Kind.PANDAS
        case "polars", "DataFrame" | "LazyFrame":
            return Kind.STREAM
        case "polars", "Series":
            return Kind.POLARS_SERIES
        case "pyarrow", "Table" | "RecordBatch" | "ChunkedArray":
            return Kind.ARROW
        case "pyarrow", "RecordBatchReader" | "Scanner":
            return Kind.ONCE
        case "builtins", "dict" | "list" | "tuple":
            columns = list(_columns(value))
            alike = all(_is_array(column) and column.shape == (len(columns[0]),) for column in columns)
            return Kind.COLUMNS if columns and alike else None
        case "builtins", "PyCapsule":
            return Kind.ONCE if '"arrow_array_stream"' in repr(value) else None
    shape: tuple[int, ...] = getattr(value, "shape", ()) if _is_array(value) else ()
    return Kind.NUMPY if len(shape) == 1 or (len(shape) == 2 and shape[0] > 0) else None


def _arrow_kind(value: object) -> Kind | None:
    bases = {base.__name__ for base in type(value).__mro__ if base.__module__.partition(".")[0] == "pyarrow"}
    if "Dataset" in bases:
        return Kind.DATASET
    if "Array" in bases:
        return Kind.ARROW
    exported = hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")
    return Kind.STREAM if exported else None


def _is_array(value: object) -> bool:
    return any(base.__name__ == "ndarray" and base.__module__ == "numpy" for base in type(value).__mro__)


def _columns(value: Any) -> Iterable[Any]:
    # A long list of something else is looked at no further than its first item.
    values = value.values() if isinstance(value, dict) else value
    first = next(iter(values), None)
    return values if _is_array(first) else ()


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
    kind: Kind
    rows: int | None
    size_bytes: int | None
    max_slices: int

    @property
    def may_change(self) -> bool:
        """Whether the user's code may change the rows in place."""
        return self.kind in (Kind.PANDAS, Kind.NUMPY, Kind.COLUMNS)

    @property
    def pieces(self) -> int:
        """The smallest pieces that it can be cut into: rows, or the files of a dataset."""
        return self.max_slices if self.rows is None else self.rows

    def part(self, first: int, last: int) -> Any:
        """Its pieces [``first``, ``last``), without a copy."""
        if self.rows is None:
            return _dataset_slice(self.value, first, last)
        match self.kind:
            case Kind.PANDAS:
                return self.value.iloc[first:last]
            case Kind.NUMPY:
                return self.value[..., first:last]
            case Kind.COLUMNS if isinstance(self.value, dict):
                return {name: column[first:last] for name, column in self.value.items()}
            case Kind.COLUMNS:
                return [column[first:last] for column in self.value]
            case _:
                return self.value.slice(first, last - first)


def memory_source(name: str, value: object, check: Check | None = None) -> MemorySource:
    """``value`` as a table named ``name``; a stream that can be read once only is read now.

    Arrow data that the user's program made goes through ``check`` before anything looks into it.

    Raises:
        UsageError: it cannot be a table.
    """
    kind = kind_of(value)
    if kind is None:
        raise UsageError(
            f"{name!r} is of type {described(value)}, which is no table", code="NOT_A_TABLE", hint=TABLES_ARE
        )
    number = next(_numbers)
    if kind is Kind.DATASET:
        return MemorySource(name, number, value, value, kind, None, None, _dataset_fragments(value))
    readable, rows, size = _measured(value, kind, check)
    return MemorySource(name, number, readable, value, kind, rows, size, max(2, rows))


def _measured(value: Any, kind: Kind, check: Check | None) -> tuple[Any, int, int]:
    """What can be cut into slices, its rows and its bytes."""
    match kind:
        case Kind.PANDAS:
            used = value.memory_usage(index=False, deep=False)
            return value, len(value), int(used if isinstance(used, int) else used.sum())
        case Kind.POLARS_SERIES:
            return value, len(value), int(value.estimated_size())
        case Kind.NUMPY:
            return value, int(value.shape[-1]), int(value.nbytes)
        case Kind.COLUMNS:
            columns = list(_columns(value))
            return value, len(columns[0]), sum(int(column.nbytes) for column in columns)
        case _:
            # What the user's own code gives may come late or never.
            streamed = kind in (Kind.STREAM, Kind.ONCE)
            table = left_when_stopped(lambda: _arrow_table(value), "source") if streamed else _arrow_table(value)
            if check is not None and type(value).__module__.partition(".")[0] not in _TRUSTED:
                check(value, table)
            return table, len(table), table.nbytes


def _arrow_table(value: Any) -> Any:
    import pyarrow as pa

    if type(value).__module__.partition(".")[0] == "polars":
        if type(value).__name__ == "LazyFrame":
            value = value.collect()
        return value.to_arrow()
    if isinstance(value, pa.Table | pa.ChunkedArray | pa.Array):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, pa.RecordBatchReader):
        return value.read_all()
    if type(value).__name__ == "Scanner":
        return value.to_table()
    if type(value).__name__ == "PyCapsule":
        return pa.RecordBatchReader._import_from_c_capsule(value).read_all()
    if not hasattr(value, "__arrow_c_stream__"):
        array = pa.array(value)
        return pa.Table.from_batches([pa.RecordBatch.from_struct_array(array)]) if _is_struct(array) else array
    try:
        return pa.RecordBatchReader.from_stream(value).read_all()
    except pa.ArrowInvalid as error:
        if "non-struct" not in str(error):
            raise
        return pa.chunked_array(value)


def _is_struct(array: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(array.type))


def _dataset_fragments(dataset: Any) -> int:
    # Only a dataset of files can be put together again from a part of its fragments.
    return max(1, len(dataset.files)) if hasattr(dataset, "files") else 1


def _dataset_slice(dataset: Any, first: int, last: int) -> Any:
    import pyarrow.dataset as ds

    if first == last:
        return dataset.schema.empty_table()
    return ds.FileSystemDataset(
        list(dataset.get_fragments())[first:last],
        schema=dataset.schema,
        format=dataset.format,
        filesystem=dataset.filesystem,
    )
