"""Run suites of SELECTs on sabot_sql and on plain DuckDB, and say what is right and how much of it is distributed.

``python -m tests.differential.coverage --suite tests/differential/statements`` runs the repository's own statements;
a suite is a ``.sql`` file, a ``.jsonl`` file (see ``tests.support.statements``), a directory of ``.sql`` files whose
``tables.sql`` comes first, or ``tpch@0.1`` or ``tpcds@0.1``, whose data is generated at that scale factor.
The exit code is 1 where an answer was wrong or a statement failed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from tests.support.engine import answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.statements import Script, Step, scripts
from tests.support.tpcds import data as tpcds
from tests.support.tpch import data as tpch

READS_NOTHING = "the query reads no table"

# What each setting of a run forces: tiny inputs would otherwise all be broadcast or run in one task.
SETTINGS: dict[str, dict[str, Any]] = {
    "late": {"adaptive": True},
    "early": {"adaptive": False},
    "hash": {"adaptive": True, "broadcast_limit": 0},
    "hash-early": {"adaptive": False, "broadcast_limit": 0},
    "spill": {"adaptive": False, "broadcast_limit": 0, "working": "64MiB"},
    "random": {"random": True},
}


def drawn(options: dict[str, Any], script: str, seed: int) -> dict[str, Any]:
    """``options`` with what the setting "random" leaves open drawn anew for each script; the same for the same seed."""
    if not options.get("random"):
        return options
    chance = random.Random(f"{seed} {script}")
    limits: list[dict[str, Any]] = [{}, {"broadcast_limit": 0}, {"broadcast_limit": 100}]
    return {
        **{name: value for name, value in options.items() if name != "random"},
        "partitions": chance.randint(1, 9),
        "adaptive": chance.random() < 0.5,
        **chance.choice(limits),
    }


@dataclass(frozen=True, slots=True)
class Case:
    """One statement under one configuration."""

    file: str
    step: int
    configuration: str
    sql: str
    outcome: str
    mode: str = ""
    reason: str = ""
    detail: str = ""
    elapsed_ms: float = 0.0


@dataclass(slots=True)
class Tally:
    """Outcomes and modes by configuration."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    modes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reading: Counter[str] = field(default_factory=Counter)
    """Right ones whose plan reads a table or table function: DuckDB answers others from constants or statistics."""
    reasons: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case) -> None:
        self.outcomes[case.configuration, case.outcome] += 1
        if case.outcome in (Verdict.EQUAL, Verdict.ADMISSIBLE):
            self.modes[case.configuration, case.mode] += 1
            self.reading[case.configuration] += case.reason != READS_NOTHING
            if case.mode != "distributed":
                self.reasons[f"{case.mode}: {generalised(case.reason)}"] += 1
        else:
            self.causes[f"{case.outcome}: {generalised(_cause(case.detail))}"] += 1

    def _shared(self, configuration: str) -> int:
        return self.modes[configuration, "distributed"] + self.modes[configuration, "partly"]

    def table(self) -> str:
        """One line a configuration, then the reasons and causes by frequency."""
        lines = []
        for configuration in dict.fromkeys(key for key, _ in self.outcomes):
            counts = [f"{name} {n}" for (key, name), n in sorted(self.outcomes.items()) if key == configuration]
            modes = [f"{name} {n}" for (key, name), n in sorted(self.modes.items()) if key == configuration]
            lines.append(f"{configuration:24} {', '.join(counts)}; of the right ones {', '.join(modes)}")
            shared, reading = self._shared(configuration), self.reading[configuration]
            share = shared / max(1, reading)
            lines.append(f"{'':24} of {reading} that read a table {shared} distributed or partly ({share:.1%})")
        lines += ["", "not (fully) distributed because:"]
        lines += [f"{n:6}  {reason}" for reason, n in self.reasons.most_common(40)]
        if self.causes:
            lines += ["", "wrong or failed:"]
            lines += [f"{n:6}  {cause}" for cause, n in self.causes.most_common(40)]
        return "\n".join(lines)


def configurations(agents: Sequence[int], settings: Sequence[str], isolation: str) -> dict[str, dict[str, Any]]:
    """Options of ``connect`` by name, one for each number of agents and each setting."""
    return {
        f"{isolation} {count} {name}": {
            "agents": count,
            "isolation": isolation,
            "partitions": count + 1,
            **SETTINGS[name],
        }
        for count in agents
        for name in settings
    }


def _tpch(scale: float) -> Script:
    steps = [Step(sql, compared=False) for sql in tpch.views(tpch.tpch(scale))]
    return Script(f"tpch@{scale:g}", (*steps, *(Step(sql, compared=True) for sql in tpch.queries().values())))


def _tpcds(scale: float) -> Script:
    steps = [Step(sql, compared=False) for sql in tpcds.views(tpcds.tpcds(scale))]
    return Script(f"tpcds@{scale:g}", (*steps, *(Step(sql, compared=True) for sql in tpcds.queries().values())))


BENCHMARKS = {"tpch": _tpch, "tpcds": _tpcds}


def suite(path: Path) -> Iterator[Script]:
    """The scripts of a suite at ``path``, or of the benchmark that it names."""
    name, at, scale = str(path).partition("@")
    if at and name in BENCHMARKS:
        yield BENCHMARKS[name](float(scale))
        return
    if not path.is_dir():
        yield from scripts(path)
        return
    (tables,) = scripts(path / "tables.sql")
    for file in sorted(path.glob("*.sql")):
        if file.name != "tables.sql":
            for script in scripts(file):
                yield Script(script.name, tables.steps + script.steps)


def run_script(script: Script, chosen: dict[str, dict[str, Any]], seed: int = 0) -> Iterator[Case]:
    """Every SELECT of ``script`` under every configuration, on sessions that stay open for the script."""
    with ExitStack() as stack:
        oracle = stack.enter_context(Oracle())
        sessions = {
            name: stack.enter_context(session(**drawn(options, script.name, seed))) for name, options in chosen.items()
        }
        for number, step in enumerate(script.steps):
            if not step.compared:
                yield from _change(script.name, number, step, oracle, sessions)
                continue
            try:
                oracle.expect(step.sql)
            except duckdb.Error:
                continue  # the suite's own DuckDB was another one
            for name, opened in sessions.items():
                yield _compare(script.name, number, step, name, opened, oracle)


def _change(file: str, number: int, step: Step, oracle: Oracle, sessions: dict[str, Any]) -> Iterator[Case]:
    try:
        oracle.execute(step.sql)
    except duckdb.Error:
        return
    for name, opened in sessions.items():
        try:
            opened.execute(step.sql)
        except Exception as error:  # noqa: BLE001 (whatever it raises is what is reported)
            yield Case(file, number, name, step.sql, "set-up failed", detail=_message(error))


def _compare(file: str, number: int, step: Step, name: str, opened: Any, oracle: Oracle) -> Case:
    started = time.perf_counter()
    try:
        given = answer(opened, step.sql)
    except Exception as error:  # noqa: BLE001 (whatever it raises is what is reported)
        return Case(file, number, name, step.sql, "failed", detail=_message(error))
    elapsed_ms = (time.perf_counter() - started) * 1e3
    verdict, detail = oracle.judge(step.sql, given.rows)
    if given.fell_back:
        return Case(file, number, name, step.sql, "fell back", given.mode, given.reason, given.reason)
    return Case(file, number, name, step.sql, verdict, given.mode, given.reason, detail, round(elapsed_ms, 2))


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _cause(detail: str) -> str:
    said = re.search(r"the agent said: (.*)", detail)
    return said.group(1) if said else (detail.splitlines() or [""])[0]


def generalised(text: str) -> str:
    """``text`` without names and numbers, so that equal causes count together."""
    return re.sub(r"\b\d+(\.\d+)?\b", "N", re.sub(r"'[^']*'|\"[^\"]*\"", "…", text))[:160]


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit code is the process's."""
    parser = argparse.ArgumentParser(prog="coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--suite",
        type=Path,
        action="append",
        required=True,
        help="file, directory, tpch@SCALE or tpcds@SCALE; repeatable",
    )
    parser.add_argument("--agents", default="1,2,3", help="numbers of agents (1,2,3)")
    parser.add_argument("--settings", default="late,hash-early", help=f"some of {','.join(SETTINGS)}")
    parser.add_argument("--isolation", default="thread", choices=["thread", "process"])
    parser.add_argument("--match", default="", help="only scripts whose name matches this regular expression")
    parser.add_argument("--every", type=int, default=1, help="only every n-th script")
    parser.add_argument("--seed", type=int, default=0, help="of the setting random (0)")
    parser.add_argument("--report", type=Path, help="write wrong and failed cases here, one JSON object a line")
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.agents.split(",")]
    chosen = configurations(counts, options.settings.split(","), options.isolation)

    tally, reported = Tally(), []
    selected = [s for path in options.suite for s in suite(path) if re.search(options.match, s.name)]
    for script in selected[:: options.every]:
        for case in run_script(script, chosen, options.seed):
            tally.add(case)
            if case.outcome not in (Verdict.EQUAL, Verdict.ADMISSIBLE):
                reported.append(case)
    if options.report:
        options.report.write_text("".join(json.dumps(asdict(case), default=str) + "\n" for case in reported))
    print(tally.table())
    return 1 if reported else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
