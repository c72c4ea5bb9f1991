"""The 22 TPC-H queries give on agents what they give on plain DuckDB, and all of them are distributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from sabot_sql import config
from tests.support.budgets import budget
from tests.support.engine import answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.tpch.data import queries, tpch, views

SCALE = 0.01
"""Every table is one row group or two: from two agents on there are more agents than row groups."""

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "one agent": {"agents": 1},
    "two agents": {"agents": 2},
    "three agents, all hashed": {"agents": 3, "partitions": 5, "adaptive": False, "broadcast_limit": 0},
    "four agents": {"agents": 4, "broadcast_limit": "64KiB"},
    "two agents, tiny pools": {"agents": 2, "adaptive": False, "broadcast_limit": 0},
    "one process": {"agents": 1, "isolation": "process"},
    "two processes": {"agents": 2, "isolation": "process", "broadcast_limit": "64KiB"},
    "three processes, tiny pools": {"agents": 3, "isolation": "process", "adaptive": False, "broadcast_limit": 0},
    "four processes": {"agents": 4, "isolation": "process"},
}
TINY_POOL_SHARE = 0.0003
"""Of 256 MiB: 80 kB for the pools of all agents together, so that every edge of more than a few rows is spilled."""
SPILLING = ("q03", "q05", "q08", "q09", "q17", "q18", "q21")
"""Queries that move more than a megabyte at this scale."""

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
        yield {name: stack.enter_context(_session(name, setup)) for name in CONFIGURATIONS}


@contextmanager
def _session(name: str, setup: list[str]) -> Iterator[Any]:
    options = dict(CONFIGURATIONS[name])
    with pytest.MonkeyPatch.context() as patch:
        if "tiny" in name:
            # There is no option for it: a user's budget is divided by fixed shares.
            patch.setattr(config, "_SHUFFLE_SHARE", TINY_POOL_SHARE)
            options["memory_limit"] = budget("256MiB", **options)
        with session(setup, **options) as made:
            yield made


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", QUERIES)
def test_query(name: str, configuration: str, oracle: Oracle, sessions: dict[str, Any]) -> None:
    given = answer(sessions[configuration], QUERIES[name])
    verdict, found = oracle.judge(QUERIES[name], given.rows)
    assert verdict is Verdict.EQUAL, f"{given.mode}: {given.reason}\n{found}"
    wanted = "single" if CONFIGURATIONS[configuration]["agents"] == 1 else "distributed"
    assert given.mode == wanted, given.reason


@pytest.mark.parametrize("configuration", [name for name in CONFIGURATIONS if "tiny" in name])
@pytest.mark.parametrize("name", SPILLING)
def test_edges_spill_where_the_pools_are_tiny(name: str, configuration: str, sessions: dict[str, Any]) -> None:
    stats = sessions[configuration].query(QUERIES[name]).stats
    assert stats["spilled_bytes"] > stats["bytes_shuffled"] / 2
