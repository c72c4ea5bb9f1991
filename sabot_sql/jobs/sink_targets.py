"""Where the rows of a SINK go."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabot_sql import arguments
from sabot_sql.errors import JobError

_NAME_PART = r'(?:"(?:[^"]|"")+"|[^\W\d]\w*)'
_TABLE_NAME = re.compile(rf"{_NAME_PART}(?:\.{_NAME_PART}){{0,2}}\Z")


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A Parquet file, which appears once it is complete."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", _path(self.path))


@dataclass(frozen=True, slots=True)
class ParquetFiles:
    """A directory with a Parquet file for each task, ``part-00000.parquet`` and so on; all of them appear at once.

    One that is there is replaced if there is nothing in it but such files.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", _path(self.path))


@dataclass(frozen=True, slots=True)
class SessionTable:
    """A table of the session; ``append`` adds to one that is there, otherwise there must be none of that name.

    ``name`` is written as in SQL: with its schema and database before it if need be, in quotes if it is no plain name.
    """

    name: str
    append: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _TABLE_NAME.match(self.name):
            hint = """a name that is not plain stands in double quotes: SessionTable('"two words"')"""
            raise JobError(f"SessionTable({arguments.shown(self.name)}) names no table", code="SINK", hint=hint)
        if not isinstance(self.append, bool):
            raise JobError(f"append={arguments.shown(self.append)} is neither True nor False", code="SINK")


@dataclass(frozen=True, slots=True)
class Callback:
    """A function of the session, called with each batch once the whole job has succeeded."""

    function: Callable[[Any], object]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise JobError(f"Callback({arguments.shown(self.function)}): it cannot be called", code="SINK")


Target = ParquetFile | ParquetFiles | SessionTable | Callback


def parsed_target(sink: object, operator_id: str, tasks: int) -> Target | None:
    """What a SINK of so many tasks was given as ``sink``; None where its rows are the result.

    Raises:
        JobError: it is nothing that rows can be written to.
    """
    if sink is None:
        return None
    match sink:
        case ParquetFile() | ParquetFiles() | SessionTable() | Callback():
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
            return str(path)
        case str() | os.PathLike():
            return str(Path(sink).absolute())
        case None:
            return "the result"
        case _:
            return None


def _path(given: object) -> Path:
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(name, str) or not name:
        raise JobError(f"{arguments.shown(given)} is no path", code="SINK")
    return Path(name).absolute()
