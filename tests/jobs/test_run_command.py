"""``sabot-sql run job.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sabot_sql.cli import main

JOB = """
from sabot_sql import JobGraph, OperatorType, StreamOperatorNode

job = JobGraph("counts")
numbers = StreamOperatorNode(
    operator_type=OperatorType.SOURCE, operator_id="numbers", parallelism=2, sql="SELECT range AS i FROM range(100)"
)
counts = StreamOperatorNode(
    operator_type=OperatorType.GROUP_BY,
    operator_id="counts",
    parallelism=2,
    key_by=["i"],
    sql="SELECT i, count(*) AS n FROM input WHERE i < 3 GROUP BY i",
)
job.add_operator(numbers)
job.add_operator(counts)
job.connect("numbers", "counts")
"""


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.py"
    path.write_text(JOB)
    return str(path)


def test_a_job_runs_from_a_file(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", job_file, "--agents", "2", "--plan", "--format", "json"]) == 0
    captured = capsys.readouterr()
    rows = sorted((row["i"], row["n"]) for row in map(json.loads, captured.out.splitlines()))
    assert rows == [(0, 1), (1, 1), (2, 1)]
    assert "HASH (i)" in captured.err


def test_a_plan_is_shown_and_nothing_runs(job_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", job_file, "--agents", "2", "--explain"]) == 0
    out = capsys.readouterr().out
    assert "keyed by i: equal keys meet in one task, although both have 2 tasks" in out
    assert "rows ·" not in out


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("1 / 0", [], "line 1: ZeroDivisionError"),
        ("x = 1", [], "makes no JobGraph named 'job'; it makes none"),
        (JOB.replace("job = ", "other = job = "), ["--job", "third"], "its jobs are other, job"),
        ("import sys\nsys.exit(3)", [], "line 2: SystemExit: 3"),
    ],
)
def test_what_a_file_does_wrong_is_told(
    tmp_path: Path, text: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.py"
    path.write_text(text)
    assert main(["run", str(path), *options]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nowhere.py"]) == 1
    assert "there is no file nowhere.py" in capsys.readouterr().err
