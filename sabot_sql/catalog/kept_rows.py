"""Rows of a result in a DuckDB file of their own, with DuckDB's own types, for whoever reads them later."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import duckdb

from sabot_sql.catalog.connection import Connection, quote_text
from sabot_sql.catalog.conversion import Converter, Interrupts, quote_name
from sabot_sql.config import SessionConfig
from sabot_sql.duck.errors import translate
from sabot_sql.result_store import Rows
from sabot_sql.scratch import Scratch

_TABLE = "rows_of_result"
_OPEN = "sabot_result"


def keep_rows(rows: Rows, converter: Converter, types: Sequence[str], file: Path) -> None:
    """Write all rows to ``file``, which is there whole or not at all.

    Raises:
        SabotSQLError: what DuckDB says, where it cannot be written.
    """
    unfinished = file.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    names = [f"c{i}" for i in range(len(types))]
    cursor = converter.cursor()
    try:
        cursor.execute(f"ATTACH {quote_text(str(unfinished))} AS {_OPEN}")
        try:
            with rows.opened(converter, names, types, (0, rows.rows), nullcontext) as relation:
                relation.create(f"{_OPEN}.main.{_TABLE}")
        finally:
            cursor.execute(f"DETACH {_OPEN}")
        unfinished.chmod(0o600)
        unfinished.rename(file)
    except duckdb.Error as error:
        raise translate(error) from None
    finally:
        cursor.close()
        unfinished.unlink(missing_ok=True)  # on a full disk nobody could write down that it failed


class KeptRows:
    """The rows of a file that :func:`keep_rows` wrote; a result store, which stays readable while the file is there."""

    on_disk = True
    truncated_at: int | None = None

    def __init__(self, config: SessionConfig, settings: Mapping[str, str], rows: int) -> None:
        """The ``rows`` rows of the database of ``config``, which is opened to be read only, under ``settings``."""
        self.rows = rows
        self._table = f"{quote_name(Path(config.database).stem)}.main.{_TABLE}"
        self.size_bytes = Path(config.database).stat().st_size
        scratch = Scratch(config.spill_directory)
        connection = Connection(config, str(scratch.path / "duckdb"))
        self.converter = Converter(connection, settings)
        weakref.finalize(self, _close, connection, scratch)

    def opened(
        self,
        converter: Converter,
        columns: Sequence[str],
        types: Sequence[str],
        part: tuple[int, int],
        interrupts: Interrupts,
    ) -> AbstractContextManager[Any]:
        """A relation over ``part`` of the rows, an offset and a count, with the user's names."""
        offset, count = part
        names = ", ".join(quote_name(f"c{i}") for i in range(len(columns)))
        rows = f"(SELECT {names} FROM {self._table} LIMIT {max(0, count)} OFFSET {offset})"
        return converter.open_held(rows, columns, interrupts)


def _close(connection: Connection, scratch: Scratch) -> None:
    connection.close()
    scratch.close()
