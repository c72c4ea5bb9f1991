"""Every statement of the repository's own suite gives on agents what it gives on plain DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.differential.coverage import SETTINGS
from tests.support.engine import answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.statements import as_parquet, own_statements, own_tables

PARQUET = "over Parquet files"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "one agent": {"agents": 1},
    "two agents, decided late": {"agents": 2, "partitions": 3, **SETTINGS["late"]},
    "two agents, all hashed": {"agents": 2, "partitions": 5, **SETTINGS["hash-early"]},
    "three agents, hashed late": {"agents": 3, "partitions": 4, **SETTINGS["hash"]},
    "three agents, little memory": {"agents": 3, "partitions": 7, **SETTINGS["spill"]},
    "two processes": {"agents": 2, "partitions": 3, "isolation": "process", **SETTINGS["hash-early"]},
    f"two agents {PARQUET}": {"agents": 2, "partitions": 3, **SETTINGS["hash"]},
    f"two processes {PARQUET}": {"agents": 2, "isolation": "process"},
}
STATEMENTS = dict(own_statements())


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return {PARQUET: as_parquet(own_tables(), tmp_path_factory.mktemp("tables")), "": own_tables()}


@pytest.fixture(scope="module")
def oracles(setups: dict[str, list[str]]) -> Iterator[dict[str, Oracle]]:
    with ExitStack() as stack:
        yield {kind: stack.enter_context(Oracle(setup)) for kind, setup in setups.items()}


@pytest.fixture(scope="module")
def sessions(setups: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(session(_of(setups, name), **options)) for name, options in CONFIGURATIONS.items()
        }


def _of(by_kind: dict[str, Any], configuration: str) -> Any:
    return by_kind[PARQUET if configuration.endswith(PARQUET) else ""]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", STATEMENTS)
def test_statement(name: str, configuration: str, oracles: dict[str, Oracle], sessions: dict[str, Any]) -> None:
    given = answer(sessions[configuration], STATEMENTS[name])
    assert not given.fell_back, f"{STATEMENTS[name]}\n{given.reason}"
    verdict, found = _of(oracles, configuration).judge(STATEMENTS[name], given.rows)
    assert verdict is not Verdict.WRONG, f"{STATEMENTS[name]}\n{given.mode}: {given.reason}\n{found}"


def test_most_statements_are_distributed(sessions: dict[str, Any]) -> None:
    modes = [answer(sessions["two agents, all hashed"], sql).mode for sql in STATEMENTS.values()]
    assert modes.count("distributed") > 0.7 * len(modes)
