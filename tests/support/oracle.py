"""Plain DuckDB as the judge of what a query gives, and of what about it is determined at all.

Some answers depend on the order of the input: a LIMIT among ties, ``first``, an unordered ``list``, running sums of
doubles. An answer that differs from DuckDB's own is wrong only where DuckDB agrees with itself on permuted copies of
the input and without its optimizer; :meth:`Oracle.judge` gives the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import duckdb
from sqlglot import exp

from sabot_planner.errors import PlannerError
from sabot_planner.sql.dialect import call, function_call, parse_exported, to_sql
from tests.support.compare import Row, Rows, difference, exact_key, unmatched

PERMUTATIONS = 8
"""Few rows come in the same order by chance; the copies are made only for an answer that differs."""


class Verdict(StrEnum):
    """How an answer compares."""

    EQUAL = "equal"
    ADMISSIBLE = "admissible"
    """Differs, but only in what DuckDB leaves open."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Expectation:
    """DuckDB's answer; ``tie_groups`` are the lengths of the runs of rows that a top-level ORDER BY leaves equal."""

    answer: Rows
    tie_groups: tuple[int, ...] | None = None


@dataclass(slots=True)
class Oracle:
    """One DuckDB database, made by ``setup``; statements run on it are remembered for the permuted copies.

    An answer of more than ``most_rows`` is an error, before they become Python's.
    """

    setup: Sequence[str] = ()
    threads: int = 2
    memory_limit: str = "4GB"
    most_rows: int = 10_000_000
    _connection: duckdb.DuckDBPyConnection = field(init=False)
    _history: list[str] = field(init=False, default_factory=list)
    _expected: dict[str, Expectation] = field(init=False, default_factory=dict)
    _parameters: Mapping[str, Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._connection = duckdb.connect(config={"threads": self.threads, "memory_limit": self.memory_limit})
        for statement in self.setup:
            self.execute(statement)

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """Stop what :meth:`execute` or :meth:`expect` runs in another thread."""
        self._connection.interrupt()

    def settle(self) -> None:
        """Let an interrupt that came after the end of its statement hit nothing that counts."""
        with suppress(duckdb.InterruptException):
            self._connection.execute("SELECT 1").fetchall()

    def execute(self, statement: str) -> Rows:
        """Run a statement that changes the database; what it returns."""
        returned = self._fetch(statement)
        self._history.append(statement)
        self._expected.clear()
        return returned

    def bind(self, parameters: Mapping[str, Any] | None) -> None:
        """Give the queries that follow the values of their parameters."""
        self._parameters = parameters or None
        self._expected.clear()

    def expect(self, sql: str) -> Expectation:
        """What plain DuckDB answers."""
        if sql not in self._expected:
            answer = self._fetch(sql, self._parameters)
            self._expected[sql] = Expectation(answer, self._tie_groups(sql, answer))
        return self._expected[sql]

    def arrow_schema(self, sql: str) -> Any:
        """The schema of the Arrow table that plain DuckDB makes of a query without parameters."""
        self._connection.complete()  # of a statement before that gave no rows
        return self._connection.sql(f"SELECT * FROM ({sql}) LIMIT 0").to_arrow_table().schema

    def judge(self, sql: str, actual: Rows) -> tuple[Verdict, str]:
        """Whether ``actual`` is an answer that DuckDB might have given, and the difference to the one it gave."""
        expected = self.expect(sql)
        found = difference(expected.answer, actual, expected.tie_groups)
        if found is None:
            return Verdict.EQUAL, ""
        if len(expected.answer.rows) != len(actual.rows) or expected.answer.types != actual.types:
            return Verdict.WRONG, found
        free = self._free_choice(sql, expected, actual)
        if free is None:
            free = self._agrees_where_determined(sql, expected.answer, actual)
        return Verdict.ADMISSIBLE if free else Verdict.WRONG, found

    def variants(self, sql: str) -> list[Rows | duckdb.Error]:
        """What plain DuckDB gives without its optimizer, and on permuted copies: answers or errors."""
        given: list[Rows | duckdb.Error] = [self._unoptimised(sql)]
        for seed in range(1, PERMUTATIONS + 1):
            rows = self._permuted(sql, seed)
            given.append(duckdb.Error("it failed on a permuted copy") if rows is None else rows)
        return given

    def _unoptimised(self, sql: str) -> Rows | duckdb.Error:
        self._connection.execute("PRAGMA disable_optimizer")
        try:
            return self._fetch(sql, self._parameters)
        except duckdb.Error as error:
            return error
        finally:
            self._connection.execute("PRAGMA enable_optimizer")

    # --- order

    def _tie_groups(self, sql: str, answer: Rows) -> tuple[int, ...] | None:
        """Lengths of the runs of equal sort keys, read off the exported plan with its sort keys added as columns."""
        tree = _ordered_part(exported(self._connection, sql, self._parameters)) if self._promises_order(sql) else None
        if tree is None:
            return None
        keys = [ordered.args["this"] for ordered in tree.args["order"].args["expressions"]]
        names = [f"__sort_key_{i}" for i in range(len(keys))]
        tree.args["expressions"].extend(
            exp.Alias(this=key.copy(), alias=name) for key, name in zip(keys, names, strict=True)
        )
        try:
            rows = self._fetch(to_sql(tree)).rows
        except duckdb.Error:
            return None
        if len(rows) != len(answer.rows):
            return None
        return tuple(_runs([exact_key(row[len(answer.columns) :]) for row in rows]))

    def _fetch(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Rows:
        return fetch(self._connection, sql, parameters, self.most_rows)

    def _promises_order(self, sql: str) -> bool:
        (text,) = self._connection.execute("SELECT json_serialize_sql($1)", [sql]).fetchone() or ("{}",)
        node = json.loads(text).get("statements", [{"node": {}}])[0]["node"]
        return any(modifier["type"] == "ORDER_MODIFIER" for modifier in node.get("modifiers", ()))

    def _free_choice(self, sql: str, expected: Expectation, actual: Rows) -> bool | None:
        """Whether ``actual`` is a choice that the query's own LIMIT leaves: rows of the unlimited answer, in order.

        None where the query has no LIMIT of its own, or where the unlimited answer is not determined either.
        """
        tree = exported(self._connection, sql, self._parameters)
        if tree is None or (tree.args.get("limit") is None and tree.args.get("offset") is None):
            return None
        keys = _visible_keys(tree) if tree.args.get("order") is not None else []
        tree.set("limit", None)
        tree.set("offset", None)
        unlimited = self._fetch(to_sql(tree))
        if not unmatched(unlimited.rows, actual.rows, actual.types)[1]:
            if expected.tie_groups is None:
                return True
            return _keys_of(expected.answer, keys) == _keys_of(actual, keys)
        others = [self._permuted(to_sql(tree), seed) for seed in range(1, PERMUTATIONS + 1)]
        return False if _agree([unlimited, *(rows for rows in others if rows is not None)]) else None

    # --- permuted copies

    def _agrees_where_determined(self, sql: str, answer: Rows, actual: Rows) -> bool:
        others = [self._permuted(sql, seed) for seed in range(1, PERMUTATIONS + 1)]
        # Which of several most frequent values ``mode`` takes depends on statistics, for instance.
        known = [answer, *(rows for rows in (*others, self._unoptimised(sql)) if isinstance(rows, Rows))]
        if len(known) == 1:
            return False
        if all(difference(known[0], rows) is None for rows in known[1:]):
            return False  # everything is determined, and actual differs
        if len({len(rows.rows) for rows in known}) > 1:
            return True
        for view in (_sorted_lists, lambda rows: rows):
            seen = [view(rows) for rows in known]
            kept = [i for i in range(len(answer.columns)) if _agree([rows.project([i]) for rows in seen])]
            if _agree([rows.project(kept) for rows in seen]):
                return difference(seen[0].project(kept), view(actual).project(kept)) is None
        return True

    def _permuted(self, sql: str, seed: int) -> Rows | None:
        """The answer on a copy of the database whose tables hold their rows in another order."""
        if "rowid" in sql.lower():
            return None
        with duckdb.connect(config={"threads": 1 + seed % 2, "memory_limit": self.memory_limit}) as copy:
            for statement in self._history:
                copy.execute(statement)
            tables = copy.execute(
                "SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE NOT internal"
            ).fetchall()
            for database, schema, table in tables:
                _permute(
                    copy, ".".join('"' + part.replace('"', '""') + '"' for part in (database, schema, table)), seed
                )
            try:
                parameters = self._parameters if "$" in sql else None  # what is exported has none
                tree = exported(copy, sql, parameters)
                if tree is not None and _break_ties(tree, seed):
                    return fetch(copy, to_sql(tree), None, self.most_rows)
                return fetch(copy, sql, parameters, self.most_rows)
            except duckdb.Error:
                return None


def exported(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """DuckDB's plan of a query as a tree, or None where there is none."""
    # Late materialisation hides the LIMIT in a semi-join on row ids.
    connection.execute("SET disabled_optimizers = 'late_materialization'")
    try:
        (row,) = connection.execute(f"EXPLAIN (SQL) {sql}", parameters).fetchall()
        return parse_exported(row[1])
    except (duckdb.Error, PlannerError, ValueError):
        return None
    finally:
        connection.execute("RESET disabled_optimizers")


def fetch(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Any] | None = None,
    most_rows: int = 10_000_000,
) -> Rows:
    """The answer of one query.

    Raises:
        duckdb.OutOfMemoryException: it has more than ``most_rows`` rows.
    """
    relation = connection.execute(sql, parameters)
    description = relation.description or []
    rows = relation.fetchmany(most_rows + 1) if description else []
    if len(rows) > most_rows:
        connection.abort()
        raise duckdb.OutOfMemoryException(f"more than {most_rows} rows")
    return Rows(
        tuple(column[0] for column in description),
        tuple(str(column[1]) for column in description),
        tuple(rows),
    )


def _permute(connection: duckdb.DuckDBPyConnection, table: str, seed: int) -> None:
    order = "rowid DESC" if seed == 1 else f"hash(rowid + {seed})"
    try:
        connection.execute("BEGIN")
        connection.execute(f"CREATE TEMP TABLE __permuted AS SELECT * FROM {table} ORDER BY {order}")
        connection.execute(f"DELETE FROM {table}")
        connection.execute(f"INSERT INTO {table} SELECT * FROM __permuted")
        connection.execute("DROP TABLE __permuted")
        connection.execute("COMMIT")
    except duckdb.Error:
        connection.execute("ROLLBACK")  # a table with keys or generated columns keeps its order


# Windows functions that go by position whatever their frame is.
_POSITIONAL = frozenset({"row_number", "ntile", "lag", "lead"})
_RANKS = frozenset({"rank", "dense_rank", "rank_dense", "percent_rank", "cume_dist"})


def _break_ties(tree: Any, seed: int) -> bool:
    """Order the ties of windows that count rows at random: which comes first is the choice of an implementation.

    DuckDB itself makes it by the windows it sorted before, whatever the order of the input.
    """
    broken = False
    for window in list(tree.find_all(exp.Window)):
        name, _ = function_call(window) or ("", [])
        order, frame = window.args.get("order"), window.args.get("spec")
        by_rows = frame is not None and frame.args["kind"] == "ROWS" and name not in _RANKS
        if order is not None and (by_rows or name in _POSITIONAL):
            rows = [
                exp.Column(this=exp.to_identifier(name)) for name in _relation_names(window.find_ancestor(exp.Select))
            ]
            key = call("hash", *rows, exp.Literal(this=str(seed), is_string=False))
            order.append("expressions", exp.Ordered(this=key, desc=False, nulls_first=False))
            broken = True
    return broken


def _relation_names(select: Any) -> list[str]:
    from_ = select.args.get("from_")
    relations = [from_.args["this"]] if from_ is not None else []
    relations += [join.args["this"] for join in select.args.get("joins") or ()]
    return [
        alias.args["this"].args["this"] for alias in (each.args.get("alias") for each in relations) if alias is not None
    ]


def _keys_of(answer: Rows, keys: Sequence[int]) -> list[Any]:
    return [exact_key(tuple(row[i] for i in keys)) for row in answer.rows]


def _agree(answers: Sequence[Rows]) -> bool:
    return all(difference(answers[0], answer) is None for answer in answers[1:])


def _sorted_lists(answer: Rows) -> Rows:
    def canonical(value: Any) -> Any:
        if isinstance(value, list):
            return sorted(map(canonical, value), key=repr)
        return value

    rows: tuple[Row, ...] = tuple(tuple(map(canonical, row)) for row in answer.rows)
    return Rows(answer.columns, answer.types, rows)


def _ordered_part(tree: Any) -> Any:
    """The select of the exported plan that sorts the rows of the result, below nothing but projections."""
    while type(tree) is exp.Select and tree.args.get("order") is None:
        args = tree.args
        if any(args.get(clause) for clause in ("joins", "where", "group", "distinct", "limit", "offset", "sample")):
            return None
        from_ = args.get("from_")
        if from_ is None or type(from_.args["this"]) is not exp.Subquery:
            return None
        tree = from_.args["this"].args["this"]
    return tree if type(tree) is exp.Select and tree.args.get("distinct") is None else None


def _runs(keys: Sequence[Any]) -> list[int]:
    runs: list[int] = []
    previous: Any = object()
    for key in keys:
        if key == previous:
            runs[-1] += 1
        else:
            runs.append(1)
        previous = key
    return runs


def _visible_keys(tree: Any) -> list[int]:
    """Positions of the select list that are sort keys themselves, up to the first sort key that is not selected."""
    texts = [to_sql(item.args["this"] if type(item) is exp.Alias else item) for item in tree.args["expressions"]]
    positions = []
    for ordered in tree.args["order"].args["expressions"]:
        key = ordered.args["this"]
        while type(key) is exp.Collate:
            key = key.args["this"]
        text = to_sql(key)
        if text not in texts:
            break
        positions.append(texts.index(text))
    return positions
