"""Statements that write what a query gives: where the query stands in the text, and where its rows go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sabot_sql.duck.statement_tokens import StatementTokens


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
        tokens = StatementTokens(self.options)
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
    tokens = StatementTokens(text)
    if tokens.take("COPY"):
        return _copy(tokens)
    if tokens.take("CREATE"):
        return _create(tokens)
    return None


def _copy(tokens: StatementTokens) -> CopyTo | None:
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


def _create(tokens: StatementTokens) -> CreateTableAs | None:
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


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
