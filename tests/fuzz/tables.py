"""Random tables full of awkward values, kept in every way that a query can read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import duckdb

POOLS: dict[str, tuple[str, ...]] = {
    "TINYINT": ("NULL", "1", "2", "3", "-128", "127", "0"),
    "SMALLINT": ("NULL", "1", "2", "3", "-5", "0", "32767"),
    "INTEGER": ("NULL", "1", "1", "2", "3", "-5", "0", "2147483647"),
    "BIGINT": ("NULL", "1", "2", "3", "1099511627776", "-5", "-9223372036854775808"),
    "HUGEINT": ("NULL", "1", "2", "3", "170141183460469231731687303715884105727", "-18446744073709551617"),
    "UTINYINT": ("NULL", "1", "2", "255", "0"),
    "UBIGINT": ("NULL", "1", "2", "3", "18446744073709551615"),
    "DECIMAL(6, 2)": ("NULL", "1.00", "2.50", "-0.01", "0.00", "3.00"),
    "DECIMAL(18, 0)": ("NULL", "1", "2", "-5", "999999999999999999"),
    "DECIMAL(38, 10)": ("NULL", "1", "2.5", "-9999999999999999999999999999.9999999999", "0.0000000001"),
    "DOUBLE": ("NULL", "'nan'", "-0.0", "0.0", "1.0", "1.5", "-2.25", "3.0", "'inf'", "1e300"),
    "FLOAT": ("NULL", "'nan'", "-0.0", "0.0", "1.0", "1.5", "3.0", "'-inf'"),
    "VARCHAR": ("NULL", "''", "'a'", "'A'", "'b'", "'a''b'", "'é'", "'1'", "'ab'", "repeat('long ', 30)"),
    "DATE": ("NULL", "'2024-02-29'", "'2024-03-01'", "'1970-01-01'", "'0044-03-15 (BC)'", "'infinity'"),
    "TIMESTAMP": ("NULL", "'2024-02-29 12:00:00.000001'", "'1970-01-01'", "'2024-03-01'", "'-infinity'"),
    "TIMESTAMPTZ": ("NULL", "'2024-03-31 01:30:00+00'", "'2024-10-27 01:30:00+00'", "'1970-01-01 00:00:00+00'"),
    "TIMESTAMP_NS": ("NULL", "'2024-02-29 12:00:00.000000001'", "'1970-01-01'"),
    "TIMESTAMP_S": ("NULL", "'2024-02-29 12:00:00'", "'1970-01-01'"),
    "TIME": ("NULL", "'00:00:00'", "'12:00:00.5'", "'24:00:00'"),
    "INTERVAL": ("NULL", "'1 month'", "'30 days'", "'720 hours'", "'-1 day'"),
    "BOOLEAN": ("NULL", "true", "false"),
    "BLOB": ("NULL", "'\\x00a'", "''", "'\\xFF'"),
    "UUID": ("NULL", "'00000000-0000-0000-0000-000000000001'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    "BIT": ("NULL", "'101'", "'0'", "'11111111111'"),
    "INTEGER[]": ("NULL", "[]", "[1]", "[1, NULL]", "[2, 1]"),
    "VARCHAR[]": ("NULL", "[]", "['a']", "['a', NULL, '']"),
    "STRUCT(a INTEGER, b VARCHAR)": ("NULL", "{'a': 1, 'b': 'x'}", "{'a': NULL, 'b': 'x'}", "{'a': 1, 'b': NULL}"),
    "INTEGER[2]": ("NULL", "[1, 2]", "[1, NULL]"),
    "ENUM('z', 'y', 'x')": ("NULL", "'z'", "'y'", "'x'"),
    "MAP(INTEGER, VARCHAR)": ("NULL", "MAP {1: 'a'}", "MAP {1: 'b', 2: NULL}"),
}
USUAL = ("INTEGER", "INTEGER", "BIGINT", "SMALLINT", "VARCHAR", "DECIMAL(6, 2)", "DOUBLE", "DATE", "BOOLEAN")
STORAGES = ("table", "temp", "view", "parquet", "files", "csv", "json", "arrow", "pandas", "polars")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its DuckDB type, and SQL of its value in row ``i``."""

    name: str
    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table by the values of its rows; ``storage`` is one of ``STORAGES``.

    ``rows`` are the numbers of its rows, or how many there are from 0; a Parquet row group has ``row_group``.
    """

    name: str
    columns: tuple[Column, ...]
    rows: int | tuple[int, ...]
    storage: str = "table"
    row_group: int = 2048

    def select(self) -> str:
        """SQL of its rows."""
        listed = ", ".join(f"({column.value})::{column.type} AS {column.name}" for column in self.columns)
        many = isinstance(self.rows, int)
        numbers = f"range({self.rows})" if many else f"(SELECT unnest({list(self.rows)}::BIGINT[]))"  # type: ignore[call-overload]
        return f"SELECT {listed} FROM {numbers} AS numbers(i)"


@dataclass(frozen=True, slots=True)
class Stored:
    """Tables as they were stored: what a session and what plain DuckDB do to have them, with the same types."""

    session: tuple[str, ...]
    plain: tuple[str, ...]
    objects: Mapping[str, Any]


def random_tables(random: Random) -> tuple[Table, ...]:
    """Two to four tables."""
    return tuple(_table(random, name) for name in ("t", "u", "v", "w")[: random.randint(2, 4)])


def _table(random: Random, name: str) -> Table:
    rows = random.choice([0, 1, 5, 20, 20, 60, 60, 60, 200, 200, 200, 1000, 1000, 3000, 10_000])
    count = random.randint(1, 5)
    columns = [_column(random, name, "k", random.choice(["INTEGER", "INTEGER", "BIGINT", "SMALLINT"]), rows)]
    for number in range(count):
        kind = random.choice(USUAL) if random.random() < 0.7 else random.choice(list(POOLS))
        columns.append(_column(random, name, f"c{number}", kind, rows))
    if random.random() < 0.03:
        columns += [_column(random, name, f"w{number}", random.choice(USUAL), rows) for number in range(60)]
    storage = random.choice(STORAGES) if random.random() < 0.8 else "table"
    return Table(name, tuple(columns), rows, storage, random.choice([2048, 2048, 40, 10_000]))


def _column(random: Random, table: str, name: str, kind: str, rows: int) -> Column:
    draw = f"hash(i, '{table}{name}{random.randint(0, 99)}')"
    pool = list(POOLS[kind])
    random.shuffle(pool)
    pool = pool[: random.randint(1, len(pool))]
    picked = f"([{', '.join(f'({value})::{kind}' for value in pool)}])[1 + ({draw} % {len(pool)})::BIGINT]"
    if kind in ("INTEGER", "BIGINT", "SMALLINT") and random.random() < 0.6:
        most = min(max(rows, 1), 30_000)
        value = random.choice(["i % {n}", "i // {d}", "({draw} % {n})::BIGINT", "{n} - i % {n}"])
        value = value.format(draw=draw, n=random.choice([1, 3, 10, 100, most, most]) % 30_001, d=max(1, rows // 50))
    else:
        value = picked
    if random.random() < 0.2:  # most rows have one value
        value = (
            f"CASE WHEN hash(i, {random.randint(0, 99)}) % 10 < {random.choice([5, 9])} THEN {pool[0]} ELSE {value} END"
        )
    return Column(name, kind, value)


def store(tables: Sequence[Table], directory: Path) -> Stored:
    """Write what is kept in files, make what is kept in objects."""
    session: list[str] = []
    plain: list[str] = []
    objects: dict[str, Any] = {}
    with duckdb.connect() as maker:
        for table in tables:
            made = f"CREATE TABLE {table.name} AS {table.select()}"
            maker.execute(made)
            storage = table.storage
            try:
                if storage in ("parquet", "files", "csv", "json"):
                    reader = _as_files(maker, table, directory)
                    session.append(f"CREATE VIEW {table.name} AS FROM {reader}")
                    plain.append(f"CREATE TABLE {table.name} AS FROM {reader}")
                    continue
                if storage in ("arrow", "pandas", "polars"):
                    objects[table.name] = _as_object(maker, table)
                    plain += _as_seen(objects[table.name], table, directory)
                    continue
            except Exception:  # noqa: BLE001 (the format lacks a type of the table, and says so in many ways)
                objects.pop(table.name, None)
            if storage == "view":
                made = made.replace(f"TABLE {table.name}", f"TABLE base_{table.name}", 1)
                session += [made, f"CREATE VIEW {table.name} AS FROM base_{table.name}"]
                plain.append(f"CREATE TABLE {table.name} AS {table.select()}")
            else:
                made = made.replace("CREATE", "CREATE TEMP", 1) if storage == "temp" else made
                session.append(made)
                plain.append(made)
    return Stored(tuple(session), tuple(plain), objects)


def _as_files(maker: duckdb.DuckDBPyConnection, table: Table, directory: Path) -> str:
    name = table.name
    types = dict(maker.execute(f"SELECT column_name, column_type FROM (DESCRIBE {name})").fetchall())
    columns = (
        "{" + ", ".join(f"'{column}': '{kind.replace(chr(39), chr(39) * 2)}'" for column, kind in types.items()) + "}"
    )
    if table.storage == "csv":
        maker.execute(f"COPY {name} TO '{directory}/{name}.csv' (NULLSTR '\\N', HEADER)")
        form = f"nullstr = '\\N', header = true, auto_detect = false, columns = {columns}"
        reader = f"read_csv('{directory}/{name}.csv', {form})"
    elif table.storage == "json":
        maker.execute(f"COPY {name} TO '{directory}/{name}.json'")
        reader = f"read_json('{directory}/{name}.json', format = 'newline_delimited', columns = {columns})"
    elif table.storage == "parquet":
        maker.execute(f"COPY {name} TO '{directory}/{name}.parquet' (ROW_GROUP_SIZE {table.row_group})")
        reader = f"read_parquet('{directory}/{name}.parquet')"
    else:
        (directory / name).mkdir()
        (rows,) = maker.execute(f"SELECT count(*) FROM {name}").fetchone() or (0,)
        for number in range(3):
            part = f"FROM {name} WHERE rowid >= {rows * number // 3} AND rowid < {rows * (number + 1) // 3}"
            maker.execute(f"COPY ({part}) TO '{directory}/{name}/{number}.parquet' (ROW_GROUP_SIZE {table.row_group})")
        reader = f"read_parquet('{directory}/{name}/*.parquet')"
    maker.execute(f"FROM {reader}").fetchall()  # raises where a value cannot be read back
    return reader


def _as_object(maker: duckdb.DuckDBPyConnection, table: Table) -> Any:
    if table.storage == "polars" and any(column.type == "INTERVAL" for column in table.columns):
        raise ValueError("polars has no intervals of months: it panics")
    relation = maker.sql(f"FROM {table.name}")
    return {"arrow": relation.to_arrow_table, "pandas": relation.df, "polars": relation.pl}[table.storage]()


def _as_seen(table_object: Any, table: Table, directory: Path) -> list[str]:
    """Statements that make a table of what DuckDB reads from an object, which no statement can name."""
    file = directory / f"{table.name}.duckdb"
    with duckdb.connect(str(file)) as seen:
        seen.register("seen", table_object)
        seen.execute(f"CREATE TABLE {table.name} AS FROM seen")
        seen.unregister("seen")
    attached = f"ATTACH '{file}' AS seen (READ_ONLY)"
    return [attached, f"CREATE TABLE {table.name} AS FROM seen.{table.name}", "DETACH seen"]
