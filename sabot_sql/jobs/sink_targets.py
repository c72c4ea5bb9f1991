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
class SessionTable:
    """A table of the session; ``append`` adds to one that is there, otherwise there must be none of that name."""

    name: str
    append: bool = False


@dataclass(frozen=True, slots=True)
class Callback:
    """A function of the session, called with each batch once the whole job has succeeded."""

    function: Callable[[Any], object]


Target = ParquetFile | SessionTable | Callback


def parsed_target(sink: object, operator_id: str) -> Target | None:
    """What a SINK was given as ``sink``; None where its rows are the result.

    Raises:
        JobError: it is nothing that rows can be written to.
    """
    if sink is None:
        return None
    if isinstance(sink, SessionTable | ParquetFile | Callback):
        return sink
    if isinstance(sink, str | os.PathLike):
        path = Path(sink)
        if path.suffix.lower() == ".parquet":
            return ParquetFile(path.absolute())
        reason, hint = f"sink={str(sink)!r} does not end in .parquet", 'for a table give SessionTable("name")'
        raise JobError(f"operator {operator_id!r}: {reason}", code="SINK", hint=hint, operator=operator_id)
    if callable(sink):
        return Callback(sink)
    raise JobError(
        f"operator {operator_id!r}: sink is a {type(sink).__name__}",
        code="SINK",
        hint="give a path that ends in .parquet, SessionTable(name), a function, or nothing for the result",
        operator=operator_id,
    )


def target_name(sink: object) -> str | None:
    """What no other sink of the job may write as well; None where any number may."""
    match sink:
        case SessionTable(name):
            return f"table {name}"
        case ParquetFile(path):
            return str(path.absolute())
        case str() | os.PathLike():
            return str(Path(sink).absolute())
        case None:
            return "the result"
        case _:
            return None
