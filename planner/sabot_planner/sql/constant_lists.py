"""Long lists of constants, set aside as text: rows of VALUES, and what stands in IN (…) and list_value(…).

No pass learns anything from the ten thousandth constant, so such a list is one node, ``Var``, of the text that DuckDB
printed. Until the print guard has compared the query, a parameter stands for it in the query's text:

    VALUES (CAST(1 AS INTEGER)), (CAST(2 AS INTEGER)), …    →    VALUES ($sabot_list_0)

A list is constants in parentheses and nothing else, so that the one says as much of the query's grammar as the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import exp

from sabot_planner.sql.text import builtin

PARAMETER = "$sabot_list_"

_FEWEST = 32
_FEWEST_SPLIT = 1_000
"""Of fewer rows the number that VALUES tells DuckDB's optimizer is worth more than their parsing costs."""

_SHORTEST_TEXT = 1_000
_MENTIONS = ("VALUES", "IN (", "list_value")

_STRING = r"'(?:[^']|'')*+'"
_ATOM = rf"(?:NULL|TRUE|FALSE|[xXbB]?{_STRING}|(?:-\s?)?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_TYPE = r'(?:[A-Z][A-Z0-9_]*|"[A-Z]+")(?:\s?\(\d+(?:,\s?\d+)?\))?(?:\s?\[\d*\])*+'
_CONSTANT = rf"(?:CAST\(\s*{_ATOM}\s+AS\s+{_TYPE}\s*\)|{_ATOM})"
_ROW = rf"\(\s*{_CONSTANT}(?:\s*,\s*{_CONSTANT})*+\s*\)"
_LONG_LIST = re.compile(
    rf"""{_STRING} | "(?:[^"]|"")*+"
      | (?<![\w$])(?:
            VALUES\s+\( (?P<rows> {_ROW[2:]} (?:\s*,\s*{_ROW}){{{_FEWEST - 1},}}+ (?!\s*,) )
          | (?:IN\s*|list_value)\( (?P<list> \s*{_CONSTANT} (?:\s*,\s*{_CONSTANT}){{{_FEWEST - 1},}}+ \s* ) \)
        )""",
    re.VERBOSE,
)
_ROWS = re.compile(_ROW)
_SEPARATOR = "\x1f"
_QUOTED_TYPES = frozenset({"VARCHAR", "DATE"})
_SPLIT_TYPES = re.compile(r"(?:VARCHAR|DATE|U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL\(\d+,\s?\d+\))\Z")
_CONSTANTS = re.compile(rf"CAST\(\s*(?:(-?\s?\d[\d.]*)|({_STRING})|{_ATOM})\s+AS\s+({_TYPE})\s*\)|{_ATOM}")
_STRINGS = re.compile(f"({_STRING})")
_BLANKS = re.compile(r"\s\s+")


def set_aside(sql: str) -> tuple[str, list[str]]:
    """``sql`` with a parameter in the place of each long list, and the lists in order."""
    if len(sql) < _SHORTEST_TEXT or not any(word in sql for word in _MENTIONS):
        return sql, []
    lists: list[str] = []
    parts: list[str] = []
    end = 0
    for match in _LONG_LIST.finditer(sql):
        kind = match.lastgroup
        if kind is None:
            continue
        start, stop = match.span(kind)
        stop -= kind == "rows"  # the last row's own parenthesis stays where it is
        parts += (sql[end:start], f"{PARAMETER}{len(lists)}")
        lists.append(_one_line(sql[start:stop]))
        end = stop
    return "".join([*parts, sql[end:]]), lists


def put_back(nodes: list[exp.Expression], lists: list[str]) -> None:
    """Give the nodes that stand for a list its text, in place."""
    for node in nodes:
        if type(node) is exp.Var:
            node.set("this", lists[int(node.args["this"].removeprefix(PARAMETER))])


def is_list(expressions: Sequence[exp.Expression]) -> bool:
    """Whether ``expressions`` are a long list of constants in one node."""
    return len(expressions) == 1 and type(expressions[0]) is exp.Var


def relation_of_rows(rows: str) -> tuple[str, str, int]:
    """A long list of rows as a relation: its SELECT or VALUES, its first row in parentheses, and its number of rows.

    Every constant of a VALUES is parsed and bound by itself, in each task. Where a column's constants are texts, whole
    numbers, decimals or dates, and none is NULL, it is one text instead, split and cast again:

        VALUES (CAST(1 AS BIGINT)), (CAST(2 AS BIGINT))    →    SELECT CAST(unnest(string_split('1 2', ' ')) AS BIGINT)
    """
    found = _ROWS.findall(f"({rows})")
    first = found[0]
    columns = _columns(rows, len(found)) if len(found) >= _FEWEST_SPLIT else []
    return (f"SELECT {', '.join(columns)}" if columns else f"VALUES ({rows})"), first, len(found)


def _columns(rows: str, count: int) -> list[str]:
    """The columns of rows, each by one text; none where one of them has to be written out."""
    constants = _CONSTANTS.findall(rows)
    width = len(constants) // count
    if _SEPARATOR in rows or width * count != len(constants):
        return []
    columns = []
    for position in range(width):
        column = constants[position::width]
        types = {type_name for _, _, type_name in column}
        if len(types) != 1 or not _SPLIT_TYPES.match(next(iter(types))):
            return []
        quoted = next(iter(types)) in _QUOTED_TYPES
        if any(bool(number) is quoted for number, _, _ in column):
            return []
        text = _SEPARATOR.join([value[1:-1] if quoted else number.replace(" ", "") for number, value, _ in column])
        split = builtin("string_split", f"'{text}'", f"'{_SEPARATOR}'")
        columns.append(f"CAST(unnest({split}) AS {next(iter(types))})")
    return columns


def _one_line(text: str) -> str:
    """``text`` without DuckDB's line breaks and indents; a string's own blanks are left alone."""
    parts = _STRINGS.split(text)
    parts[::2] = [_BLANKS.sub(" ", part) for part in parts[::2]]
    return "".join(parts)
