"""What came of a durable query, as it lies in its directory: an outcome, and its rows in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabot_sql.detached.state_directory import write_whole
from sabot_sql.errors import SabotSQLError, UsageError, error_from_dict

_OUTCOME = "outcome.json"
_ROWS = "rows.duckdb"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a query: ``finished`` with columns and rows, or how it ended instead.

    ``settings`` are those that change how values are shown; ``error`` is the error in the form of its ``to_dict``.
    """

    state: str
    ended_ms: int
    columns: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    plan: Mapping[str, Any] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    def write(self, directory: Path) -> None:
        """Write it to its file in the query's ``directory``.

        Raises:
            ResourceError: it cannot be written.
        """
        fields = {name: getattr(self, name) for name in self.__slots__}
        write_whole(directory / _OUTCOME, json.dumps(fields).encode())

    @classmethod
    def read(cls, directory: Path) -> Outcome | None:
        """What came of the query of ``directory``; None as long as nothing has."""
        try:
            found = json.loads((directory / _OUTCOME).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"what came of query {directory.name} cannot be read: {error}") from None
        return cls(**{**found, "columns": tuple(map(tuple, found["columns"]))})

    def raised(self) -> SabotSQLError | None:
        """The error that ended it."""
        return None if self.error is None else error_from_dict(self.error)


def rows_file(directory: Path) -> Path:
    """Where the rows of a finished query are."""
    return directory / _ROWS
