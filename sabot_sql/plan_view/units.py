"""Numbers as people read them: counts, bytes, durations."""

from __future__ import annotations

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_COUNT_UNITS = ("", "K", "M", "G", "T")


def _three_digits(value: float) -> str:
    """``value`` with a decimal only while it is below ten."""
    text = f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
    return text.removesuffix(".0")


def _scaled(value: float, units: tuple[str, ...], gap: str) -> str:
    rank = 0
    while value >= 999.5 and rank < len(units) - 1:
        value /= 1000
        rank += 1
    number = _three_digits(value) if rank else f"{value:.0f}"
    return f"{number}{gap}{units[rank]}".rstrip()


def bytes_text(size_bytes: int) -> str:
    """Decimal units: ``84 MB``, ``1.2 GB``."""
    return _scaled(float(size_bytes), _BYTE_UNITS, " ")


def count_text(count: int) -> str:
    """Every digit, in groups: ``1,234,567``."""
    return f"{count:,}"


def short_count_text(count: int) -> str:
    """About three digits: ``1.2 M``, for places where room is short."""
    return _scaled(float(count), _COUNT_UNITS, "\N{NO-BREAK SPACE}").rstrip("\N{NO-BREAK SPACE}")


def duration_text(elapsed_ms: float) -> str:
    """``<1 ms``, ``340 ms``, ``1.2 s``, ``2 min 05 s``, ``3 h 07 min``."""
    if elapsed_ms < 1:
        return "<1 ms"
    if elapsed_ms < 999.5:
        return f"{elapsed_ms:.0f} ms"
    seconds = elapsed_ms / 1000
    if seconds < 59.5:
        return f"{_three_digits(seconds)} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest:02d} min"


def plural(count: int, noun: str) -> str:
    """``1 shuffle``, ``3 shuffles``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
