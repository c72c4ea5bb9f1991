"""Result types of the commonest functions, so that DuckDB is asked about the others only.

Each rule holds for the argument types that it names and for no other; a test compares all of them with DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sabot_planner.sql.duck_type import BIGINT, BOOLEAN, DOUBLE, HUGEINT, INTEGERS, VARCHAR, DuckType, duck_type

_FLOATING = frozenset({"DOUBLE", "FLOAT"})
_SIMPLE = INTEGERS | {"HUGEINT", "DOUBLE", "FLOAT", "VARCHAR", "DATE", "TIMESTAMP", "BOOLEAN", "BLOB", "TIME"}

Rule = Callable[[Sequence[DuckType]], "DuckType | None"]


def _sum(types: Sequence[DuckType]) -> DuckType | None:
    if len(types) != 1:
        return None
    (one,) = types
    if one.kind == "DECIMAL":
        return duck_type(f"DECIMAL(38,{one.parameters[1]})")
    if one.kind in INTEGERS or one.kind == "HUGEINT":
        return HUGEINT
    return DOUBLE if one.kind in _FLOATING else None


def _average(types: Sequence[DuckType]) -> DuckType | None:
    numeric = len(types) == 1 and types[0].kind in INTEGERS | _FLOATING | {"HUGEINT", "DECIMAL"}
    return DOUBLE if numeric else None


def _same(types: Sequence[DuckType]) -> DuckType | None:
    return types[0] if len(types) == 1 and (types[0].kind in _SIMPLE or types[0].kind == "DECIMAL") else None


def _arithmetic(types: Sequence[DuckType]) -> DuckType | None:
    alike = len(types) == 2 and types[0] == types[1]
    return types[0] if alike and types[0].kind in INTEGERS | _FLOATING | {"HUGEINT"} else None


def _division(types: Sequence[DuckType]) -> DuckType | None:
    return DOUBLE if list(types) == [DOUBLE, DOUBLE] else None


def _always(result: DuckType, *arguments: str) -> Rule:
    def rule(types: Sequence[DuckType]) -> DuckType | None:
        return result if all(t.kind in arguments for t in types) else None

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
    **dict.fromkeys(("row_number", "rank", "dense_rank"), _always(BIGINT)),
    **dict.fromkeys(("year", "month", "day", "quarter"), _always(BIGINT, "DATE", "TIMESTAMP")),
    **dict.fromkeys(("prefix", "suffix", "contains", "~~", "!~~"), _always(BOOLEAN, "VARCHAR")),
    **dict.fromkeys(("lower", "upper", "trim"), _always(VARCHAR, "VARCHAR")),
    "substring": _always(VARCHAR, "VARCHAR", "BIGINT"),
}


def known_type(function: str, arguments: Sequence[DuckType]) -> DuckType | None:
    """The type of ``function`` over arguments of these types, None where there is no rule for them."""
    if function in ("count", "count_star"):
        return BIGINT
    rule = _RULES.get(function)
    return rule(arguments) if rule is not None else None
