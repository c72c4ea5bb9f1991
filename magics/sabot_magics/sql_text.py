"""Finds parameters in SQL text without parsing it: what stands in quotes and comments is none."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
      --[^\n]*
    | [eE]'(?:[^'\\]|\\.|'')*'?
    | '(?:[^']|'')*'?
    | "(?:[^"]|"")*"?
    | (?P<quote>\$(?:[^\W\d]\w*)?\$)
    | (?P<comment>/\*)
    | \w[\w$]*
    | \$(?P<name>[^\W\d]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def parameter_names(sql: str) -> list[str]:
    """The names of ``$name`` parameters in order of appearance, each once; ``$1`` and ``?`` have none."""
    names: dict[str, None] = {}
    position = 0
    while match := _TOKEN.search(sql, position):
        position = match.end()
        if match.group("quote"):
            end = sql.find(match.group("quote"), position)
            position = len(sql) if end < 0 else end + len(match.group("quote"))
        elif match.group("comment"):
            position = _comment_end(sql, position)
        elif match.group("name"):
            names[match.group("name")] = None
    return list(names)


def _comment_end(sql: str, position: int) -> int:
    """End of a block comment that was opened before ``position``; such comments nest."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(sql, position)):
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return len(sql) if depth else position
