"""Two minutes of the fuzzer with a fixed seed find nothing; and what it does when something is found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

import tests.fuzz.check
from tests.fuzz.__main__ import main
from tests.fuzz.case import Case, Options, Step, case_from_dict, random_case
from tests.fuzz.check import Failure, run_case
from tests.fuzz.shrink import shorter, shrunk
from tests.fuzz.tables import Column, Table
from tests.fuzz.worker import Outcome, Worker

NUMBERS = Table("t", (Column("k", "INTEGER", "i % 7"), Column("v", "BIGINT", "i")), 50)
GROUPED = Step("SELECT k, sum(v) AS s FROM t WHERE v >= 0 GROUP BY k ORDER BY k")


def case_of(*steps: Step, **options: Any) -> Case:
    return Case("made", (NUMBERS,), (), steps, Options(**options))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_minutes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = main(["--seed", "1", "--minutes", "2", "--out", str(tmp_path)])
    assert code == 0, capfd.readouterr().out


def test_a_case_is_the_same_for_the_same_seed() -> None:
    assert random_case(3, 5) == random_case(3, 5)
    assert random_case(3, 5) != random_case(4, 5)
    assert case_from_dict(random_case(3, 5).to_dict()) == random_case(3, 5)


def test_a_right_answer_is_no_failure() -> None:
    counts: Counter[str] = Counter()
    assert run_case(case_of(GROUPED, isolation="process"), counts) is None
    assert counts["distributed"] == 1


def test_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def less(step: Step, *_: Any) -> Any:
        return replace(given, rows=given.rows[:-1])

    given = tests.fuzz.check.Rows(("k", "s"), ("INTEGER", "HUGEINT"), ((1, 2), (2, 3)))
    monkeypatch.setattr(tests.fuzz.check._Run, "_actual", less)
    found = run_case(case_of(GROUPED), Counter())
    assert found is not None
    assert found.kind == "wrong"


def test_what_is_left_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    monkeypatch.setattr(tests.fuzz.check, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(
        tests.fuzz.check._Run, "check", lambda run, step: held.append((run.root / "spill" / "left").open("w"))
    )
    found = run_case(case_of(GROUPED), Counter())
    assert found is not None
    assert found.kind == "leaked"
    assert "files ['left']" in found.detail
    held[0].close()


def test_a_process_that_dies_is_a_failure_and_the_next_case_runs(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        worker = Worker(log)
        assert worker.run({"no": "case"}).failure.kind == "crashed"  # type: ignore[union-attr]
        assert worker.run({"case": case_of(GROUPED).to_dict()}).failure is None
        worker.close()


@dataclass
class Pretended:
    """Fails wherever a table with a row 17 is summed up, as a worker would."""

    runs: int = 0

    def run(self, request: dict[str, Any]) -> Outcome:
        self.runs += 1
        case = case_from_dict(request["case"])
        with duckdb.connect() as connection:
            failed = None
            try:
                for table in case.tables:
                    connection.execute(f"CREATE TABLE {table.name} AS {table.select()}")
                for number, step in enumerate(case.steps):
                    connection.execute(step.sql)
                    (has,) = connection.execute("SELECT count(*) FROM t WHERE v = 17").fetchone() or (0,)
                    if "sum(v)" in step.sql.lower() and has:
                        failed = Failure("wrong", number, "a row is missing")
            except duckdb.Error:
                failed = None
        return Outcome(case, failed, Counter())


def test_a_failing_case_is_made_small() -> None:
    unused = replace(NUMBERS, name="u", storage="parquet")
    large = case_of(Step("FROM t"), GROUPED, Step("FROM t"), agents=4, isolation="process", partitions=9)
    large = replace(large, tables=(unused, NUMBERS))
    small, found = shrunk(large, Failure("wrong", 1, "a row is missing"), Pretended(), 60)
    assert found.kind == "wrong"
    assert [step.sql for step in small.steps] == ["SELECT SUM(v) AS s FROM t"]
    assert small.tables == (replace(NUMBERS, columns=NUMBERS.columns[1:], rows=(17,)),)
    assert (small.options.agents, small.options.isolation, small.options.partitions) == (2, "thread", None)


def test_parts_of_a_statement_go() -> None:
    found = shorter("SELECT a FROM (SELECT a, b FROM t WHERE b > 1 LIMIT 3) AS q")
    assert "SELECT a FROM t AS q" in found
    assert "SELECT a FROM (SELECT a, b FROM t LIMIT 3) AS q" in found
    assert "SELECT a, b FROM t WHERE b > 1 LIMIT 3" in found
