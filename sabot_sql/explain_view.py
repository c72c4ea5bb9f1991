"""The plans that DuckDB draws, ``EXPLAIN`` and ``EXPLAIN ANALYZE``, as the trees that they are."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sabot_sql.plan_view.plain_text import NO_MATH, capped, printable
from sabot_sql.table_view import MAX_TEXT_BYTES

_COLUMNS = ["explain_key", "explain_value"]
_TYPES = ["VARCHAR", "VARCHAR"]
# Lines of boxes meet only where no room is left between them.
_STYLE = (
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px);"
    "line-height:1.2;white-space:pre;overflow-x:auto;margin:0"
)


def is_explained(columns: Sequence[str], types: Sequence[str]) -> bool:
    """Whether a result of these columns is a plan that DuckDB drew."""
    return list(columns) == _COLUMNS and list(types) == _TYPES


def explained_text(rows: Sequence[Sequence[object]]) -> str:
    """The plans one below the other, each below its name where there are several; no more than ``MAX_TEXT_BYTES``."""
    parts = []
    for key, value in rows:
        lines = [printable(line.rstrip()) for line in str(value or "").strip("\n").split("\n")]
        parts.append("\n".join([f"{printable(str(key))}:", *lines] if len(rows) > 1 else lines))
    return capped("\n\n".join(parts), MAX_TEXT_BYTES)


def explained_html(rows: Sequence[Sequence[object]]) -> str:
    """The same as HTML."""
    text = capped(explained_text(rows), MAX_TEXT_BYTES // 2)
    return (
        f'<div class="sabot-explain {NO_MATH}"><pre tabindex="0" role="group" aria-label="Plan of DuckDB" '
        f'style="{_STYLE}">{escape(text)}</pre></div>'
    )
