"""What JupyterLab shows in a real browser: rows, plans and errors, in light and dark, by mouse and keyboard."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.notebooks.lab import OUTPUT, Lab, Server, browser_program, running_browser, running_server

# A server, a browser and a kernel start before the first of them.
pytestmark = pytest.mark.timeout(240)

SLOW = "SELECT count(*) FROM range(25000) a, range(25000) b WHERE a.range * b.range % 7 = 3"
ENDLESS = "SELECT o_custkey % 10, count(*) FROM 'orders.parquet', range(100_000_000_000) GROUP BY 1"

CELLS = {
    "load": "import ipywidgets\nfrom IPython.display import HTML, display\n%load_ext sabot_sql",
    "math": "display(HTML('<p class=\"math\">the cost is $x^2$ in all</p>'))",
    "dollars": "%%sabot\nSELECT 'costs $5 to $10 each' AS \"a $x$ b $y$\", 'in \\(y\\) and $$z$$' AS b, NULL AS n",
    "mistake": "%%sabot\nSELECT nosuch FROM (SELECT 'costs $5 to $10' AS \"$c$\")",
    "tree": "%%sabot\nEXPLAIN SELECT '$5 to $10' || a.range FROM range(9) a JOIN range(9) b ON a.range = b.range",
    "explain": "%%sabot --explain\nSELECT o_custkey % 10, count(*) FROM 'orders.parquet' GROUP BY 1",
    "plan": (
        "%%sabot --agents 2 -n 4\nSELECT o_custkey % 10, c_name, count(*) AS n "
        "FROM 'orders.parquet' JOIN 'customers.parquet' ON o_custkey = c_custkey GROUP BY ALL ORDER BY ALL"
    ),
    "many": "%%sabot -n 100000\nSELECT range AS r, 'some text ' || range AS t FROM range(200000)",
    "wide": "%%sabot\nSELECT " + ", ".join(f"{i} AS column_{i}" for i in range(40)),
    "alone": f"%sabot SET progress_bar_time = 1\n\nalone = %sabot {SLOW}",
    "watched": f"%%sabot --agents 2\n{SLOW}",
    "stopped": f"%%sabot --agents 2\n{ENDLESS}",
    "late": f"%%sabot --agents 2 --timeout 2\n{ENDLESS}",
}
PLACES = {name: place for place, name in enumerate(CELLS)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    browser_program()
    with running_server(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="module")
def new_lab(server: Server) -> Iterator[Callable[[], Lab]]:
    with running_browser() as browser:
        yield lambda: Lab(browser.new_page(viewport={"width": 1300, "height": 4800}), server)


@pytest.fixture(scope="module")
def book(server: Server) -> Path:
    """A notebook of all cells beside the files that they read."""
    orders = {"o_orderkey": range(20_000), "o_custkey": [7 if i % 2 else i % 500 for i in range(20_000)]}
    pq.write_table(pa.table(orders), server.folder / "orders.parquet")
    customers = {"c_custkey": range(500), "c_name": [f"Customer ${i}" for i in range(500)]}
    pq.write_table(pa.table(customers), server.folder / "customers.parquet")
    return server.write("cells", list(CELLS.values()), scrolled=[PLACES["many"]])


@pytest.fixture(scope="module")
def lab(new_lab: Callable[[], Lab], book: Path) -> Lab:
    """The notebook after all but its endless cells have run."""
    lab = new_lab()
    lab.open(book)
    for name, place in PLACES.items():
        if name not in ("watched", "stopped", "late"):
            lab.run(place)
    return lab


def shown(lab: Lab, name: str) -> str:
    return lab.cell(PLACES[name]).locator(OUTPUT).first.inner_text()


def outputs(book: Path, name: str) -> list[Any]:
    found: list[Any] = nbformat.read(book, as_version=4).cells[PLACES[name]].outputs
    return found


def test_dollars_are_no_mathematics(lab: Lab) -> None:
    # Once this one is typeset, the others would have been.
    lab.cell(PLACES["math"]).locator("mjx-container").wait_for()
    for name in ("dollars", "mistake", "tree", "plan"):
        assert lab.cell(PLACES[name]).locator("mjx-container").count() == 0, name
    words = shown(lab, "dollars")
    assert "a $x$ b $y$" in words
    assert "costs $5 to $10 each" in words
    assert r"in \(y\) and $$z$$" in words
    assert "SELECT nosuch FROM (SELECT 'costs $5 to $10' AS \"$c$\")" in shown(lab, "mistake")
    assert "did you mean: $c$?" in shown(lab, "mistake")


def test_plans_of_duckdb_are_trees(lab: Lab) -> None:
    words = shown(lab, "tree")
    assert "\\n" not in words
    lines = words.splitlines()
    assert len(lines) > 8
    assert any("Hash Join" in line for line in lines)
    assert any(line.count("╭") == 2 for line in lines), "the two inputs stand side by side"
    assert "~" in shown(lab, "explain")
    assert "perfect hash group by" in shown(lab, "explain").lower()
    assert "waiting" not in shown(lab, "explain")


def test_rows_and_the_plan_stand_in_one_output(lab: Lab) -> None:
    cell = lab.cell(PLACES["plan"])
    words = shown(lab, "plan")
    assert "4 of 251 rows × 3 columns" in words
    assert "2 agents (threads)" in words
    assert "HASH" in words
    assert "o_custkey % 10" in words
    assert '"%"' not in words
    picture = cell.locator("svg[role=img]").first
    assert picture.is_visible()
    assert "Shuffle plan" in (picture.get_attribute("aria-label") or "")
    assert shown(lab, "wide").count("column_") == 40


def test_one_quiet_line_stands_below_a_small_result(lab: Lab) -> None:
    words = shown(lab, "dollars").splitlines()
    assert re.fullmatch(r"1 row × 3 columns · [\d.]+ m?s", words[-1])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(lab: Lab, dark: bool) -> None:
    lab.theme(dark=dark)
    for fold in lab.page.locator(f"{OUTPUT} .sabot-plan > details").all():
        fold.evaluate("fold => { fold.open = true; for (const f of fold.querySelectorAll('details')) f.open = true }")
    assert lab.violations() == []
    assert lab.faint_words() == []


def test_axe_finds_what_is_wrong(lab: Lab) -> None:
    """The check itself can fail: it sees outputs, and colours of the theme."""
    lab.page.evaluate(
        "selector => { const bad = document.createElement('div'); bad.id = 'bad';"
        " bad.innerHTML = '<p style=\"color:#888;background:#777\">faint</p><svg class=sabot-svg width=60 height=20>"
        "<rect width=60 height=20 style=\"fill:#777\"/><text y=15 style=\"fill:#888;fill-opacity:1\">faint</text></svg>';"
        " const shown = document.querySelectorAll(selector);"
        " for (const place of [shown[0], shown[shown.length - 1]]) place.append(bad.cloneNode(true)) }",
        f".jp-Notebook {OUTPUT}",
    )
    try:
        assert sum(text.startswith("color-contrast") for text in lab.violations()) == 2, "at the top and at the bottom"
        assert lab.faint_words() == ["1.26: faint"] * 2
    finally:
        lab.page.evaluate("for (const bad of document.querySelectorAll('#bad')) bad.remove()")


def test_everything_is_reached_by_the_keyboard(lab: Lab) -> None:
    cell = lab.cell(PLACES["plan"])
    lab.page.evaluate("() => { for (const f of document.querySelectorAll('.sabot-plan details')) f.open = false }")
    cell.locator(".sabot-table .scroll").focus()
    reached = []
    for _ in range(8):
        reached.append(lab.page.evaluate("() => document.activeElement.getAttribute('aria-label') || "
                                         "document.activeElement.textContent"))
        if "as a table" in reached[-1]:
            break
        lab.page.keyboard.press("Tab")
    assert reached[:2] == ["Query result", "Picture of the plan"]
    assert "as a table" in reached[-1]
    lab.page.keyboard.press("Enter")
    table = cell.locator(".sabot-plan table").first
    assert table.is_visible()
    assert "scan orders" in table.inner_text()
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Space")
    assert cell.locator(".sabot-plan pre").first.is_visible(), "the SQL of the first stage"


def test_one_agent_shows_no_bar_of_duckdbs(lab: Lab, book: Path) -> None:
    lab.save()
    (output,) = outputs(book, "alone")
    assert list(output.data) == ["text/plain"]
    assert output.data["text/plain"].startswith("1 row × 1 column · one agent")
    saved = book.read_text()
    assert "widget-view" not in saved
    assert "widget-state" not in saved


def test_a_plan_is_seen_while_it_runs_and_the_rows_take_its_place(lab: Lab, book: Path) -> None:
    cell = lab.cell(PLACES["watched"])
    lab.begin(PLACES["watched"])
    cell.locator(".sabot-plan", has_text=re.compile(r"tasks \d+/\d+")).wait_for()
    lab.wait(PLACES["watched"])
    assert cell.locator(OUTPUT).count() == 1
    words = shown(lab, "watched")
    assert "1 row × 1 column" in words
    assert "running 0" not in words
    lab.save()
    assert [output.output_type for output in outputs(book, "watched")] == ["display_data"]


def test_stop_leaves_the_plan_as_it_was_and_no_stage_running(lab: Lab) -> None:
    cell = lab.cell(PLACES["stopped"])
    lab.begin(PLACES["stopped"])
    cell.locator(".sabot-plan", has_text="· running").wait_for()
    assert lab.violations() == []
    assert lab.faint_words() == []
    lab.command("notebook:interrupt-kernel")
    lab.wait(PLACES["stopped"])
    words = cell.locator(".sabot-plan").inner_text()
    assert "cancelled" in words
    assert "running\n" not in words
    assert "[CANCELLED]" in cell.locator(OUTPUT).last.inner_text()
    lab.run(PLACES["dollars"])
    assert "costs $5 to $10 each" in shown(lab, "dollars")


def test_a_time_out_is_no_failure(lab: Lab) -> None:
    lab.run(PLACES["late"])
    words = lab.cell(PLACES["late"]).locator(".sabot-plan").inner_text()
    assert "timed out" in words
    assert "failed" not in words
    assert "[TIMEOUT]" in lab.cell(PLACES["late"]).locator(OUTPUT).last.inner_text()


def test_a_saved_notebook_is_small_and_whole_without_a_kernel(
    lab: Lab, new_lab: Callable[[], Lab], server: Server, book: Path
) -> None:
    lab.save()
    sizes = {name: [len(json.dumps(output)) for output in outputs(book, name)] for name in CELLS}
    assert max(sizes["many"]) < 210_000, "two forms of it, of 100 kB each"
    assert "shown is what fits 100 kB" in shown(lab, "many")
    assert book.stat().st_size < 600_000
    # As somebody opens it who did not make it: pictures go, rows and the table of the plan stay.
    notebook = nbformat.read(book, as_version=4)
    notebook.cells[0].source += "\n# changed by another hand"
    notebook.metadata["kernelspec"]["name"] = "none-of-these"
    nbformat.write(notebook, server.folder / "copy.ipynb")
    reader = new_lab()
    reader.open(server.folder / "copy.ipynb", kernel=False)
    cell = reader.cell(PLACES["plan"])
    cell.locator(".sabot-plan").wait_for()
    assert "4 of 251 rows × 3 columns" in cell.locator(OUTPUT).inner_text()
    assert reader.page.locator("svg[role=img]").count() == 0
    cell.locator(".sabot-plan summary").first.click()
    assert "scan orders" in cell.locator(".sabot-plan table").first.inner_text()
    assert "costs $5 to $10 each" in shown(reader, "dollars")
    # Without our style a wide table scrolls in a box of JupyterLab's.
    assert reader.violations(allowed=["scrollable-region-focusable"]) == []
    reader.page.close()


def test_nbconvert_gives_a_page_that_needs_nothing_else(lab: Lab, new_lab: Callable[[], Lab], book: Path) -> None:
    lab.save()
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level", "ERROR", str(book)]
    subprocess.run(command, check=True, timeout=60)
    reader = new_lab().page
    reader.route(re.compile("^https?:"), lambda route: route.abort())
    reader.goto(book.with_suffix(".html").as_uri())
    assert "costs $5 to $10 each" in reader.locator("body").inner_text()
    assert "a $x$ b $y$" in reader.locator(".tex2jax_ignore.mathjax_ignore", has_text="costs $5").first.inner_text()
    pictures = reader.locator("svg[role=img]")
    assert pictures.first.is_visible()
    reader.locator(".sabot-plan summary").first.click()
    assert reader.locator(".sabot-plan table").first.is_visible()
    reader.close()


def test_nothing_was_asked_of_another_host(lab: Lab) -> None:
    assert lab.foreign == []
