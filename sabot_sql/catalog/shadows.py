"""Shadows: files of the same schema that stand for in-process tables while DuckDB binds and prints a plan.

DuckDB cannot print a plan that reads Python objects. A shadow is a Parquet file without statistics, so that nothing is
folded away, whose footer claims as many rows as the table has and whose body is empty: it is only ever bound. Types
that Parquet cannot say go to a CSV shadow, which takes any type but has no cardinality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sabot_sql.catalog.connection import ColumnTypes, quote_text
from sabot_sql.catalog.conversion import quote_name

if TYPE_CHECKING:
    import duckdb

_ROW_GROUPS = 64
_MAX_ROW_GROUP_ROWS = 1 << 17
_UNKNOWN_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class Shadow:
    """``path`` identifies it in an exported plan; ``relation`` is the SQL that reads it."""

    path: str
    relation: str


class Shadows:
    """The shadows of a session, made once for each schema and size.

    Tables of one query that look alike get different ones, or they could not be told apart in the plan.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[tuple[ColumnTypes, int], list[Shadow]] = {}
        self._made = 0

    def shadow(
        self,
        columns: ColumnTypes,
        schema: pa.Schema,
        rows: int | None,
        taken: set[str],
        main: duckdb.DuckDBPyConnection,
    ) -> Shadow:
        """A shadow of a table with these columns whose path is not ``taken``; ``schema`` is their Arrow form."""
        claimed = _claimed_rows(rows)
        alike = self._known.setdefault((columns, claimed), [])
        for shadow in alike:
            if shadow.path not in taken:
                return shadow
        path = self._directory / f"shadow-{self._made}"
        self._made += 1
        alike.append(_parquet_shadow(path, columns, schema, claimed, main) or _csv_shadow(path, columns))
        return alike[-1]


def _claimed_rows(rows: int | None) -> int:
    """``rows`` to within 2 %, so that a table that grows a little keeps its shadow."""
    wanted = _UNKNOWN_ROWS if rows is None else max(1, min(rows, _ROW_GROUPS * _MAX_ROW_GROUP_ROWS))
    group = -(-wanted // _ROW_GROUPS)
    return group * -(-wanted // group)


def _parquet_shadow(
    path: Path, columns: ColumnTypes, schema: pa.Schema, rows: int, main: duckdb.DuckDBPyConnection
) -> Shadow | None:
    from pyarrow import parquet as pq  # loaded with the first such table, not with the package

    group_rows = -(-rows // _ROW_GROUPS)
    body = path.with_suffix(".tmp")
    file = path.with_suffix(".parquet")
    nullable = pa.schema([field.with_nullable(True) for field in schema])
    try:
        nulls = pa.table([pa.nulls(group_rows, field.type) for field in nullable], schema=nullable)
        pq.write_table(nulls, body, write_statistics=False, use_dictionary=False, compression="none")
    except (pa.ArrowException, NotImplementedError):
        return None  # a type that Parquet, or its writer, does not have
    footer, group = pq.read_metadata(body), pq.read_metadata(body)
    for _ in range(rows // group_rows - 1):
        footer.append_row_groups(group)
    footer.write_metadata_file(file)
    body.unlink()
    relation = f"system.main.parquet_scan({quote_text(str(file))})"
    found = main.execute(f"DESCRIBE FROM {relation}").fetchall()
    return Shadow(str(file), relation) if tuple((row[0], row[1]) for row in found) == columns else None


def _csv_shadow(path: Path, columns: Sequence[tuple[str, str]]) -> Shadow:
    file = path.with_suffix(".csv")
    file.touch()
    named = ", ".join(f"{quote_name(name)} := {quote_text(type_name)}" for name, type_name in columns)
    options = f"columns = system.main.struct_pack({named}), auto_detect = false, header = false"
    relation = f"system.main.read_csv({quote_text(str(file))}, {options})"
    # A column of no type, such as one of None alone in a frame, is read as text: that would compare by a collation. Nor
    # does DuckDB print a plan that casts what is read to no type. All that can be in it is NULL.
    untyped = [quote_name(name) for name, type_name in columns if type_name == '"NULL"']
    if untyped:
        casts = ", ".join(f'CAST(NULL AS "NULL") AS {name}' for name in untyped)
        relation = f"(SELECT * REPLACE ({casts}) FROM {relation})"
    return Shadow(str(file), relation)
