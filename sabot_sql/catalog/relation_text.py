"""Reading the relations that DuckDB prints in an exported plan: table names and table function calls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = re.compile(r'"(?:[^"]|"")*"|[A-Za-z_][A-Za-z0-9_$]*')
_OPTION = re.compile(r'\(\s*("(?:[^"]|"")*"|[A-Za-z_]\w*)\s*=\s*(.*)\)\s*\Z', re.DOTALL)
_BARE_OPTION = re.compile(r'("(?:[^"]|"")*"|[A-Za-z_]\w*)\s*(?::=|=>|=)\s*(.*)\Z', re.DOTALL)

_TEXT_LITERAL = re.compile(
    r"\s*(?:CAST\s*\(\s*'((?:[^']|'')*)'\s+AS\s+(?:VARCHAR|TEXT)\s*\)|'((?:[^']|'')*)')\s*\Z", re.I
)


@dataclass(frozen=True, slots=True)
class TableName:
    """A table of a database; ``parts`` are database, schema and table as far as they were written."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A table function call; ``arguments`` and the values of ``options`` are SQL text."""

    name: str
    arguments: tuple[str, ...]
    options: tuple[tuple[str, str], ...]

    def option(self, name: str) -> str | None:
        """The SQL text of an option, or None."""
        return next((value for key, value in self.options if key == name), None)

    def sql(self) -> str:
        """The call of DuckDB's own function, whatever macros there are."""
        options = [f'"{name}" = {value}' for name, value in self.options]
        return f'"system".main."{self.name}"({", ".join([*self.arguments, *options])})'


def parse_relation(sql: str) -> TableName | FunctionCall:
    """``sql`` taken apart.

    Raises:
        ValueError: it is neither a table name nor one call.
    """
    parts, end = _qualified_name(sql)
    rest = sql[end:].strip()
    if not rest:
        return TableName(parts)
    if not (rest.startswith("(") and rest.endswith(")")):
        raise ValueError(f"not a table name or table function call: {sql!r}")
    arguments: list[str] = []
    options: list[tuple[str, str]] = []
    for argument in split_arguments(rest[1:-1]):
        match = _OPTION.match(argument) or _BARE_OPTION.match(argument)
        if match:
            options.append((_unquoted(match.group(1)).lower(), match.group(2).strip()))
        else:
            arguments.append(argument)
    return FunctionCall(parts[-1].lower(), tuple(arguments), tuple(options))


def text_literal(sql: str) -> str | None:
    """The value of ``sql`` where it is a plain string, as such or cast to VARCHAR; else None."""
    match = _TEXT_LITERAL.match(sql)
    return (match.group(1) or match.group(2) or "").replace("''", "'") if match else None


def split_arguments(text: str) -> list[str]:
    """``text`` split at the commas that stand in no bracket and no quotes."""
    pieces, begin, depth = [], 0, 0
    for position, character in _code_characters(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            pieces.append(text[begin:position].strip())
            begin = position + 1
    last = text[begin:].strip()
    return [*pieces, last] if last else pieces


def _code_characters(text: str) -> Iterator[tuple[int, str]]:
    position = 0
    while position < len(text):
        character = text[position]
        if character in "'\"":
            # A doubled quote ends one piece and begins the next, which comes to the same.
            position = text.find(character, position + 1)
            if position < 0:
                return
        else:
            yield position, character
        position += 1


def _qualified_name(sql: str) -> tuple[tuple[str, ...], int]:
    parts: list[str] = []
    position = len(sql) - len(sql.lstrip())
    while match := _NAME.match(sql, position):
        parts.append(_unquoted(match.group()))
        position = match.end()
        if sql[position : position + 1] != ".":
            break
        position += 1
    if not parts:
        raise ValueError(f"no name at the start of {sql!r}")
    return tuple(parts), position


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
