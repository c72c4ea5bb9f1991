"""Sessions that several test modules use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sabot_sql
from sabot_sql import Session

KINDS = [(1, "thread"), (2, "thread"), (3, "process")]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A session of every kind, one after the other."""
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as opened:
        yield opened


@pytest.fixture
def single() -> Iterator[Session]:
    """A session that leaves everything to DuckDB."""
    with sabot_sql.connect() as opened:
        yield opened
