"""Random statements that write, what they read being random queries."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.fuzz.queries import Queries

TARGET = "CREATE TABLE target AS SELECT i AS id, i % 7 AS k, 'row ' || i AS s FROM range(40) AS numbers(i)"
_READ = ("FROM target",)


@dataclass(frozen=True, slots=True)
class Write:
    """A statement that writes, and the queries that read what it wrote: in the order promised, where ``ordered``."""

    sql: str
    reads: tuple[str, ...]
    ordered: bool = False


def random_write(random: Random, queries: Queries, *, in_order: bool) -> Write | None:
    """One statement; None where the tables have no columns that fit.

    ``in_order``: whether DuckDB keeps the order of rows as it promises it.
    """
    if random.random() < 0.35:
        return _whole_query(random, queries, in_order)
    number = "(try_cast(x{} AS INTEGER) % 60)::BIGINT"
    pairs = queries.rows_of(["int", "int"])
    if pairs is None:
        return None
    unique = f"(SELECT {number.format(0)} AS x0, max({number.format(1)}) AS x1 FROM {pairs} AS p GROUP BY ALL)"
    returning = random.choice(["", " RETURNING *", " RETURNING id, k + 1"])
    forms = [
        f"INSERT INTO target SELECT {number.format(0)}, {number.format(1)}, 'new' FROM {pairs} AS p{returning}",
        f"INSERT INTO target BY NAME SELECT {number.format(0)} AS k, 'named' AS s FROM {pairs} AS p{returning}",
        f"UPDATE target SET k = k + 1 WHERE id IN (SELECT {number.format(0)} FROM {pairs} AS p){returning}",
        f"UPDATE target SET k = n.x1, s = 'set' FROM {unique} AS n WHERE id = n.x0{returning}",
        f"DELETE FROM target WHERE EXISTS (SELECT 1 FROM {pairs} AS p WHERE {number.format(0)} = id){returning}",
        f"DELETE FROM target USING {unique} AS n WHERE target.id = n.x0 AND target.k < n.x1{returning}",
        f"MERGE INTO target USING {unique} AS n ON target.id = n.x0 WHEN MATCHED THEN UPDATE SET k = n.x1"
        f" WHEN NOT MATCHED THEN INSERT VALUES (n.x0, n.x1, 'merged')"
        + (" RETURNING merge_action, id, k" if returning else ""),
        f"SELECT count(nextval('counter')) FROM {pairs} AS p",
        f"WITH w AS (INSERT INTO target SELECT {number.format(0)}, 1, 'with' FROM {pairs} AS p RETURNING id) FROM w",
        "WITH w AS (INSERT INTO target VALUES (99, 99, 'once')) SELECT 1 AS one",
        f"WITH w AS (DELETE FROM target WHERE k IN (SELECT {number.format(0)} FROM {pairs} AS p)) SELECT 1 AS one",
        f"WITH w AS (UPDATE target SET k = k + 1 RETURNING id) SELECT count(*) FROM w JOIN {pairs} AS p ON id = x0",
    ]
    sql = random.choice(forms)
    return Write(sql, ("SELECT nextval('counter')",) if "nextval" in sql else _READ)


def _whole_query(random: Random, queries: Queries, in_order: bool) -> Write:
    query = queries.ordered_query() if in_order and random.random() < 0.3 else queries.query()
    while query.parameters:
        query = queries.query()
    name, file = random.choice([("made", "csv"), ("other", "parquet"), ("made", "parquet")])
    if random.random() < 0.5:
        temporary = random.choice(["", "TEMP "])
        name += str(len(temporary))
        made = f"CREATE OR REPLACE {temporary}TABLE {name} AS {query.sql}"
        return Write(made, (f"FROM {name}",), query.ordered)
    header = ", HEADER" if file == "csv" else ""
    copied = f"COPY ({query.sql}) TO '@/{name}.{file}' (FORMAT {file}{header})"
    return Write(copied, (f"FROM '@/{name}.{file}'",), query.ordered)
