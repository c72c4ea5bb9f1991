"""Text that is safe to print and not too long."""

from __future__ import annotations

import unicodedata

from sabot_sql.plan_view.units import bytes_text

NO_MATH = "tex2jax_ignore mathjax_ignore"
"""Classes of HTML that keep notebooks from reading ``$`` in it as mathematics."""


def printable(line: str) -> str:
    """``line`` without characters that would act on a terminal: they are shown by their codes."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else f"\\x{ord(c):02x}" for c in line)


def capped(text: str, limit_bytes: int) -> str:
    """``text``, or its first lines with a last one that says that more was there."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit_bytes:
        return text
    note = f"… cut at {bytes_text(limit_bytes)} of {bytes_text(len(encoded))}"
    kept = encoded[: max(0, limit_bytes - len(note.encode()) - 1)].decode(errors="ignore")
    head, newline, _ = kept.rpartition("\n")
    return f"{head if newline else kept}\n{note}"


def faint(percent: int) -> str:
    """The declaration of a colour that stands back a little: text of ``percent`` of its strength.

    Unlike ``opacity`` it makes no layer of its own, so what checks a page can tell what the text stands on. A viewer
    that does not know it shows the text at its full strength.
    """
    return f"color:color-mix(in srgb,currentColor {percent}%,transparent)"
