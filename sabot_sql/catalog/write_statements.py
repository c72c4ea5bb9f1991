"""Statements that write what a query gives: where the query stands in the text, and where its rows go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True, slots=True)
class CopyTo:
    """``COPY (query) TO 'path' options``; ``options`` are the user's text, parentheses included, or nothing."""

    query: str
    path: str
    options: str

    def over(self, query: str, options: Sequence[str]) -> str:
        """The statement that writes ``query`` instead, with ``options``."""
        listed = f" ({', '.join(options)})" if options else ""
        return f"COPY ({query}) TO {_literal(self.path)}{listed}"

    def chosen(self) -> dict[str, str]:
        """Option → its text without quotes, empty where it has none."""
        parts = [option.split(None, 1) for option in self.option_list()]
        return {name.upper(): rest[0].strip("'") if rest else "" for name, *rest in parts}

    def option_list(self) -> list[str]:
        """Each option as the user wrote it, ``FORMAT parquet``."""
        tokens = _Tokens(self.options)
        options: list[str] = []
        depth, first = 0, 1
        for position in range(tokens.end):
            word = tokens.word(position)
            depth += (word in _OPENING) - (word in _CLOSING)
            if (word == "," and depth == 1) or depth == 0:
                options.append(tokens.text_of(first, position))
                first = position + 1
        return options


@dataclass(frozen=True, slots=True)
class CreateTableAs:
    """``CREATE TABLE target AS query``; ``head`` is the text before the query, without IF NOT EXISTS."""

    query: str
    head: str
    target: str


_OPENING = ("(", "[", "{")
_CLOSING = (")", "]", "}")


def parse_write(text: str) -> CopyTo | CreateTableAs | None:
    """The parts of a statement that writes a query's rows; None for any other, and wherever there is a doubt.

    DuckDB's own tokenizer tells what is a word, a string or a comment.
    """
    tokens = _Tokens(text)
    if tokens.take("COPY"):
        return _copy(tokens)
    if tokens.take("CREATE"):
        return _create(tokens)
    return None


def _copy(tokens: _Tokens) -> CopyTo | None:
    if tokens.word() == "(":
        first = tokens.position + 1
        if not tokens.skip_parentheses():
            return None
        query = tokens.text_of(first, tokens.position - 1)
    else:
        name = tokens.skip_name()
        if name is None:
            return None
        query = f"FROM {name}"
    if not tokens.take("TO") or not tokens.word().startswith("'"):
        return None
    path = tokens.word()[1:-1].replace("''", "'")
    tokens.position += 1
    tokens.take("WITH")
    options = ""
    if tokens.word() == "(":
        first = tokens.position
        if not tokens.skip_parentheses():
            return None
        options = tokens.text_of(first, tokens.position)
    return CopyTo(query, path, options) if tokens.at_end() else None


def _create(tokens: _Tokens) -> CreateTableAs | None:
    replaces = tokens.take("OR")
    if replaces and not tokens.take("REPLACE"):
        return None
    temporary = tokens.take("TEMP") or tokens.take("TEMPORARY")
    if not tokens.take("TABLE"):
        return None
    if tokens.take("IF") and not (tokens.take("NOT") and tokens.take("EXISTS")):
        return None
    target = tokens.skip_name()
    if target is None or (temporary and "." in target):
        return None
    names = ""
    if tokens.word() == "(":
        first = tokens.position
        if not tokens.skip_parentheses():
            return None
        names = tokens.text_of(first, tokens.position)
    if not tokens.take("AS"):
        return None
    last = tokens.end
    if [tokens.word(last - 2), tokens.word(last - 1)] in (["WITH", "DATA"], ["NO", "DATA"]):
        return None
    head = f"CREATE {'OR REPLACE ' * replaces}{'TEMP ' * temporary}TABLE {target}{names} AS"
    return CreateTableAs(tokens.text_of(tokens.position, last), head, f"temp.{target}" if temporary else target)


class _Tokens:
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

    def text_of(self, first: int, last: int) -> str:
        """The text of the tokens [first, last), with what stands between them."""
        if first >= last:
            return ""
        return self._data[self._spans[first][0] : self._spans[last - 1][1]].decode()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
