"""Sizes as people read them."""

from __future__ import annotations


def size(size_bytes: int) -> str:
    """A size for people, in decimal units: ``8.4 MB``."""
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
