"""Which names a statement may mean, by its text: one too many costs a copy, one too few would cost rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_ANY_TABLE = ("query", "query_table", "json_execute_serialized_sql")
"""Functions whose arguments name tables, and may be computed."""


class MentionedNames:
    """The names that may be meant by a text of SQL, and by the views and macros that it names; ``in`` asks for one.

    A name of letters and digits has to stand there as a word, any other one anywhere, in whatever quotes.
    """

    def __init__(self, text: str, bodies: Iterable[tuple[str, str | None]]) -> None:
        """``bodies`` are the names of all views and macros, with their SQL."""
        self._text = _folded(text)
        self._any_table = self._calls_any()
        left = list(bodies)
        while named := [body for body in left if body[0] in self]:
            left = [body for body in left if body not in named]
            self._text = "\n".join([self._text, *(_folded(sql) for _, sql in named if sql)])
            self._any_table = self._any_table or self._calls_any()

    def __contains__(self, name: Any) -> bool:
        return self._any_table or self.has_word(name)

    def has_word(self, name: str) -> bool:
        """Whether the name itself stands there."""
        sought = name.lower()
        if sought not in self._text:
            return False
        begin = r"(?<!\w)" if re.match(r"\w", sought) else ""
        end = r"(?!\w)" if re.search(r"\w\Z", sought) else ""
        return re.search(f"{begin}{re.escape(sought)}{end}", self._text) is not None

    def _calls_any(self) -> bool:
        return any(map(self.has_word, _ANY_TABLE))


def _folded(text: str) -> str:
    """The text in lower case, also as it reads where quotes within quotes are written twice."""
    lower = text.lower()
    plain = lower.replace('""', '"').replace("''", "'")
    return lower if plain == lower else f"{lower}\n{plain}"
