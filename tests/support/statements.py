"""Statements to compare with plain DuckDB, read from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

OWN = Path(__file__).parent.parent / "differential" / "statements"


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a script: a SELECT to compare, or one that changes the database."""

    sql: str
    compared: bool


@dataclass(frozen=True, slots=True)
class Script:
    """Steps that run in order on one fresh database."""

    name: str
    steps: tuple[Step, ...]


def scripts(path: Path) -> Iterator[Script]:
    """The scripts of a suite: a ``.sql`` file is one script, each line of a ``.jsonl`` file is one.

    A line of JSON is ``{"file": name, "steps": [{"do": statement} | {"q": SELECT}]}``.
    """
    if path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            parsed: dict[str, Any] = json.loads(line)
            steps = (Step(step.get("q") or step["do"], "q" in step) for step in parsed["steps"])
            yield Script(parsed["file"], tuple(steps))
    else:
        yield Script(path.name, tuple(_steps(path.read_text())))


def own_tables() -> list[str]:
    """The statements that make the tables of the repository's own statements."""
    return [step.sql for step in _steps((OWN / "tables.sql").read_text())]


def own_statements() -> Iterator[tuple[str, str]]:
    """Name and text of each of the repository's own statements."""
    for path in sorted(OWN.glob("*.sql")):
        if path.name != "tables.sql":
            for number, step in enumerate(_steps(path.read_text()), 1):
                yield f"{path.stem}-{number}", step.sql


def as_parquet(setup: list[str], directory: Path, rows_per_file: int = 150, rows_per_group: int = 40) -> list[str]:
    """Statements that give the tables of ``setup`` as views over Parquet files of few rows; the rest stays."""
    with duckdb.connect() as connection:
        for statement in setup:
            connection.execute(statement)
        tables = connection.execute("SELECT table_name, estimated_size FROM duckdb_tables()").fetchall()
        statements = []
        for table, rows in tables:
            (directory / table).mkdir(parents=True)
            for number, first in enumerate(range(0, max(1, rows), rows_per_file)):
                connection.execute(
                    f"COPY (FROM {table} WHERE rowid BETWEEN {first} AND {first + rows_per_file - 1})"
                    f" TO '{directory}/{table}/{number:02}.parquet' (ROW_GROUP_SIZE {rows_per_group})"
                )
            statements.append(f"CREATE VIEW {table} AS FROM read_parquet('{directory}/{table}/*.parquet')")
        kept = [s for s in setup if s.split()[1] in ("VIEW", "MACRO", "TYPE")]
    return statements + kept


def _steps(text: str) -> Iterator[Step]:
    compared = {duckdb.StatementType.SELECT, duckdb.StatementType.MULTI}
    for statement in duckdb.extract_statements(text):
        sql = statement.query.strip().rstrip(";").strip()
        yield Step(sql, statement.type in compared)
