"""Text that a terminal may be given: what is not a visible character is written as its escape."""

from __future__ import annotations

import unicodedata

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with control and direction characters and lone surrogates escaped, except those of ``keep``."""
    if text.isprintable():
        return text
    return "".join(character if character in keep else visible(character) for character in text)


def visible(character: str) -> str:
    """One character, or the escape that stands for it: it would steer a terminal or reorder a line."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{{{code:x}}}"
