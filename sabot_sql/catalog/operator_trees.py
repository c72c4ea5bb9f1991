"""What DuckDB would do for a statement: its operators with their estimates, read from ``EXPLAIN (FORMAT json)``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sabot_sql.plan_document import PlanOperator

_ROWS = "Estimated Cardinality"
_TOLD_FIRST = ("Join Type", "Table", "Function", "Conditions", "Groups", "Aggregates", "Order By", "Top", "Filters")
_LEFT_OUT = frozenset({_ROWS, "Projections", "Type"})
_DETAIL_CHARACTERS = 160


def operator_trees(explained_json: str) -> list[PlanOperator]:
    """The operators from the last one on, for the plan JSON; none where DuckDB's answer is not what it was."""
    found: list[PlanOperator] = []
    try:
        todo: list[tuple[Any, int | None]] = [(node, None) for node in reversed(json.loads(explained_json))]
        while todo:
            node, read_by = todo.pop()
            todo += [(child, len(found)) for child in reversed(node["children"])]
            found.append(_operator(node, read_by))
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return found


def _operator(node: Mapping[str, Any], read_by: int | None) -> PlanOperator:
    facts = node["extra_info"]
    facts = facts if isinstance(facts, Mapping) else {}
    rows = str(facts.get(_ROWS, ""))
    name = str(node["name"]).strip().lower().replace("_", " ")
    told = [key for key in _TOLD_FIRST if key in facts]
    told += [key for key in facts if key not in _TOLD_FIRST and key not in _LEFT_OUT and not key.startswith("__")]
    texts = [text for key in told if (text := _text(facts[key])) and text.lower().replace("_", " ") != name]
    detail = " · ".join(texts)
    if len(detail) > _DETAIL_CHARACTERS:
        detail = f"{detail[: _DETAIL_CHARACTERS - 1]}…"
    return PlanOperator(name, detail, int(rows) if rows.isdecimal() else None, read_by)


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(" ".join(str(item).split()) for item in value)
    return " ".join(str(value).split())
