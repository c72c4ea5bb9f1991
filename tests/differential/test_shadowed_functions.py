"""A macro named like a function that a fragment calls takes no part in the query: whatever is written is qualified.

Every statement is given as DuckDB exports it, where each function that the user means is qualified. Then all built-in
functions are hidden by macros of their names, and nothing may change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import duckdb
import pytest

from tests.differential.coverage import SETTINGS
from tests.support.engine import answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.statements import as_parquet, own_statements, own_tables

PARQUET = "over Parquet files"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "two agents, all hashed": {"agents": 2, "partitions": 5, **SETTINGS["hash-early"]},
    "two processes": {"agents": 2, "partitions": 3, "isolation": "process", **SETTINGS["hash-early"]},
    f"two agents {PARQUET}": {"agents": 2, "partitions": 3, **SETTINGS["hash"]},
}
STATEMENTS = dict(own_statements())
TRIED = [
    (name, configuration)
    for place, configuration in enumerate(CONFIGURATIONS)
    for number, name in enumerate(STATEMENTS)
    if number % (2, 6, 6)[place] == place  # each takes its time where so many macros are known
]
MOST_PARAMETERS = 7

_QUOTED = re.compile(r"'(?:[^']|'')*'")
_ALIAS = re.compile(r"\bAS \w+\(|\b\w+\([^()]*\) (?:USING KEY \([^()]*\) )?AS (?:NOT )?(?:MATERIALIZED )?\(")
_CALL = re.compile(r'(?<![\w."])("(?:[^"]|"")*"|[A-Za-z_]\w*)\(')
_SYNTAX = re.compile(
    r"CAST|TRY_CAST|COALESCE|AS|IN|ON|OVER|DISTINCT|BY|FILTER|EXCEPT|LIMIT|OFFSET|SETS|VALUES|EXISTS|AND|OR|NOT|WHEN|KEY"
    r"|DECIMAL|STRUCT|MAP|UNION|ENUM|TUPLE|VARCHAR|MATERIALIZED|Bernoulli|Reservoir|System|JOIN|FROM|ALL|INTERSECT"
    r"|THEN|ELSE|SELECT|WHERE|HAVING|USING"
)
_NOT_LOOKED_UP = frozenset({"unnest", "GROUPING"})
"""What DuckDB's binder knows by itself, before any macro."""


def shadows(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """Statements that hide every built-in function, of whatever number of arguments, also where a table is meant."""
    names = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE database_name = 'system' AND schema_name = 'main'"
    ).fetchall()
    lists = [", ".join(f"p{i}" for i in range(count)) for count in range(MOST_PARAMETERS)]
    for (name,) in names:
        quoted = '"' + name.replace('"', '""') + '"'
        yield f"CREATE MACRO {quoted} {', '.join(f'({parameters}) AS 42' for parameters in lists)}"
        yield f"CREATE MACRO {quoted} {', '.join(f'({parameters}) AS TABLE (SELECT 42 AS x)' for parameters in lists)}"


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return {PARQUET: as_parquet(own_tables(), tmp_path_factory.mktemp("tables")), "": own_tables()}


@pytest.fixture(scope="module")
def oracles(setups: dict[str, list[str]]) -> Iterator[dict[str, Oracle]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(Oracle(setup)) for kind, setup in setups.items()}


@pytest.fixture(scope="module")
def exported(setups: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    """The statements as DuckDB exports them, without those whose export DuckDB itself reads otherwise among macros."""
    found: dict[str, dict[str, str]] = {}
    for kind, setup in setups.items():
        with duckdb.connect() as clean, duckdb.connect() as shadowed:
            for statement in setup:
                clean.execute(statement)
                shadowed.execute(statement)
            for statement in list(shadows(clean)):
                shadowed.execute(statement)
            found[kind] = {}
            for name, sql in STATEMENTS.items():
                try:
                    text = clean.execute(f"EXPLAIN (SQL) {sql}").fetchall()[0][1]
                    shadowed.execute(f"EXPLAIN {text}")
                except duckdb.Error:
                    continue
                found[kind][name] = text
    return found


@pytest.fixture(scope="module")
def sessions(setups: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        opened = {}
        for name, options in CONFIGURATIONS.items():
            database = str(tmp_path_factory.mktemp("database") / "memory.db")
            with duckdb.connect(database) as made:
                for statement in [*_of(setups, name), *shadows(made)]:
                    made.execute(statement)
            opened[name] = stack.enter_context(session(database=database, **options))
        yield opened


def _of(by_kind: dict[str, Any], configuration: str) -> Any:
    return by_kind[PARQUET if configuration.endswith(PARQUET) else ""]


@pytest.mark.parametrize(("name", "configuration"), TRIED)
def test_macros_named_like_all_functions_change_no_answer(
    name: str, configuration: str, exported: dict[str, dict[str, str]], oracles: dict[str, Oracle], sessions: Any
) -> None:
    sql = _of(exported, configuration).get(name)
    if sql is None:
        pytest.skip("DuckDB's own export of the statement calls what macros hide")
    given = answer(sessions[configuration], sql)
    assert not given.fell_back, f"{sql}\n{given.reason}"
    verdict, found = _of(oracles, configuration).judge(sql, given.rows)
    assert verdict is not Verdict.WRONG, f"{sql}\n{given.mode}: {given.reason}\n{found}"
    if given.mode == "distributed":
        for stage in given.plan["stages"]:
            assert unqualified(stage["sql"]) == set(), stage["sql"]


def test_most_statements_are_tried_and_distributed(exported: dict[str, dict[str, str]], sessions: Any) -> None:
    texts = exported[""]
    assert len(texts) > 0.9 * len(STATEMENTS)
    modes = [answer(sessions["two agents, all hashed"], sql).mode for sql in list(texts.values())[::8]]
    assert modes.count("distributed") > 0.7 * len(modes)


def unqualified(sql: str) -> set[str]:
    """What the text calls by a bare name that a macro could take."""
    found = _CALL.findall(_ALIAS.sub("", _QUOTED.sub("''", sql)))
    return {name for name in found if not _SYNTAX.fullmatch(name)} - _NOT_LOOKED_UP


def test_a_bare_call_is_found() -> None:
    assert unqualified("""SELECT "system".main.sum(x) AS c1, 'f(', hash(c2) FROM e0 AS t1(c1)""") == {"hash"}
