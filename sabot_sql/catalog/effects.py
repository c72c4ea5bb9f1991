"""What running a statement does beside giving rows: whether it may be run, or bound, more than once.

DuckDB's own parse tree says so, not the text: words of the text only tell whether it is worth asking for the tree.

    WITH x AS (INSERT …) SELECT …     a SELECT to the parser, which writes
    SELECT nextval('s')               volatile: another value whenever it runs
    FROM range(nextval('s'))          DuckDB computes arguments of table functions while it binds
    FROM v                            as volatile as what the view calls
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_WRITING_WORD = re.compile(r"(?<![\w$])(?:INSERT|UPDATE|DELETE|MERGE|COPY|TRUNCATE)(?![\w$])", re.IGNORECASE)
_MAKING_WORD = re.compile(r"(?<![\w$])(?:CREATE|REPLACE|EXPORT|IMPORT|ATTACH)(?![\w$])", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d][\w$]*")
_CALL = re.compile(r'([^\W\d][\w$]*)"?\s*\(')

_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""Nodes of DuckDB's tree that read; any other node of a query is taken for one that writes."""

_RUN_A_TEXT = frozenset({"query", "json_execute_serialized_sql"})
"""Table functions that run the text they are given."""

VOLATILE_FUNCTIONS = frozenset(
    {
        "current_connection_id", "current_query", "current_query_id", "current_transaction_id", "currval",
        "gen_random_uuid", "nextval", "pg_sleep", "random", "setseed", "setval", "sleep_ms", "stats", "uuid", "uuidv4",
        "uuidv7", "vector_type", "write_log",
    }
)  # fmt: skip
"""DuckDB's volatile functions, and its macros that call them.

``error()`` is left out: it gives no other value elsewhere, it gives none.
"""

CTE_WRITES = "a common table expression of it writes"

Serialize = Callable[[str], str]
"""``json_serialize_sql`` of a text."""


@dataclass(frozen=True, slots=True)
class RunsOnce:
    """Why a statement runs exactly once, as it is written, on the session's connection.

    Binding it runs a part of it where ``by_binding`` says so: then nothing but the run itself binds it.
    """

    reason: str
    by_binding: bool


@dataclass(frozen=True, slots=True)
class VolatileNames:
    """Lower-case names whose use makes a query volatile: DuckDB's functions, macros and views that reach one."""

    functions: frozenset[str]
    macros: frozenset[str]
    views: frozenset[str]

    @classmethod
    def reaching(cls, functions: frozenset[str], macros: Mapping[str, str], views: Mapping[str, str]) -> VolatileNames:
        """``functions``, and whatever calls one of them; macros and views are given with their definitions."""
        calls = {name: frozenset(map(str.lower, _CALL.findall(text))) for name, text in {**macros, **views}.items()}
        words = {name: _words(text) for name, text in {**macros, **views}.items()}
        called, read = set(functions), set[str]()
        while True:
            reached = {name for name in calls if calls[name] & called or words[name] & read}
            more, more_read = reached & macros.keys() - called, reached & views.keys() - read
            if not more and not more_read:
                return cls(functions, frozenset(called - functions), frozenset(read))
            called |= more
            read |= more_read

    def in_text(self, text: str) -> frozenset[str]:
        """Those that ``text`` mentions, as whatever."""
        return _words(text) & (self.functions | self.macros | self.views)


def mentioned(names: Iterable[str], text: str) -> list[str]:
    """Those of ``names`` that ``text`` may mention, as whatever; a name that is not one word always may."""
    words = _words(text)
    return [name for name in names if name.lower() in words or _words(name) != {name.lower()}]


def query_writes(text: str, serialize: Serialize) -> bool:
    """Whether a text that the parser takes for a SELECT changes something: a common table expression may."""
    if not _WRITING_WORD.search(text):
        return False
    tree = _tree(text, serialize)
    return tree is None or any(map(_is_writing, _nodes(tree)))


def script_writes(text: str) -> bool:
    """Whether what is several statements to DuckDB may change something, by its words: it has no tree."""
    return bool(_WRITING_WORD.search(text) or _MAKING_WORD.search(text))


def runs_once(text: str, writes: bool, volatile: VolatileNames, serialize: Serialize) -> RunsOnce | None:
    """Why a query runs once; None where it may be bound, explained and run as often as anybody likes."""
    written = RunsOnce(CTE_WRITES, by_binding=False) if writes else None
    names = volatile.in_text(text)
    if not names and not _words(text) & _RUN_A_TEXT:
        return written
    tree = _tree(text, serialize)
    if tree is None:
        return RunsOnce(f"{min(names)} may be volatile", by_binding=True) if names else written
    calls = list(_volatile_calls(tree, volatile))
    return max((written, *calls) if written else calls, key=lambda once: once.by_binding, default=None)


def _tree(text: str, serialize: Serialize) -> Any:
    """The tree of a query, None where DuckDB gives none."""
    tree = json.loads(serialize(text))
    return None if tree["error"] else tree["statements"]


def _is_writing(node: Mapping[str, Any]) -> bool:
    kind = node.get("type")
    return isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING_NODES


def _volatile_calls(tree: Any, volatile: VolatileNames) -> Iterator[RunsOnce]:
    for node, bound in _placed_nodes(tree):
        function = str(node.get("function_name", "")).lower()
        if function in _RUN_A_TEXT and not _is_plain(node, volatile):
            yield RunsOnce(f"{function}() runs a text that is volatile or not known", by_binding=True)
        elif function in volatile.macros:
            yield RunsOnce(f"the macro {function}() is volatile", by_binding=True)
        elif function in volatile.functions:
            yield RunsOnce(f"{function}() is volatile", by_binding=bound)
        elif node.get("type") == "BASE_TABLE" and str(node.get("table_name", "")).lower() in volatile.views:
            yield RunsOnce(f"the view {node['table_name']} is volatile", by_binding=True)


def _is_plain(call: Mapping[str, Any], volatile: VolatileNames) -> bool:
    """Whether the text that a call runs stands there, and mentions nothing volatile."""
    given = [argument["expression"] for argument in call.get("arguments", ())]
    literals = [expression.get("literal", {}).get("text") for expression in given]
    return bool(literals) and all(isinstance(text, str) and not volatile.in_text(text) for text in literals)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    return (node for node, _ in _placed_nodes(tree))


def _placed_nodes(tree: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    """Every node, and whether it is or stands in a table function, whose arguments are computed while it is bound."""
    waiting = [(tree, False)]
    while waiting:
        node, bound = waiting.pop()
        if isinstance(node, dict):
            bound = bound or node.get("type") == "TABLE_FUNCTION"
            yield node, bound
            waiting.extend((inner, bound) for inner in node.values())
        elif isinstance(node, list):
            waiting.extend((inner, bound) for inner in node)


def _words(text: str) -> frozenset[str]:
    return frozenset(map(str.lower, _WORD.findall(text)))
