"""The tokens of a statement of the user's, as DuckDB's own tokenizer sees them."""

from __future__ import annotations

from collections.abc import Collection

import duckdb

_OPENING = ("(", "[", "{")
_CLOSING = (")", "]", "}")


class StatementTokens:
    """The tokens of a statement without comments, and a place among them."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()
        found = duckdb.tokenize(text)
        ends = [offset for offset, _ in found][1:] + [len(self._data)] * bool(found)
        self._spans = [
            (offset, offset + len(self._data[offset:end].rstrip()))
            for (offset, kind), end in zip(found, ends, strict=True)
            if kind is not duckdb.token_type.comment
        ]
        self.position = 0
        self.end = len(self._spans)
        while self.end and self.word(self.end - 1) == ";":
            self.end -= 1

    def word(self, position: int | None = None) -> str:
        """The token at ``position``, in capitals unless it is quoted; nothing past the end."""
        at = self.position if position is None else position
        if not 0 <= at < len(self._spans):
            return ""
        first, last = self._spans[at]
        text = self._data[first:last].decode()
        return text if text[:1] in ("'", '"') else text.upper()

    def take(self, word: str) -> bool:
        """Step over ``word`` if it comes now."""
        if self.position < self.end and self.word() == word:
            self.position += 1
            return True
        return False

    def at_end(self) -> bool:
        """Whether only semicolons are left."""
        return self.position >= self.end

    def skip_parentheses(self) -> bool:
        """Step over everything up to the parenthesis that closes the one here."""
        depth = 0
        while self.position < self.end:
            word = self.word()
            self.position += 1
            depth += (word == "(") - (word == ")")
            if depth == 0:
                return True
        return False

    def skip_name(self) -> str | None:
        """Step over a name with up to three parts and return it as it was written."""
        first = self.position
        while True:
            word = self.word()
            if not (word.startswith('"') or word[:1].isalpha() or word[:1] == "_"):
                return None
            self.position += 1
            if not self.take("."):
                break
        return self.text_of(first, self.position) if self.position - first <= 5 else None

    def find(self, words: Collection[str], first: int, last: int | None = None) -> int | None:
        """The first of ``words`` from ``first`` on that stands in no parentheses opened since; None without one.

        A parenthesis that closes one opened before ends the search; it can be searched for itself.
        """
        depth = 0
        for position in range(first, self.end if last is None else last):
            word = self.word(position)
            if depth == 0 and word in words:
                return position
            depth += (word in _OPENING) - (word in _CLOSING)
            if depth < 0:
                return None
        return None

    def depth(self, position: int) -> int:
        """How many parentheses are open at ``position``."""
        words = [self.word(i) for i in range(position)]
        return sum((word in _OPENING) - (word in _CLOSING) for word in words)

    def text_of(self, first: int, last: int) -> str:
        """The text of the tokens [first, last), with what stands between them."""
        if first >= last:
            return ""
        return self._data[self._spans[first][0] : self._spans[last - 1][1]].decode()
