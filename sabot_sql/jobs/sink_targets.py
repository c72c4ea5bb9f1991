"""Where the rows of a SINK go."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabot_sql.errors import JobError


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A Parquet file, which appears once it is complete."""

    path: Path


@dataclass(frozen=True, slots=True)
class ParquetFiles:
    """A directory with a Parquet file for each task, ``part-00000.parquet`` and so on; all of them appear at once.

    One that is there is replaced if there is nothing in it but such files.
    """

    path: Path


@dataclass(frozen=True, slots=True)
class SessionTable:
    """A table of the session; ``append`` adds to one that is there, otherwise there must be none of that name."""

    name: str
    append: bool = False


@dataclass(frozen=True, slots=True)
class Callback:
    """A function of the session, called with each batch once the whole job has succeeded."""

    function: Callable[[Any], object]


Target = ParquetFile | ParquetFiles | SessionTable | Callback


def parsed_target(sink: object, operator_id: str, tasks: int) -> Target | None:
    """What a SINK of so many tasks was given as ``sink``; None where its rows are the result.

    Raises:
        JobError: it is nothing that rows can be written to.
    """
    if sink is None:
        return None
    match sink:
        case ParquetFile(given) | ParquetFiles(given):
            return type(sink)(Path(given).absolute())
        case SessionTable() | Callback():
            return sink
    name = os.fspath(sink) if isinstance(sink, str | os.PathLike) else None
    if isinstance(name, str):
        path = Path(name).absolute()
        if name.endswith("/") or (path.suffix.lower() == ".parquet" and tasks > 1):
            return ParquetFiles(path)
        if path.suffix.lower() == ".parquet":
            return ParquetFile(path)
        reason = f"sink={name!r} does not end in .parquet"
        hint = f'for a directory give "{name}/", for a table SessionTable("name")'
        raise JobError(f"operator {operator_id!r}: {reason}", code="SINK", hint=hint, operator=operator_id)
    if callable(sink):
        return Callback(sink)
    raise JobError(
        f"operator {operator_id!r}: sink is a {type(sink).__name__}",
        code="SINK",
        hint='give a path that ends in .parquet or "/", SessionTable(name), a function, or nothing for the result',
        operator=operator_id,
    )


def target_name(sink: object) -> str | None:
    """What no other sink of the job may write as well; None where any number may."""
    match sink:
        case SessionTable(name):
            return f"table {name}"
        case ParquetFile(path) | ParquetFiles(path):
            return str(Path(path).absolute())
        case str() | os.PathLike():
            return str(Path(sink).absolute())
        case None:
            return "the result"
        case _:
            return None
