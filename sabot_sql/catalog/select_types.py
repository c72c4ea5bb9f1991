"""Types of SELECTs over relations that are known by their columns alone, from a DuckDB that holds nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from sabot_planner import Column
from sabot_planner.sql.text import quote, task_sql
from sabot_sql.duck.errors import translate
from sabot_sql.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa


class SelectTypes:
    """Binds SELECTs without running them, as an agent would: no tables, no files, the session's ``settings``.

    Close it, or use it as a context manager.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._connection = duckdb.connect(
            ":memory:", config={"threads": 1, "async_threads": 1, "python_enable_replacements": "false"}
        )
        for name, value in settings.items():
            self._connection.execute(f"SET GLOBAL {quote(name)} = {_text(value)}")
        self._connection.execute("SET arrow_lossless_conversion = true")
        self._connection.execute("SET enable_external_access = false")

    def columns(self, sql: str, inputs: Mapping[str, Sequence[Column]]) -> tuple[Column, ...]:
        """The columns of the SELECT ``sql`` over relations with the columns of ``inputs``.

        Raises:
            QueryError: it is no SELECT, or not over these.
        """
        try:
            kinds = [statement.type.name for statement in self._connection.extract_statements(sql)]
            if kinds != ["SELECT"]:
                raise QueryError(f"one SELECT is wanted, not {' and '.join(kinds) or 'nothing'}", code="NOT_A_QUERY")
            text = task_sql(sql, [(name, (), _empty(columns)) for name, columns in inputs.items()])
            rows = self._connection.execute(f"DESCRIBE {text}").fetchall()
        except duckdb.Error as error:
            raise translate(error) from None
        return tuple(Column(str(row[0]), str(row[1])) for row in rows)

    def of_arrow(self, schema: pa.Schema) -> tuple[Column, ...]:
        """The columns that DuckDB makes of Arrow data.

        Raises:
            QueryError: it has no such types.
        """
        self._connection.register("arrow_rows", schema.empty_table())
        try:
            rows = self._connection.execute("DESCRIBE SELECT * FROM arrow_rows").fetchall()
        except duckdb.Error as error:
            raise translate(error) from None
        finally:
            self._connection.unregister("arrow_rows")
        return tuple(Column(str(row[0]), str(row[1])) for row in rows)

    def to_arrow(self, columns: Sequence[Column]) -> pa.Schema:
        """The Arrow schema of rows with these columns, as they leave DuckDB for an edge."""
        relation: Any = self._connection.sql(_empty(columns))
        return relation.to_arrow_table().schema

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> SelectTypes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _empty(columns: Sequence[Column]) -> str:
    items = ", ".join(f"CAST(NULL AS {column.type}) AS {quote(column.name)}" for column in columns)
    return f"SELECT {items} WHERE false"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
