"""Samples of large products of cases: continuous integration runs one, ``tasks.py full`` the product."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def pairs_covered(first: Iterable[Any], second: Iterable[Any], third: Iterable[Any]) -> list[Any]:
    """The product as parameters, of which those that complete no pair are marked ``full``.

    As in a Latin square, every pair of values of two dimensions stays, as far as the third is long enough.
    """
    firsts, seconds, thirds = list(first), list(second), list(third)
    found = []
    for i, one in enumerate(firsts):
        for j, two in enumerate(seconds):
            for k, three in enumerate(thirds):
                marks = () if (i + j) % len(thirds) == k else (pytest.mark.full,)
                found.append(pytest.param(one, two, three, marks=marks))
    return found
