"""Result types of the commonest functions, so that DuckDB is asked about the others only.

Each rule holds for the argument types that it names and for no other; a test compares all of them with DuckDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_DECIMAL = re.compile(r"DECIMAL\(\d+,\s*(\d+)\)\Z")
_SIMPLE = frozenset(
    (*INTEGERS, "HUGEINT", "DOUBLE", "FLOAT", "VARCHAR", "DATE", "TIMESTAMP", "BOOLEAN", "BLOB", "TIME")
)

Rule = Callable[[Sequence[str]], "str | None"]


def _sum(types: Sequence[str]) -> str | None:
    if len(types) != 1:
        return None
    decimal = _DECIMAL.match(types[0])
    if decimal:
        return f"DECIMAL(38,{decimal.group(1)})"
    if types[0] in INTEGERS or types[0] == "HUGEINT":
        return "HUGEINT"
    return "DOUBLE" if types[0] in ("DOUBLE", "FLOAT") else None


def _average(types: Sequence[str]) -> str | None:
    numeric = len(types) == 1 and (types[0] in (*INTEGERS, "HUGEINT", "DOUBLE", "FLOAT") or _DECIMAL.match(types[0]))
    return "DOUBLE" if numeric else None


def _same(types: Sequence[str]) -> str | None:
    return types[0] if len(types) == 1 and (types[0] in _SIMPLE or _DECIMAL.match(types[0])) else None


def _arithmetic(types: Sequence[str]) -> str | None:
    alike = len(types) == 2 and types[0] == types[1]
    return types[0] if alike and types[0] in (*INTEGERS, "HUGEINT", "DOUBLE", "FLOAT") else None


def _division(types: Sequence[str]) -> str | None:
    return "DOUBLE" if list(types) == ["DOUBLE", "DOUBLE"] else None


def _always(result: str, *arguments: str) -> Rule:
    def rule(types: Sequence[str]) -> str | None:
        return result if all(t in arguments for t in types) else None

    return rule


_RULES: dict[str, Rule] = {
    "sum": _sum,
    "avg": _average,
    "min": _same,
    "max": _same,
    "any_value": _same,
    "+": _arithmetic,
    "-": _arithmetic,
    "*": _arithmetic,
    "/": _division,
    **dict.fromkeys(("row_number", "rank", "dense_rank"), _always("BIGINT")),
    **dict.fromkeys(("year", "month", "day", "quarter"), _always("BIGINT", "DATE", "TIMESTAMP")),
    **dict.fromkeys(("prefix", "suffix", "contains", "~~", "!~~"), _always("BOOLEAN", "VARCHAR")),
    **dict.fromkeys(("lower", "upper", "trim"), _always("VARCHAR", "VARCHAR")),
    "substring": _always("VARCHAR", "VARCHAR", "BIGINT"),
}


def known_type(function: str, arguments: Sequence[str]) -> str | None:
    """The type of ``function`` over arguments of these types, None where there is no rule for them."""
    if function in ("count", "count_star"):
        return "BIGINT"
    rule = _RULES.get(function)
    return rule(arguments) if rule is not None else None
