"""Lists that DuckDB computes while it plans: as SQL a plan has every value of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

MOST_VALUES = 20_000
"""Of 60,000 values DuckDB prints for half a second, of six million for minutes, in which it cannot be interrupted."""

_CALLED = re.compile(r"(?<![\w.\"])(?:range|generate_series)\s*\(", re.IGNORECASE)
_MAKE_LISTS = ("range", "generate_series")
_OF_ROWS = ("COLUMN_REF", "SUBQUERY", "LAMBDA_REF", "LAMBDA", "STAR", "WINDOW")
"""Classes of expressions whose value is not known while a query is planned."""

Parse = Callable[[str], str]
"""DuckDB's parse of a text as JSON."""
CountsMore = Callable[[str, int], bool]
"""Whether a query gives more rows than that; it may stop there."""


def too_long_to_print(sql: str, parse: Parse, counts_more: CountsMore) -> str | None:
    """Why DuckDB should not be asked for the plan of ``sql`` as SQL; None where it may be."""
    if not _CALLED.search(sql):
        return None
    text = sql.encode()
    for call in _list_calls(json.loads(parse(sql))):
        begin = call["query_location"]
        written = text[begin : begin + call["query_location_length"]].decode(errors="ignore")
        arguments = written[written.find("(") :]
        if counts_more(f"FROM system.main.{call['function_name']}{arguments}", MOST_VALUES):
            return f"a list of more than {MOST_VALUES:,} values is part of the plan: as SQL it would be written out"
    return None


def _list_calls(node: Any) -> Iterator[dict[str, Any]]:
    """The calls that make lists of what is known; the table functions of the same names stream their rows."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            if found.get("type") == "TABLE_FUNCTION":
                waiting += found["function"].get("arguments", [])
                continue
            if found.get("class") == "FUNCTION" and found.get("function_name") in _MAKE_LISTS and _is_known(found):
                yield found
            waiting += found.values()


def _is_known(call: dict[str, Any]) -> bool:
    waiting: list[Any] = [call["arguments"]]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            if found.get("class") in _OF_ROWS:
                return False
            waiting += found.values()
    return True
