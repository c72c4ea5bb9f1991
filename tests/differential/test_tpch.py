"""The 22 TPC-H queries give on agents what they give on plain DuckDB, and all of them are distributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.engine import answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.tpch.data import queries, tpch, views

SCALE = 0.01
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "two agents": {"agents": 2},
    "three agents, all hashed": {"agents": 3, "partitions": 5, "adaptive": False, "broadcast_limit": 0},
    "two processes": {"agents": 2, "isolation": "process", "broadcast_limit": "64KiB"},
}
QUERIES = queries()


@pytest.fixture(scope="module")
def setup() -> list[str]:
    return views(tpch(SCALE))


@pytest.fixture(scope="module")
def oracle(setup: list[str]) -> Iterator[Oracle]:
    with Oracle(setup) as judge:
        yield judge


@pytest.fixture(scope="module")
def sessions(setup: list[str]) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(setup, **options)) for name, options in CONFIGURATIONS.items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", QUERIES)
def test_query(name: str, configuration: str, oracle: Oracle, sessions: dict[str, Any]) -> None:
    given = answer(sessions[configuration], QUERIES[name])
    verdict, found = oracle.judge(QUERIES[name], given.rows)
    assert verdict is Verdict.EQUAL, f"{given.mode}: {given.reason}\n{found}"
    assert given.mode == "distributed", given.reason
