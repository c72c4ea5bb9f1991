"""State directories for tests, whose durable hosts end with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sabot_sql
from sabot_sql.detached.state_directory import StateDirectory
from tests.support.durable_hosts import state_directory


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    """A state directory for this test alone, whose host it may treat as it likes."""
    with state_directory(tmp_path / "state") as found:
        yield found


@pytest.fixture(scope="module")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateDirectory]:
    """A state directory whose one host serves all tests of a module that only ask it."""
    with state_directory(tmp_path_factory.mktemp("shared") / "state") as found:
        yield found


@pytest.fixture
def session() -> Iterator[sabot_sql.Session]:
    """Two thread agents."""
    with sabot_sql.connect(agents=2, memory_limit="2GiB") as session:
        yield session
