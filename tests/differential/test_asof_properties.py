"""Random ASOF joins without equal keys, over ranges that may be empty on either side, give what plain DuckDB gives.

Of rows of the right side that are equal in the compared value any may be taken, so only that value is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential import generated
from tests.support.engine import assert_same_as_duckdb, sessions

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "three ranges": {"agents": 2, "partitions": 3, "adaptive": False, "broadcast_limit": 0},
    "many ranges": {"agents": 3, "partitions": 9, "adaptive": True, "broadcast_limit": 0},
    "copied": {"agents": 2, "partitions": 3, "adaptive": True},
}
KEYS = [("k", "k"), ("h", "k"), ("d", "d"), ("f", "f"), ("d", "f"), ("s", "s"), ("t", "t")]


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Any]]:
    with sessions(CONFIGURATIONS) as opened:
        yield opened


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(
    setup=generated.tables(),
    kind=st.sampled_from(["ASOF JOIN", "ASOF LEFT JOIN"]),
    keys=st.sampled_from(
        [("k", "k"), ("h", "k"), ("d", "d"), ("f", "f"), ("d", "f"), ("s", "s"), ("t", "t"), ("h * 2", "h")]
    ),
    operator=st.sampled_from([">=", ">", "<=", "<"]),
    turned=st.booleans(),
    name=st.sampled_from(sorted(CONFIGURATIONS)),
)
def test_random_asof_joins(
    opened: dict[str, Any],
    setup: list[str],
    kind: str,
    keys: tuple[str, str],
    operator: str,
    turned: bool,
    name: str,
) -> None:
    left, right = f"a.{keys[0]}", f"b.{keys[1]}"
    condition = f"{right} {operator} {left}" if turned else f"{left} {operator} {right}"
    sql = f"SELECT a.id, {left}, {right} FROM a {kind} b ON {condition}"
    assert_same_as_duckdb(opened[name], setup, sql)
