"""Writes rows that agents computed where a COPY or a CREATE TABLE AS of the user wants them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from sabot_sql.catalog.connection import ColumnTypes, Connection, Statement
from sabot_sql.catalog.conversion import quote_name, taken_back
from sabot_sql.catalog.effects import RunsOnce
from sabot_sql.catalog.frames import Scope
from sabot_sql.catalog.memory_tables import MemoryTables
from sabot_sql.catalog.write_statements import CopyTo, CreateTableAs, parse_write
from sabot_sql.duck.errors import translate
from sabot_sql.duck.interrupts import in_spite_of_interrupts, roll_back
from sabot_sql.errors import SabotSQLError

if TYPE_CHECKING:
    from sabot_planner import Column

_ROWS = "__sabot_rows"
_WHOLE_FILES = ("parquet", "csv", "json")
"""Formats of one file, which DuckDB can write under another name first."""
_NOT_ONE_FILE = frozenset(
    {
        "USE_TMP_FILE",
        "PER_THREAD_OUTPUT",
        "PARTITION_BY",
        "FILE_SIZE_BYTES",
        "ROW_GROUPS_PER_FILE",
        "APPEND",
        "OVERWRITE",
        "OVERWRITE_OR_IGNORE",
    }
)


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that writes the rows of ``query``, which can be run by itself."""

    statement: Statement
    query: Statement
    form: CopyTo | CreateTableAs


class Writes:
    """Takes such statements apart and does their last step, on the session's DuckDB."""

    def __init__(
        self,
        connection: Connection,
        tables: MemoryTables,
        changed: Callable[[Statement], None],
        runs_once: Callable[[Statement], RunsOnce | None],
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._changed = changed
        self._runs_once = runs_once

    def prepare(self, statement: Statement, scopes: Sequence[Scope]) -> Write | None:
        """The parts of ``statement``; None where it is another one, or is wrong: DuckDB will say so itself."""
        if statement.kind not in ("COPY", "CREATE") or self._connection.in_transaction:
            return None
        form = parse_write(statement.text)
        if form is None:
            return None
        try:
            (query,) = self._connection.split(form.query, statement.parameters)
        except (SabotSQLError, ValueError):
            return None
        if not query.is_query or query.handle.named_parameters != statement.handle.named_parameters:
            return None
        write = Write(statement, query, form)
        with self._connection.lock, self._tables.objects(statement, scopes):
            return write if self._runs_once(query) is None and self._would_run(write) else None

    def run(
        self, write: Write, scopes: Sequence[Scope], stream: object, columns: Sequence[Column], carried: Sequence[str]
    ) -> tuple[pa.Table, ColumnTypes]:
        """Write the rows of ``stream``, whose columns are named ``carried``; gives what DuckDB answers.

        ``columns`` have the user's names, and the types of the query.

        Raises:
            SabotSQLError: what DuckDB says; then nothing is written.
        """
        main = self._connection.main
        with self._connection.lock, self._tables.objects(write.statement, scopes):
            try:
                main.register(_ROWS, stream)
                try:
                    answer = self._run(write.form, self._select(columns, carried), write.query)
                finally:
                    in_spite_of_interrupts(lambda: main.unregister(_ROWS))
            except (duckdb.Error, pa.ArrowException, RuntimeError) as error:
                raise translate(error, write.statement.place) from None
            self._changed(write.statement)
            return answer

    def _run(self, form: CopyTo | CreateTableAs, select: str, query: Statement) -> tuple[pa.Table, ColumnTypes]:
        if isinstance(form, CopyTo):
            return self._answer(form.over(select, _complete(form)))
        with self._transaction():
            # DuckDB binds the query itself once more: names and types of the table are what it says.
            self._create(form, query)
            return self._answer(f"INSERT INTO {form.target} {select}")

    def _answer(self, sql: str) -> tuple[pa.Table, ColumnTypes]:
        relation = self._connection.main.sql(sql)
        types = tuple(zip(relation.columns, map(str, relation.types), strict=True))
        return relation.to_arrow_table(), types

    def _create(self, form: CreateTableAs, query: Statement) -> None:
        self._connection.main.execute(f"{form.head} {form.query}\nWITH NO DATA", query.parameters)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        main = self._connection.main
        try:
            main.execute("BEGIN")
            yield
            main.execute("COMMIT")
        except BaseException:
            roll_back(main)
            raise

    def _would_run(self, write: Write) -> bool:
        """Whether DuckDB would start the statement, as far as that can be told without running its query."""
        main = self._connection.main
        form = write.form
        try:
            if isinstance(form, CopyTo):
                main.execute(f"EXPLAIN {write.statement.text}", write.statement.parameters).fetchall()
                return _is_writable(form.path)
            try:
                main.execute("BEGIN")
                self._create(form, write.query)
            finally:
                roll_back(main)
        except (duckdb.Error, RuntimeError):
            return False
        return True

    def _select(self, columns: Sequence[Column], carried: Sequence[str]) -> str:
        """A SELECT of the rows under the user's names and with exactly the types of ``columns``."""
        arrived = self._connection.main.sql(f"FROM {_ROWS} LIMIT 0").types
        items = [
            f"{taken_back(quote_name(name), str(had), column.type)} AS {quote_name(column.name)}"
            for name, had, column in zip(carried, arrived, columns, strict=True)
        ]
        return f"SELECT {', '.join(items)} FROM {_ROWS}"


def _is_writable(path: str) -> bool:
    """Whether a file could be made at ``path``; what is not a plain path is left to DuckDB."""
    if "://" in path or path.startswith("~"):
        return True
    parent = Path(path).parent
    return parent.is_dir() and os.access(parent, os.W_OK)


def _complete(form: CopyTo) -> list[str]:
    """The options of a COPY; one file gets its name only once it is complete, so that nobody reads a part of it."""
    options = form.option_list()
    chosen = form.chosen()
    path = Path(form.path)
    plain = "://" not in form.path and (path.is_file() or not path.exists())
    if plain and not chosen.keys() & _NOT_ONE_FILE and chosen.get("FORMAT", "csv").lower() in _WHOLE_FILES:
        options.append("USE_TMP_FILE true")
    return options
