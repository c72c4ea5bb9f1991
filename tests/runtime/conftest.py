"""Sessions that several test modules use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sabot_sql
from sabot_sql import Session
from tests.runtime.simulated import Simulation

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


@pytest.fixture(autouse=True)
def replayed() -> Iterator[None]:
    """Every simulated query of a test is rebuilt from prefixes of its journal, all of them where those are few."""
    Simulation.made.clear()
    yield
    made = [run for run in Simulation.made if len(run.answers) == len(run.execution.journal.entries)]
    Simulation.made.clear()
    for number, run in enumerate(made):
        entries = len(run.answers)
        # A property makes hundreds of them: another seventh of each one's prefixes.
        run.check_replay(range(entries + 1) if len(made) < 20 else range(number % 7, entries + 1, 7))
