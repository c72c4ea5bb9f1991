"""How deep a statement nests, where DuckDB prints a plan far slower than it makes it.

``EXPLAIN (SQL)`` indents what it prints, level by level, again and again: by the third power of the depth. A CASE 100
deep takes eleven times as long to print as to bind (DuckDB 2.0.0), one 300 deep sixty times.
"""

from __future__ import annotations

import re

MOST_CASES = 40
MOST_SUBQUERIES = 150

_SHORTEST_TEXT = 1_000
_PARTS = re.compile(
    r"""'(?:[^']|'')*+' | "(?:[^"]|"")*+" | --[^\n]* | /\*.*?\*/
      | (?<![\w$.])(?P<word>CASE|END)(?![\w$]) | (?P<query>\(\s*(?:SELECT|FROM|WITH)\b) | (?P<bracket>[()])""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def too_deep_to_print(sql: str) -> str | None:
    """Why DuckDB should not be asked for the plan of ``sql`` as SQL; None where it may be."""
    if len(sql) < _SHORTEST_TEXT:
        return None
    cases = queries = deepest_case = deepest_query = 0
    brackets: list[int] = []
    for part in _PARTS.finditer(sql):
        match part.lastgroup:
            case "word":
                cases = cases + 1 if part.group().upper() == "CASE" else max(0, cases - 1)
                deepest_case = max(deepest_case, cases)
            case "query":
                brackets.append(1)
                queries += 1
                deepest_query = max(deepest_query, queries)
            case "bracket" if part.group() == "(":
                brackets.append(0)
            case "bracket" if brackets:
                queries -= brackets.pop()
            case _:
                pass
    for what, depth, most in (("CASE", deepest_case, MOST_CASES), ("a subquery", deepest_query, MOST_SUBQUERIES)):
        if depth > most:
            return f"{what} is nested {depth} deep: DuckDB prints such a plan far slower than it makes it"
    return None
