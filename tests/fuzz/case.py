"""A case of the fuzzer: tables, settings, statements and disturbances, drawn from a seed and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from tests.fuzz.queries import Queries, Source, sources_of
from tests.fuzz.tables import Column, Table, random_tables, store
from tests.fuzz.writes import TARGET, random_write

STATEMENTS = 10

SETTINGS: dict[str, tuple[str, ...]] = {
    "default_null_order": ("'nulls_first'", "'nulls_last'", "'nulls_first_on_asc_last_on_desc'"),
    "default_order": ("'DESC'",),
    "default_collation": ("'NOCASE'", "'NOACCENT'"),
    "TimeZone": ("'Europe/Berlin'", "'America/New_York'"),
    "integer_division": ("true",),
    "preserve_insertion_order": ("false",),
    "ieee_floating_point_ops": ("false",),
    "scalar_subquery_error_on_multiple_rows": ("false",),
}
MACROS = (
    "CREATE MACRO plus_one(x) AS x + 1",
    "CREATE MACRO of_t() AS TABLE SELECT * FROM t",
    "CREATE MACRO total(x) AS sum(x)",
    # Named like what DuckDB calls inside.
    "CREATE MACRO hash(x) AS 0",
    "CREATE MACRO finalize(x) AS 42",
    "CREATE MACRO combine_aggr(x) AS 42",
    "CREATE MACRO row_number() AS 1",
    "CREATE MACRO list_transform(x, f) AS [0]",
    "CREATE MACRO array_slice(x, a, b) AS []",
    "CREATE MACRO to_aggregate_state(x, a, b, c, d) AS 42",
    "CREATE MACRO arrow_scan(a, b, c) AS TABLE SELECT 42 AS x",
    "CREATE MACRO create_sort_key(a, b) AS 'one key'",
    "CREATE MACRO length(x) AS -1",
    "CREATE MACRO count_star() AS 7",
)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happens to a statement while it runs.

    ``kill`` an agent, ``cancel`` it, let it run into a ``timeout``, or run it twice ``beside`` itself.
    """

    kind: str
    after_ms: float


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. What it returns is compared, then what each query of ``reads`` gives.

    ``@`` stands for a directory of one's own. ``parameters`` are values of named parameters, as SQL. Where ``ordered``,
    the rows come in one order: those of a query, or those that the ``reads`` of a write give.
    """

    sql: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    writes: bool = False
    reads: tuple[str, ...] = ()
    ordered: bool = False
    disturbance: Disturbance | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How a session is opened; ``planner`` are settings of the planner that have no option.

    ``durable``: its queries are handed to a durable host, which is killed where else an agent would be.
    """

    agents: int = 2
    isolation: str = "thread"
    memory_limit: str = "1GiB"
    partitions: int | None = None
    adaptive: bool = True
    broadcast_limit: int | None = None
    slice_rows: int = 3
    planner: Mapping[str, Any] = field(default_factory=dict)
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """Statements that run in order on one session, and on plain DuckDB."""

    name: str
    tables: tuple[Table, ...]
    prepare: tuple[str, ...]
    steps: tuple[Step, ...]
    options: Options

    def to_dict(self) -> dict[str, Any]:
        """JSON of it; :func:`case_from_dict` reads it."""
        return asdict(self)

    def script(self) -> str:
        """It as SQL, to be read: options and disturbances are comments."""
        lines = [f"-- {name} = {value!r}" for name, value in asdict(self.options).items()]
        lines += [f"CREATE TABLE {one.name} AS {one.select()};  -- kept as: {one.storage}" for one in self.tables]
        lines += [f"{statement};" for statement in self.prepare]
        for step in self.steps:
            notes = [f"{name} = {value}" for name, value in step.parameters.items()]
            notes += [f"{step.disturbance.kind} after {step.disturbance.after_ms:.0f} ms"] if step.disturbance else []
            lines.append(f"{step.sql};" + (f"  -- {', '.join(notes)}" if notes else ""))
            lines += [f"{read};" for read in step.reads]
        return "\n".join(lines)


def case_from_dict(fields: Mapping[str, Any]) -> Case:
    """The case that :meth:`Case.to_dict` wrote."""
    tables = tuple(
        Table(
            **{
                **table,
                "columns": tuple(Column(**column) for column in table["columns"]),
                "rows": table["rows"] if isinstance(table["rows"], int) else tuple(table["rows"]),
            }
        )
        for table in fields["tables"]
    )
    steps = tuple(
        Step(
            **{
                **step,
                "reads": tuple(step["reads"]),
                "disturbance": Disturbance(**step["disturbance"]) if step["disturbance"] else None,
            }
        )
        for step in fields["steps"]
    )
    return Case(fields["name"], tables, tuple(fields["prepare"]), steps, Options(**fields["options"]))


def random_case(seed: int, number: int, *, durable: bool = False) -> Case:
    """The case of that number: the same one for the same seed."""
    random = Random(f"{seed} {number}")
    options = replace(_options(random), durable=durable)
    tables = random_tables(random)
    prepare = [TARGET, "CREATE SEQUENCE counter"]
    prepare += [f"SET {name} = {random.choice(values)}" for name, values in SETTINGS.items() if random.random() < 0.06]
    prepare += [macro for macro in MACROS if random.random() < 0.05]
    queries = Queries(random, _sources(tables))
    in_order = not any("preserve_insertion_order" in statement for statement in prepare)
    # Which spelling stands for equal ones is open: the oracle finds that out of a query, and not of what was written.
    collated = any("default_collation" in statement for statement in prepare)
    steps = []
    while len(steps) < STATEMENTS:
        if random.random() < 0.2 and not collated:
            step = _write(random, queries, in_order)
        else:
            query = queries.ordered_query() if in_order and random.random() < 0.1 else queries.query()
            disturbance = _disturbance(random, options)
            step = Step(query.sql, query.parameters, ordered=query.ordered, disturbance=disturbance)
        if step is not None:
            steps.append(step)
    return Case(f"{seed}.{number}", tables, tuple(prepare), tuple(steps), options)


def _write(random: Random, queries: Queries, in_order: bool) -> Step | None:
    write = random_write(random, queries, in_order=in_order)
    return None if write is None else Step(write.sql, writes=True, reads=write.reads, ordered=write.ordered)


def _options(random: Random) -> Options:
    planner: dict[str, Any] = {}
    if random.random() < 0.3:
        planner["partial_share"] = random.choice([0.0, 1.0])
    if random.random() < 0.3:
        planner["filter_bytes"] = random.choice([0, 1000])
    if random.random() < 0.3:
        planner |= {"gather_rows": 0, "repeat_rows": 0}
    if random.random() < 0.2:
        planner["coalesce_bytes"] = random.choice([1, 1000])
    return Options(
        agents=random.choice([1, 2, 2, 2, 3, 3, 4]),
        isolation=random.choice(["thread", "thread", "process"]),
        memory_limit=random.choice(
            ["64MiB", "96MiB", "128MiB"] if random.random() < 0.2 else ["256MiB", "512MiB", "1GiB"]
        ),
        partitions=random.choice([None, None, 1, 2, 3, 5, 9]),
        adaptive=random.random() < 0.6,
        broadcast_limit=random.choice([None, 0, 0, 100, 5000]),
        slice_rows=random.choice([3, 3, 50, 1000]),
        planner=planner,
    )


def _disturbance(random: Random, options: Options) -> Disturbance | None:
    if options.isolation == "process" and options.agents > 1 and random.random() < 0.04:
        return Disturbance("kill", random.choice([1, 5, 10, 20, 40, 80]))
    if random.random() < 0.03:
        return Disturbance(random.choice(["cancel", "timeout"]), random.choice([0, 1, 3, 6, 10, 15, 30]))
    return Disturbance("beside", 0) if random.random() < 0.03 else None


def _sources(tables: Sequence[Table]) -> list[Source]:
    """What queries may read, with the types that DuckDB sees in the tables as they are kept."""
    described = {}
    with TemporaryDirectory() as directory, duckdb.connect() as connection:
        for statement in store(tables, Path(directory)).plain:
            connection.execute(statement)
        for table in tables:
            columns = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table.name})").fetchall()
            rows = table.rows if isinstance(table.rows, int) else len(table.rows)
            described[table.name] = (columns, rows)
    return sources_of(described)
