"""A result table as people see it: HTML for notebooks, a box of text for terminals.

Pure functions of the rows to show; nothing here fetches or runs anything. The caller passes the first rows, the last
rows where rows between them are left out, and a ``TableSummary`` of the whole result.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from itertools import islice

from sabot_sql.plan_view.plain_text import NO_MATH, faint
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text, plural
from sabot_sql.printable import printable

MAX_CELL_CHARACTERS = 200
MAX_COLUMNS = 50
MAX_HTML_BYTES = 100_000
MAX_TEXT_BYTES = 100_000
_MIN_TEXT_COLUMN = 10
_NUMERIC_TYPE = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|BIGNUM|FLOAT|DOUBLE|DECIMAL\(\d+,\s*\d+\)")
_FIXED_TYPE = re.compile(r"BOOLEAN|DATE|TIME.*|INTERVAL|UUID")

Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class TableSummary:
    """What is said below the table about the whole result; what is None is not mentioned.

    ``truncated_at`` is the cap on fetched rows that cut the result short.
    """

    rows: int
    elapsed_ms: float | None = None
    shuffles: int | None = None
    moved_bytes: int | None = None
    truncated_at: int | None = None

    def text(self, shown_rows: int, columns: int, shown_columns: int, cut_bytes: int | None = None) -> str:
        """``20 of 1,234,567 rows × 8 columns · 1.2 s · 3 shuffles · 84 MB moved``.

        ``cut_bytes`` is the budget for which less is shown than was asked for.
        """
        rows = plural(self.rows, "row")
        if shown_rows < self.rows:
            rows = f"{count_text(shown_rows)} of {rows}"
        width = plural(columns, "column")
        if shown_columns < columns:
            width = f"{shown_columns} of {width}"
        parts = [f"{rows} × {width}"]
        if self.truncated_at is not None:
            parts.append(f"TRUNCATED at {count_text(self.truncated_at)}")
        if cut_bytes is not None:
            parts.append(f"shown is what fits {bytes_text(cut_bytes)}")
        if self.elapsed_ms is not None:
            parts.append(duration_text(self.elapsed_ms))
        if self.shuffles is not None:
            parts.append(plural(self.shuffles, "shuffle"))
        if self.moved_bytes:
            parts.append(f"{bytes_text(self.moved_bytes)} moved")
        return " · ".join(parts)


def is_numeric(type_name: str) -> bool:
    """Whether values of this DuckDB type line up at the right."""
    return _NUMERIC_TYPE.fullmatch(type_name) is not None


def value_text(value: object) -> str:
    """``value`` as DuckDB would print it, on one line; NULL as ``NULL``."""
    return printable(_raw_text(value))


def _raw_text(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case str():
            # A cell shows no more than a few hundred characters: do not walk through megabytes for them.
            return value[: MAX_CELL_CHARACTERS + 1]
        case float() | int():
            return repr(value)
        case Decimal():
            return format(value, "f")
        case bytes() | bytearray() | memoryview():
            head = bytes(value[: MAX_CELL_CHARACTERS + 1])
            return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02X}" for b in head)
        case dt.datetime():
            return value.isoformat(sep=" ")
        case dt.date() | dt.time():
            return value.isoformat()
        case Mapping():
            items = islice(value.items(), MAX_CELL_CHARACTERS)
            return "{" + ", ".join(f"{_nested(key)}: {_nested(item)}" for key, item in items) + "}"
        case list() | tuple():
            return "[" + ", ".join(_nested(item) for item in value[:MAX_CELL_CHARACTERS]) + "]"
        case _:
            return str(value)


def _nested(value: object) -> str:
    text = _raw_text(value)
    return f"'{text}'" if isinstance(value, str) else text


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _kept_columns(count: int, limit: int) -> tuple[list[int], int | None]:
    """Indexes of the columns to show, and before which of the shown ones a gap is."""
    if count <= limit:
        return list(range(count)), None
    left = (limit + 1) // 2
    return [*range(left), *range(count - (limit - left), count)], left


# ---------------------------------------------------------------------------------------------------------------- HTML

_STYLE = f"""<style>
.sabot-table{{font-size:var(--jp-ui-font-size1,13px);max-width:100%}}
.sabot-table .scroll{{overflow-x:auto;max-width:100%}}
.sabot-table table{{border-collapse:collapse;margin:0;border:0;font-variant-numeric:tabular-nums}}
.sabot-table th,.sabot-table td{{text-align:right;padding:3px 12px!important;border:0!important;\
white-space:pre;max-width:40em;overflow:hidden;text-overflow:ellipsis;vertical-align:top;line-height:1.45}}
.sabot-table thead th{{font-weight:600;padding-bottom:0!important}}
.sabot-table thead .type th{{font-weight:400;font-size:.82em;{faint(75)};padding:0 12px 4px!important;\
border-bottom:1px solid currentColor!important}}
.sabot-table tbody tr{{background:transparent!important}}
.sabot-table tbody tr:nth-child(even){{background:rgba(128,128,128,.09)!important}}
.sabot-table tbody tr:hover{{background:rgba(0,114,178,.16)!important}}
.sabot-table i{{{faint(65)};font-size:.9em}}
.sabot-table .gap td{{text-align:center!important;{faint(70)};padding:0!important}}
.sabot-table .foot{{font-size:.9em;{faint(80)};margin:6px 2px}}
</style>"""


def html_table(
    columns: Sequence[str],
    types: Sequence[str],
    head: Sequence[Row],
    tail: Sequence[Row] = (),
    *,
    summary: TableSummary,
    max_bytes: int = MAX_HTML_BYTES,
) -> str:
    """The table as a self-contained piece of HTML of at most ``max_bytes``, every value escaped.

    ``head`` holds the first rows and ``tail`` the last ones, empty where ``head`` holds all that is shown. Too much
    for the budget is met by shorter cells first, then by fewer rows, then by fewer columns; the line below says so.
    """
    shown, gap = _kept_columns(len(columns), MAX_COLUMNS)
    limit, cut = MAX_CELL_CHARACTERS, False
    # A cell has at least ten characters of markup: more rows than this cannot fit, and need not be tried.
    fitting = max(2, max_bytes // (10 * max(1, len(shown))))
    if len(head) + len(tail) > fitting:
        head, tail, cut = *_fewer(head, tail, fitting), True
    while True:
        html = _html(columns, types, head, tail, summary, shown, gap, limit, max_bytes if cut else None)
        if len(html.encode()) <= max_bytes:
            return html
        cut = True
        if limit > 25:
            limit //= 2
        elif len(head) + len(tail) > 2:
            head, tail = _fewer(head, tail, (len(head) + len(tail)) * 2 // 3)
        elif len(shown) > 1:
            shown, gap = _kept_columns(len(columns), len(shown) // 2)
        else:
            return html


def _fewer(head: Sequence[Row], tail: Sequence[Row], rows: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """At most ``rows`` of them, from both ends where there are two."""
    if not tail:
        return head[: max(1, rows)], tail
    return head[: max(1, rows - rows // 2)], tail[-max(1, rows // 2) :]


def _html(
    columns: Sequence[str],
    types: Sequence[str],
    head: Sequence[Row],
    tail: Sequence[Row],
    summary: TableSummary,
    shown: list[int],
    gap: int | None,
    limit: int,
    cut_bytes: int | None,
) -> str:
    # Notebooks align cells to the right. Unlike the style sheet, this survives where the notebook is not trusted.
    aligns = ["" if is_numeric(types[i]) else ' style="text-align:left"' for i in shown]

    def line(cells: list[str], tag: str = "td", scope: str = "") -> str:
        out = [f"<{tag}{scope}{align}>{cell}</{tag}>" for align, cell in zip(aligns, cells, strict=True)]
        if gap is not None:
            out.insert(gap, f"<{tag}>…</{tag}>")
        return "".join(out)

    def cell(value: object) -> str:
        return "<i>NULL</i>" if value is None else escape(_clip(value_text(value), limit))

    def names(texts: Sequence[str], cap: int) -> str:
        return line([escape(_clip(value_text(texts[i]), cap)) for i in shown], "th", ' scope="col"')

    body = [f"<tr>{line([cell(row[i]) for i in shown])}</tr>" for row in head]
    left_out = summary.rows - len(head) - len(tail)
    if left_out > 0:
        span = len(shown) + (gap is not None)
        body.append(f'<tr class="gap"><td colspan="{span}">⋮</td></tr>')
    body += [f"<tr>{line([cell(row[i]) for i in shown])}</tr>" for row in tail]
    footer = escape(summary.text(len(head) + len(tail), len(columns), len(shown), cut_bytes))
    # A group and no region: a page of many results would have as many landmarks of one name.
    return (
        f'<div class="sabot-table {NO_MATH}">{_STYLE}<div class="scroll" tabindex="0" role="group" '
        f'aria-label="Query result">'
        f"<table><thead><tr>{names(columns, min(limit, 80))}</tr>"
        f'<tr class="type">{names(types, min(limit, 60))}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f'<div class="foot">{footer}</div></div>'
    )


# ---------------------------------------------------------------------------------------------------------------- text


def text_width(text: str) -> int:
    """Columns that ``text`` takes in a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _fit(text: str, width: int) -> str:
    if text_width(text) <= width:
        return text
    out = ""
    used = 0
    for character in text:
        used += text_width(character)
        if used > width - 1:
            break
        out += character
    return out + "…"


def _pad(text: str, width: int, align: str) -> str:
    space = width - text_width(text)
    if align == "right":
        return " " * space + text
    if align == "center":
        return " " * (space // 2) + text + " " * (space - space // 2)
    return text + " " * space


def text_table(
    columns: Sequence[str],
    types: Sequence[str],
    head: Sequence[Row],
    tail: Sequence[Row] = (),
    *,
    summary: TableSummary,
    max_width: int = 160,
) -> str:
    """The table as a box of text no wider than ``max_width`` where at least one column can be.

    Arguments as in ``html_table``. Wide columns give way first, then columns in the middle are left out; rows beyond
    ``MAX_TEXT_BYTES`` are left out as well, and the line below says so.
    """
    fitting = MAX_TEXT_BYTES // 5  # a row has no fewer characters
    if len(head) + len(tail) > fitting:
        head, tail = _fewer(head, tail, fitting)
    cut = None
    while True:
        text = _text(columns, types, head, tail, summary, max_width, cut)
        size_bytes = len(text.encode(errors="replace"))
        if size_bytes <= MAX_TEXT_BYTES or len(head) + len(tail) <= 2:
            return text
        cut = MAX_TEXT_BYTES
        head, tail = _fewer(head, tail, int((len(head) + len(tail)) * 0.95 * MAX_TEXT_BYTES / size_bytes))


def _text(
    columns: Sequence[str],
    types: Sequence[str],
    head: Sequence[Row],
    tail: Sequence[Row],
    summary: TableSummary,
    max_width: int,
    cut_bytes: int | None,
) -> str:
    cells = _cells(columns, types, head, tail, summary)
    natural = [max(map(text_width, column)) for column in cells]
    floors = [_floor(width, type_name) for width, type_name in zip(natural, types, strict=True)]
    shown, gap = _kept_columns(len(columns), MAX_COLUMNS)
    widths = _fitted(natural, floors, shown, gap, max_width)
    while widths is None:
        shown, gap = _kept_columns(len(columns), len(shown) - 1)
        widths = _fitted(natural, floors, shown, gap, max_width)
    drawn = [cells[i] for i in shown]
    aligns = ["right" if is_numeric(types[i]) else "left" for i in shown]
    if gap is not None:
        dots = ["·" if cells[0][row] == "·" else "…" for row in range(len(cells[0]))]
        drawn.insert(gap, dots)
        aligns.insert(gap, "center")
    footer = summary.text(len(head) + len(tail), len(columns), len(shown), cut_bytes)
    return "\n".join([*_box(drawn, widths, aligns), footer])


def _cells(
    columns: Sequence[str], types: Sequence[str], head: Sequence[Row], tail: Sequence[Row], summary: TableSummary
) -> list[list[str]]:
    """By column: its name, its type, its values, with a dot where rows are left out."""
    dots = ["·"] if summary.rows > len(head) + len(tail) else []
    return [
        [
            _clip(value_text(name), MAX_CELL_CHARACTERS),
            _clip(value_text(type_name), MAX_CELL_CHARACTERS),
            *(_clip(value_text(row[i]), MAX_CELL_CHARACTERS) for row in head),
            *dots,
            *(_clip(value_text(row[i]), MAX_CELL_CHARACTERS) for row in tail),
        ]
        for i, (name, type_name) in enumerate(zip(columns, types, strict=True))
    ]


def _floor(natural: int, type_name: str) -> int:
    """How narrow a column may get: numbers and times stay whole, text is readable from its start."""
    whole = is_numeric(type_name) or _FIXED_TYPE.fullmatch(type_name) is not None
    return natural if whole else min(natural, _MIN_TEXT_COLUMN)


def _fitted(
    natural: list[int], floors: list[int], shown: list[int], gap: int | None, max_width: int
) -> list[int] | None:
    """Widths of the shown columns, the widest cut down first, and of the gap; None where ``max_width`` forbids it."""
    widths, least = [natural[i] for i in shown], [floors[i] for i in shown]
    if gap is not None:
        widths.insert(gap, 1)
        least.insert(gap, 1)
    budget = max_width - 3 * len(widths) - 1
    if sum(least) > budget:
        return None if len(shown) > 1 else least
    while sum(widths) > budget:
        index = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        widths[index] -= 1
    return widths


def _box(cells: list[list[str]], widths: list[int], aligns: list[str]) -> list[str]:
    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right

    def draw(row: int) -> str:
        centered = row < 2 or all(column[row] == "·" for column in cells)
        line = zip((column[row] for column in cells), widths, aligns, strict=True)
        return "│ " + " │ ".join(_pad(_fit(cell, w), w, "center" if centered else a) for cell, w, a in line) + " │"

    if not cells:
        return []
    out = [rule("┌", "┬", "┐"), draw(0), draw(1), rule("├", "┼", "┤")]
    return [*out, *(draw(row) for row in range(2, len(cells[0]))), rule("└", "┴", "┘")]
