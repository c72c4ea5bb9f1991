"""Durable queries from notebook cells and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql.cli import main
from sabot_sql.detached.state_directory import StateDirectory
from tests.magics.conftest import Notebook, notebook, shell  # noqa: F401  fixtures

pytestmark = pytest.mark.usefixtures("shared_state")


def test_a_cell_hands_its_query_over_and_another_shows_its_rows(notebook: Notebook) -> None:  # noqa: F811
    notebook.names["wanted"] = 5
    ran = notebook.sabot("SELECT i FROM range(10) r(i) WHERE i >= $wanted", "later << --detach --agents 2")
    assert ran.error is None, ran.out
    handle = notebook.names["later"]
    assert isinstance(handle, sabot_sql.QueryHandle)
    assert f"%sabot --attach {handle.query_id}" in ran.out
    shown = notebook.run(f"%sabot --attach {handle.query_id}")
    assert shown.rows == [[str(i)] for i in range(5, 10)]
    kept = notebook.run(f"rows = %sabot --attach {handle.query_id}")
    assert kept.error is None
    assert notebook.names["rows"].fetchall() == [(i,) for i in range(5, 10)]


def test_a_cell_whose_handle_is_kept_nowhere_displays_it(notebook: Notebook) -> None:  # noqa: F811
    ran = notebook.sabot("SELECT 1", "--detach")
    assert ran.error is None, ran.out
    assert "<QueryHandle q-" in ran.out + ran.text


def test_mistakes_in_a_cell_are_said(notebook: Notebook) -> None:  # noqa: F811
    assert "no durable query q-nothing" in str(notebook.run("%sabot --attach q-nothing").error)
    assert "needs the id" in str(notebook.run("%sabot --attach").error)
    assert "writes nothing" in str(notebook.run("%%sabot --detach\nCREATE TABLE t (i INTEGER)").error)


def test_the_commands(shared_state: StateDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--agents", "2", "SELECT i, i * 2 AS d FROM range(3) r(i) ORDER BY i"]) == 0
    query_id = capsys.readouterr().out.strip()
    assert main(["attach", query_id, "--format", "json", "--timeout", "60"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [{"i": i, "d": 2 * i} for i in range(3)]
    file = tmp_path / "rows.parquet"
    assert main(["attach", query_id, "--format", "parquet", "--output", str(file)]) == 0
    assert pq.read_table(file).num_rows == 3
    assert main(["queries", "--format", "json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(query for query in found if query["query_id"] == query_id)["state"] == "finished"
    assert main(["queries"]) == 0
    assert query_id in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["directory"] == str(shared_state.path)


def test_a_query_is_stopped_by_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a, b) = 1"]) == 0
    query_id = capsys.readouterr().out.strip()
    assert main(["attach", query_id, "--timeout", "0.2"]) == 1
    assert "it goes on" in capsys.readouterr().err
    assert main(["cancel", query_id]) == 0
    assert main(["attach", query_id, "--timeout", "60"]) == 1
    assert "[CANCELLED]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["attach", "q-0"], "NO_SUCH_QUERY"),
        (["cancel", "../x"], "NO_SUCH_QUERY"),
        (["submit"], "give SQL"),
        (["submit", "DROP TABLE t"], "NOT_DURABLE"),
        (["submit", "--priority", "-1", "SELECT 1"], "priority"),
        (["attach", "q-0", "--format", "parquet"], "--output"),
        (["queries", "--limit", "0"], "limit"),
    ],
)
def test_mistakes_are_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().err
