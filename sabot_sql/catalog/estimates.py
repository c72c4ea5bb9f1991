"""DuckDB's row estimates for the scans and joins of an exported plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

# Nodes that pass on the rows of one input, perhaps fewer: their estimate is still one of the same scans or join.
_TRANSPARENT = frozenset({"PROJECTION", "FILTER"})
_JOINS = frozenset(
    {"COMPARISON_JOIN", "HASH_JOIN", "NESTED_LOOP_JOIN", "PIECEWISE_MERGE_JOIN", "IE_JOIN", "BLOCKWISE_NL_JOIN"}
    | {"CROSS_PRODUCT", "ANY_JOIN", "ASOF_JOIN", "POSITIONAL_JOIN", "LEFT_DELIM_JOIN", "RIGHT_DELIM_JOIN"}
)

# Leaves that read nothing the exported SQL would name as a relation.
_ROWLESS = frozenset(
    {"DUMMY_SCAN", "COLUMN_DATA_SCAN", "EMPTY_RESULT", "CTE_SCAN", "DELIM_SCAN", "EXPRESSION_SCAN", "CHUNK_SCAN"}
)

# A leaf relation as DuckDB prints it: a table or a call, then an alias whose columns are column0, column1, …
_LEAF_ALIAS = re.compile(r"\bAS (r\d+)\(\s*column0\b")


class Estimates:
    """Estimates by the set of scans below a node.

    DuckDB is asked for its plan when the first estimate is wanted.
    Scans are matched by position: the n-th leaf of the exported SQL is the n-th leaf of the explained plan. Where the
    two do not have the same number of leaves nothing is estimated.
    """

    def __init__(self, exported_sql: str, explain_json: Callable[[], str | None]) -> None:
        self._exported_sql = exported_sql
        self._explain_json = explain_json
        self._rows: dict[frozenset[int], int] | None = None
        self._positions: dict[str, int] = {}

    def rows(self, tables: Sequence[str]) -> int | None:
        """Rows of the join over the scans with these aliases, None where DuckDB estimated no such join."""
        if self._rows is None:
            self._rows = self._read()
        if not all(table in self._positions for table in tables):
            return None
        return self._rows.get(frozenset(self._positions[table] for table in tables))

    def _read(self) -> dict[frozenset[int], int]:
        explained = self._explain_json()
        if explained is None:
            return {}
        aliases = _LEAF_ALIAS.findall(self._exported_sql)
        rows: dict[frozenset[int], int] = {}
        leaves = 0
        for root in json.loads(explained):
            leaves, _ = _walk(root, leaves, rows)
        if leaves != len(aliases):
            return {}
        self._positions = {alias: position for position, alias in enumerate(aliases)}
        return rows


def _walk(node: dict[str, Any], first: int, rows: dict[frozenset[int], int]) -> tuple[int, bool]:
    """Note the estimates of a subtree whose first leaf is number ``first``.

    Gives the number after its last leaf, and whether the subtree's rows are those of its scans and joins alone.
    """
    name = str(node.get("name", "")).strip()
    leaves, plain = first, True
    for child in node.get("children", []):
        leaves, child_plain = _walk(child, leaves, rows)
        plain = plain and child_plain
    if not node.get("children"):
        leaves += name not in _ROWLESS
    elif name in _JOINS:
        plain = True  # also over an aggregate it is the estimate of that join
    else:
        plain = plain and name in _TRANSPARENT
    estimate = node.get("extra_info", {}).get("Estimated Cardinality")
    if plain and leaves > first and estimate is not None:
        rows[frozenset(range(first, leaves))] = int(estimate)
    return leaves, plain
