"""A short soak: the same schedule every time. The long one is ``python -m tests.soak``."""

from __future__ import annotations

import random

import pytest

from tests import soak
from tests.support import hosts

pytestmark = pytest.mark.skipif(hosts.why_not() is not None, reason=f"no hosts: {hosts.why_not()}")

SEED = 9
ROUNDS = 4


def test_no_answer_is_wrong_or_missing_while_agents_are_disturbed() -> None:
    tally = soak.soak(SEED, lambda rounds: rounds < ROUNDS)
    assert tally.clean, tally.text()
    assert tally.rounds == ROUNDS


def test_the_schedule_has_every_kind_of_fault() -> None:
    rng = random.Random(SEED)
    drawn = [(rng.choice(range(10)), soak.draw(rng).kind) for _ in range(ROUNDS)]
    assert {"kill", "stop", "cut"} <= {kind for _, kind in drawn}
