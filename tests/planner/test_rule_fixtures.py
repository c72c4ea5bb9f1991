"""Every rule does to a plan what its fixture says, and leaves alone what it must."""

from __future__ import annotations

import pytest

from sabot_planner.logical.rules.apply import RULES
from tests.planner.context import FakeContext
from tests.planner.rule_fixtures import FOLDER, Case, cases, made, path_of

pytestmark = pytest.mark.fast

BY_NAME = {rule.__name__: rule for rule in RULES}
CASES = [case for rule in RULES for case in cases(rule)]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.rule}: {case.title}" for case in CASES])
def test_a_rule_does_what_its_fixture_says(context: FakeContext, case: Case) -> None:
    assert made(context, BY_NAME[case.rule], case) == case


def test_every_rule_has_a_fixture_of_its_name() -> None:
    assert sorted(FOLDER.iterdir()) == sorted(map(path_of, RULES))
    for rule in RULES:
        outcomes = {case.after is None for case in cases(rule)}
        assert outcomes == {True, False}, f"{rule.__name__} needs a case that it changes and one that it must not"
