"""Completion in ``%%sabot`` cells and ``%sabot`` lines: options, parameters, tables, their columns, functions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from sabot_magics.namespace import frame_columns, is_frame
from sabot_magics.options import OPTION_NAMES

_CATALOG_SQL = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
_WORDS_SQL = """
SELECT function_name, 'function' FROM duckdb_functions() WHERE function_name ~ '^[a-z]'
UNION SELECT keyword_name, 'keyword' FROM duckdb_keywords()
    WHERE keyword_category <> 'unreserved' OR keyword_name = 'by'
ORDER BY 2 DESC, 1
"""
# Python code may change the tables without the magics: what is known must not be old.
_CATALOG_SECONDS = 2.0
_MAX_COMPLETIONS = 500

_FRAGMENT = re.compile(r"--?[\w-]*$|\$?\w*$")
_QUALIFIER = re.compile(r"(\w+)\.\w*$")
_ALIAS = re.compile(r"(?:\bfrom|\bjoin|,)\s+\"?(\w+)\"?(?:\s+as)?\s+\"?(\w+)\"?", re.IGNORECASE)
_AFTER_FROM = re.compile(r"(?:\bfrom|\bjoin|\binto|\bdescribe|\bsummarize|\btable)\s+\w*$", re.IGNORECASE)
_NO_ALIAS = frozenset(
    {"on", "using", "where", "group", "order", "join", "left", "right", "full", "inner", "cross", "semi", "anti"}
    | {"limit", "having", "union", "window", "qualify", "natural", "asof", "positional", "select", "tablesample"}
)

Query = Callable[[str], Sequence[Sequence[Any]]]


class SQLCompleter:
    """Completes from the tables of a session, the frames of the notebook and DuckDB's functions.

    ``query`` gives what runs SQL on the session, or None while there is no session: the Tab key starts none.
    ``revision`` changes whenever the tables may have.
    """

    def __init__(
        self, namespace: Mapping[str, Any], query: Callable[[], Query | None], revision: Callable[[], int]
    ) -> None:
        self._namespace = namespace
        self._query = query
        self._revision = revision
        self._read_revision = -1
        self._tables: dict[str, list[str]] = {}
        self._words: list[tuple[str, str]] = []
        self._read_at = float("-inf")

    def matcher(self) -> Any:
        """What IPython's completer takes; it stays silent outside of the magics."""

        def complete(context: CompletionContext) -> SimpleMatcherResult:
            text = context.full_text
            before = _text_before(text, context)
            if not before:
                return {"completions": []}
            fragment, found = self.complete(before, text)
            completions = [SimpleCompletion(text=word, type=kind) for word, kind in found[:_MAX_COMPLETIONS]]
            result: SimpleMatcherResult = {"completions": completions, "suppress": bool(found), "ordered": True}
            result["matched_fragment"] = fragment
            return result

        return context_matcher(identifier="sabot_sql")(complete)

    def complete(self, before: str, text: str) -> tuple[str, list[tuple[str, str]]]:
        """The fragment that stands before the cursor, and the (word, kind) pairs it may become.

        ``before`` is the text from the magic's name to the cursor, ``text`` the whole cell.
        """
        match = _FRAGMENT.search(before)
        fragment = match.group() if match else ""
        line, newline, _ = before.partition("\n")
        if not newline and line.startswith("%%"):
            return fragment, _starting(fragment, [(name, "option") for name in OPTION_NAMES]) if fragment[
                :1
            ] == "-" else []
        if fragment.startswith("$"):
            return fragment, _starting(fragment, [(f"${name}", "parameter") for name in self._scalars()])
        if fragment.startswith("-"):
            return fragment, []
        tables = self._known_tables()
        qualifier = _QUALIFIER.search(before)
        if qualifier:
            owner = _aliases(text).get(qualifier.group(1).lower(), qualifier.group(1).lower())
            return fragment, _starting(fragment, [(name, "column") for name in tables.get(owner, [])])
        names = [(name, "table") for name in tables]
        if _AFTER_FROM.search(before):
            return fragment, _starting(fragment, names)
        if not fragment:
            return fragment, []
        used = {name.lower() for name in re.findall(r"\w+", text)}
        columns = [(name, "column") for table in tables if table in used for name in tables[table]]
        words = [
            (word.upper() if kind == "keyword" and fragment.isupper() else word, kind) for word, kind in self._words
        ]
        return fragment, _starting(fragment, [*columns, *names, *words])

    def _scalars(self) -> list[str]:
        return [
            name
            for name, value in self._namespace.items()
            if not name.startswith("_") and isinstance(value, str | int | float) and not isinstance(value, type)
        ]

    def _known_tables(self) -> dict[str, list[str]]:
        """Columns by lower-case table name: the session's tables, then the notebook's frames."""
        query = self._query()
        old = time.monotonic() - self._read_at > _CATALOG_SECONDS or self._read_revision != self._revision()
        if query is not None and old:
            tables: dict[str, list[str]] = {}
            for table, column in query(_CATALOG_SQL):
                tables.setdefault(str(table).lower(), []).append(str(column))
            self._tables = tables
            self._words = self._words or [(str(word), str(kind)) for word, kind in query(_WORDS_SQL)]
            self._read_at, self._read_revision = time.monotonic(), self._revision()
        frames = {
            name.lower(): frame_columns(value)
            for name, value in self._namespace.items()
            if not name.startswith("_") and is_frame(value)
        }
        return frames | self._tables


def _text_before(text: str, context: CompletionContext) -> str:
    """The magic up to the cursor, or nothing where the cursor stands in Python."""
    lines = text.split("\n")
    before = "\n".join([*lines[: context.cursor_line], lines[context.cursor_line][: context.cursor_position]])
    if text.startswith("%%sabot"):
        return before
    line = before.rpartition("\n")[2].lstrip()
    return line if line.startswith("%sabot ") else ""


def _starting(fragment: str, words: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    low = fragment.lower()
    return list(
        dict.fromkeys((word, kind) for word, kind in words if word.lower().startswith(low) and word != fragment)
    )


def _aliases(sql: str) -> dict[str, str]:
    """Tables by their aliases, lower case; good enough for completion, no parser."""
    found = ((alias.lower(), table.lower()) for table, alias in _ALIAS.findall(sql))
    return {alias: table for alias, table in found if alias not in _NO_ALIAS}
