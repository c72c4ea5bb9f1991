from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sabot_sql.cli import main


def test_query_prints_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT 42 AS answer"]) == 0
    out = capsys.readouterr().out
    assert "answer" in out
    assert "42" in out


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_plan_stands_before_the_rows(isolation: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.csv"
    file.write_text("k,v\n" + "".join(f"{i % 3},{i}\n" for i in range(300)))
    sql = f"SELECT k, sum(v) AS total FROM '{file}' GROUP BY k ORDER BY k"
    assert main(["query", "--agents", "2", "--isolation", isolation, "--plan", sql]) == 0
    out = capsys.readouterr().out
    for row in ("14850", "14950", "15050"):
        assert row in out
    assert out.index("agent") < out.index("14850")


def test_csv_and_json_come_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT 1 AS a, 'x,\"y\"' AS b, NULL AS n UNION ALL SELECT 2, 'z', 3 ORDER BY a"
    assert main(["query", "--format", "csv", "--plan", sql]) == 0
    captured = capsys.readouterr()
    assert captured.out == 'a,b,n\n1,"x,""y""",\n2,z,3\n'
    assert "one agent" in captured.err
    assert main(["query", "--format", "json", sql]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"a": 1, "b": 'x,"y"', "n": None}, {"a": 2, "b": "z", "n": 3}]


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "table"])
def test_rows_go_to_a_file(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows"
    assert main(["query", "--format", form, "--output", str(file), "SELECT 41 + 1 AS a"]) == 0
    assert capsys.readouterr().out == ""
    assert pq.read_table(file).to_pydict() == {"a": [42]} if form == "parquet" else "42" in file.read_text()


def test_sql_comes_from_a_file_or_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "q.sql"
    file.write_text("CREATE TABLE t AS SELECT 7 AS a;\nFROM t")
    assert main(["query", "--file", str(file), "--format", "csv"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT 8 AS a"))
    assert main(["query", "--file", "-", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "a\n7\na\n8\n"


def test_a_database_is_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = str(tmp_path / "d.duckdb")
    assert main(["query", "--database", database, "--format", "csv", "CREATE TABLE t (a INTEGER)"]) == 0
    assert main(["query", "--database", database, "--format", "csv", "INSERT INTO t VALUES (5)"]) == 0
    assert main(["query", "--database", database, "--format", "csv", "FROM t"]) == 0
    assert capsys.readouterr().out == "Count\n1\na\n5\n"


@pytest.mark.parametrize("form", ["text", "json", "dot", "html", "svg"])
def test_explain_prints_the_plan_and_runs_nothing(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "t.csv"
    file.write_text("k\n1\n2\n")
    assert main(["explain", "--agents", "2", "--format", form, f"SELECT k, count(*) FROM '{file}' GROUP BY k"]) == 0
    out = capsys.readouterr().out
    if form == "json":
        assert json.loads(out)["state"] == "planned"
    assert out.strip() or form == "svg"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "SELEC 1"], "SYNTAX_ERROR"),
        (["query", "FROM nowhere"], "TABLE_NOT_FOUND"),
        (["query"], "give SQL"),
        (["query", "SELECT 1", "--file", "q.sql"], "give SQL"),
        (["query", "--file", "no/such/file.sql"], "cannot read"),
        (["query", "--format", "parquet", "SELECT 1"], "--output"),
        (["query", "--agents", "0", "SELECT 1"], "agents=0"),
        (["explain", "SET threads = 1"], "NOT_A_QUERY"),
    ],
)
def test_errors_are_told_without_a_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_usage_errors_end_with_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["query", "--agents", "many", "SELECT 1"])
    assert ended.value.code == 2
    assert "neither a number nor auto" in capsys.readouterr().err


def test_frames_of_the_program_are_no_tables() -> None:
    options = ["FROM options"]
    assert main(["query", *options]) == 1


def test_ctrl_c_ends_the_program_soon() -> None:
    sql = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"
    program = subprocess.Popen(
        [sys.executable, "-m", "sabot_sql.cli", "query", sql], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(2)
    program.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = program.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert program.returncode == 130
    assert err.decode().strip() == "cancelled"
