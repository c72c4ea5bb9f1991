"""Numbers as people read them."""

from __future__ import annotations

import pytest

from sabot_sql.plan_view import units

pytestmark = pytest.mark.fast

SPACE = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.2 kB"), (9949, "9.9 kB"), (9950, "10 kB")],
        *[
            (84_000_000, "84 MB"),
            (999_499, "999 kB"),
            (999_500, "1 MB"),
            (1_234_567_890, "1.2 GB"),
            (10**18, "1000 PB"),
        ],
    ],
)
def test_bytes(value: int, text: str) -> None:
    assert units.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0, "<1 ms"), (0.99, "<1 ms"), (1, "1 ms"), (340.4, "340 ms"), (999.4, "999 ms"), (999.5, "1 s")],
        *[(1234, "1.2 s"), (59_400, "59 s"), (59_600, "1 min 00 s"), (125_000, "2 min 05 s")],
        *[(3_599_600, "1 h 00 min"), (11_220_000, "3 h 07 min")],
    ],
)
def test_durations(value: float, text: str) -> None:
    assert units.duration_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, f"1{SPACE}K"), (3_241_776, f"3.2{SPACE}M"), (10**13, f"10{SPACE}T")],
)
def test_short_counts(value: int, text: str) -> None:
    assert units.short_count_text(value) == text


def test_counts_and_plurals() -> None:
    assert units.count_text(1_234_567) == "1,234,567"
    assert units.plural(1, "shuffle") == "1 shuffle"
    assert units.plural(1000, "row") == "1,000 rows"
