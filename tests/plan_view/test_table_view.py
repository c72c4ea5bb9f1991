"""Result tables as HTML and as boxes of text."""

from __future__ import annotations

import datetime as dt
import time
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest

from sabot_sql import table_view
from sabot_sql.table_view import TableSummary, html_table, text_table
from tests.plan_view import plans

pytestmark = pytest.mark.fast

COLUMNS = ["id", "name", "at", "price"]
TYPES = ["BIGINT", "VARCHAR", "TIMESTAMP", "DECIMAL(15,2)"]
ROWS: list[tuple[Any, ...]] = [
    (1, "", dt.datetime(2024, 2, 29, 12, 30), Decimal("1.20")),
    (2, None, None, None),
    (33333, "NULL", dt.datetime(1, 1, 1), Decimal("-100.00")),
]


class Cells(HTMLParser):
    """Cells of a table in order, each with its tag, style and inner text; and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self._cell: list[str] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag in ("td", "th"):
            self._cell = [tag, dict(attrs).get("style") or "", ""]
        elif self._cell:
            self._cell[2] += f"<{tag}>"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell:
            self.cells.append((self._cell[0], self._cell[1], self._cell[2]))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self._cell[2] += data


def test_text_table() -> None:
    summary = TableSummary(1_234_567, elapsed_ms=1234, shuffles=3, moved_bytes=84_000_000)
    assert text_table(COLUMNS, TYPES, ROWS[:2], ROWS[2:], summary=summary).splitlines() == [
        "┌────────┬─────────┬─────────────────────┬───────────────┐",
        "│   id   │  name   │         at          │     price     │",
        "│ BIGINT │ VARCHAR │      TIMESTAMP      │ DECIMAL(15,2) │",
        "├────────┼─────────┼─────────────────────┼───────────────┤",
        "│      1 │         │ 2024-02-29 12:30:00 │          1.20 │",
        "│      2 │ NULL    │ NULL                │          NULL │",
        "│   ·    │    ·    │          ·          │       ·       │",
        "│  33333 │ NULL    │ 0001-01-01 00:00:00 │       -100.00 │",
        "└────────┴─────────┴─────────────────────┴───────────────┘",
        "3 of 1,234,567 rows × 4 columns · 1.2 s · 3 shuffles · 84 MB moved",
    ]


def test_html_tells_null_from_empty_and_from_the_word() -> None:
    cells = Cells(html_table(COLUMNS, TYPES, ROWS, summary=TableSummary(3))).cells
    assert [text for tag, _, text in cells if tag == "th"] == COLUMNS + TYPES
    assert [text for tag, _, text in cells if tag == "td"][1::4] == ["", "<i>NULL", "NULL"]


def test_numbers_stand_at_the_right() -> None:
    cells = Cells(html_table(COLUMNS, TYPES, ROWS, summary=TableSummary(3))).cells
    left = "text-align:left"
    assert [style for _, style, _ in cells] == ["", left, left, ""] * 5
    for name in ("UTINYINT", "HUGEINT", "DOUBLE", "DECIMAL(38,10)", "DECIMAL(3, 1)"):
        assert table_view.is_numeric(name)
    for name in ("DECIMAL(3,1)[]", "VARCHAR", "BOOLEAN", "DOUBLE[3]", "STRUCT(a DOUBLE)"):
        assert not table_view.is_numeric(name)


@pytest.mark.parametrize("hostile", plans.HOSTILE)
def test_hostile_text_stays_text(hostile: str) -> None:
    html = html_table([hostile], [hostile], [[hostile], [{hostile: [hostile]}]], summary=TableSummary(2))
    seen = Cells(html)
    assert set(seen.tags) == {"div", "style", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(seen.attributes) <= {"class", "style", "scope", "tabindex", "role", "aria-label"}
    if hostile.isprintable() and len(hostile) < 60:
        assert [text for _, _, text in seen.cells[:3]] == [hostile] * 3
    text = text_table([hostile], [hostile], [[hostile]], summary=TableSummary(1))
    assert all(line.isprintable() for line in text.splitlines())
    (html + text).encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (float("nan"), "nan"),
        (-0.0, "-0.0"),
        (1e300, "1e+300"),
        (10**30, "1" + "0" * 30),
        (Decimal("1E+3"), "1000"),
        (Decimal("0.0000001"), "0.0000001"),
        (b"a\\\x00\xff", "a\\x5C\\x00\\xFF"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (dt.time(1, 2, 3, 4), "01:02:03.000004"),
        (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), "2024-01-02 00:00:00+00:00"),
        (dt.timedelta(days=1, seconds=2), "1 day, 0:00:02"),
        ([1, None, "a"], "[1, NULL, 'a']"),
        ({"a": [True], "b": {}}, "{'a': [true], 'b': {}}"),
        ("a\nb\tc\x1b\u202e", "a\\nb\\tc\\x1b\\u{202e}"),
        ("é 日本 🦆", "é 日本 🦆"),
    ],
)
def test_value_text(value: object, text: str) -> None:
    assert table_view.value_text(value) == text


def test_long_values_and_many_columns_are_cut() -> None:
    columns, types = [f"c{i}" for i in range(80)], ["VARCHAR"] * 80
    seen = Cells(html_table(columns, types, [["x" * 1000] * 80], summary=TableSummary(1)))
    values = [text for tag, _, text in seen.cells if tag == "td"]
    assert len(values) == 51
    assert values[0] == "x" * 199 + "…"
    assert values[25] == "…"
    assert [text for tag, _, text in seen.cells if tag == "th"][24:27] == ["c24", "…", "c55"]
    assert "1 row × 50 of 80 columns" in seen.text


@pytest.mark.parametrize("value", ["é<&'\"" * 50, "x" * 500, None, 1.5])
@pytest.mark.parametrize("columns", [1, 50, 1000])
def test_html_stays_below_its_budget(value: object, columns: int) -> None:
    rows = [[value] * columns] * 1000
    start = time.perf_counter()
    html = html_table(
        [f"column <{i}>" for i in range(columns)], ["VARCHAR"] * columns, rows, rows, summary=TableSummary(10**6)
    )
    assert len(html.encode()) < 100_000
    assert "of 1,000,000 rows" in html
    assert time.perf_counter() - start < 5


def test_a_megabyte_in_one_cell_costs_nothing() -> None:
    rows = [["x" * 10_000_000, b"y" * 10_000_000, list(range(1_000_000))]] * 20
    start = time.perf_counter()
    html_table(["a", "b", "c"], ["VARCHAR", "BLOB", "BIGINT[]"], rows, summary=TableSummary(20))
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("width", [40, 60, 100, 160])
def test_text_keeps_its_width_and_whole_numbers(width: int) -> None:
    columns, types = ["note", "amount", "more", "at"], ["VARCHAR", "BIGINT", "VARCHAR", "DATE"]
    rows = [["a long note " * 5, 123456789012, "日本語" * 10, dt.date(2024, 1, 1)]]
    text = text_table(columns, types, rows, summary=TableSummary(1), max_width=width)
    assert {table_view.text_width(line) for line in text.splitlines()[:-1]} == {
        table_view.text_width(text.splitlines()[0])
    }
    assert table_view.text_width(text.splitlines()[0]) <= width
    assert "2024-01-01" in text
    if width > 40:
        assert "123456789012" in text


@pytest.mark.parametrize(
    ("summary", "shown", "text"),
    [
        (TableSummary(0), 0, "0 rows × 2 columns"),
        (TableSummary(1), 1, "1 row × 2 columns"),
        (TableSummary(5, truncated_at=5), 5, "5 rows × 2 columns · TRUNCATED at 5"),
        (TableSummary(20, elapsed_ms=0.2, shuffles=0), 20, "20 rows × 2 columns · <1 ms · 0 shuffles"),
        (TableSummary(2, elapsed_ms=61_000, shuffles=1, moved_bytes=999), 1,
         "1 of 2 rows × 2 columns · 1 min 01 s · 1 shuffle · 999 B moved"),
    ],
)  # fmt: skip
def test_summary(summary: TableSummary, shown: int, text: str) -> None:
    assert summary.text(shown, 2, 2) == text


def test_a_statement_without_columns() -> None:
    assert text_table([], [], [], summary=TableSummary(0)) == "0 rows × 0 columns"
    assert "0 rows × 0 columns" in html_table([], [], [], summary=TableSummary(0))
