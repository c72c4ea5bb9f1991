"""The example notebooks run from top to bottom, as stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs_and_paths(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not any(word in path.read_text() for word in ("/home/", "/root/", "/tmp/", "/work/", "C:\\\\"))


@pytest.fixture(scope="module")
def tpch(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("notebooks")
    notebook = nbformat.read(FOLDER / "tpch.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        # Each run has its own empty profile; a broken one of the user's must not matter.
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("notebooks")
    notebook = nbformat.read(FOLDER / "fraud_detection.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_fraud_notebook_finds_the_planted_frauds_and_shows_the_graph(fraud: list[Any]) -> None:
    said = output(fraud, "job.to_execution_graph()").text
    assert "27 tasks" in said
    assert "source → enrich: FORWARD, 10 connections" in said
    assert "enrich → fraud: HASH, 50 connections" in said
    assert "fraud → alerts: REBALANCE, 10 connections" in said
    assert output(fraud, "session.run_job(job)").text == "40 of 40 frauds found, and 0 that are none\n"
    for cell in ("session.explain(job)", "result.plan"):
        html = output(fraud, cell).data["text/html"]
        assert "<svg" in html
        assert "enrich" in html
        assert "HASH" in html


def output(cells: list[Any], first_words: str) -> Any:
    """The only output of the cell that contains these words."""
    found = [cell for cell in cells if first_words in cell.source]
    assert len(found) == 1
    assert len(found[0].outputs) == 1
    return found[0].outputs[0]


def test_rows_and_plan_are_shown(tpch: list[Any]) -> None:
    data = output(tpch, "count(*) AS count_order").data
    assert "4 rows × 6 columns" in data["text/plain"]
    html = data["text/html"]
    assert "<svg" in html
    assert "HASH" in html
    assert '<b class="mode">distributed</b> 4 agents (threads)' in html
    assert len(html.encode()) < 100_000


def test_parameters_come_from_the_notebook(tpch: list[Any]) -> None:
    assert "10 rows × 4 columns" in output(tpch, "$segment").data["text/plain"]


def test_a_kept_result_is_a_table_of_the_next_cell(tpch: list[Any]) -> None:
    assert output(tpch, "by_nation <<").data["text/plain"] == "by_nation: 25 rows × 4 columns"
    assert "5 rows × 3 columns" in output(tpch, "FROM by_nation GROUP BY region").data["text/plain"]
    assert output(tpch, "by_nation.plan.text()").text.startswith("distributed · 4 agents (threads)")


def test_explain_shows_estimates(tpch: list[Any]) -> None:
    data = output(tpch, "--explain").data
    assert "planned" in data["text/plain"]
    assert "rows" in data["text/plain"]
    assert "<svg" in data["text/html"]


def test_a_mistake_is_shown_without_a_traceback(tpch: list[Any]) -> None:
    error = output(tpch, "o_totalprize")
    assert error.output_type == "error"
    lines = "\n".join(error.traceback).splitlines()
    assert lines[0].startswith("SabotSQLError [COLUMN_NOT_FOUND]")
    assert lines[1:3] == [
        "  1 | SELECT o_orderkey, o_totalprize",
        "    |                    ^^^^^^^^^^^^   Line 1, Col: 20",
    ]
    assert "o_totalprice" in lines[3]


def test_no_cell_writes_anything_else(tpch: list[Any]) -> None:
    streams = [out.name for cell in tpch for out in cell.outputs if out.output_type == "stream"]
    assert streams == ["stdout"]


def test_a_kernel_without_ipywidgets_opens_a_session(tmp_path: Path) -> None:
    # DuckDB refuses every setting of its progress bar there.
    code = "import sys; sys.modules['ipywidgets'] = None\nimport sabot_sql; print(sabot_sql.query('SELECT 42').fetchall())"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0].text == "[(42,)]\n"
