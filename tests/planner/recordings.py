"""What DuckDB answered to the planner, kept in files: plans can then be made, and compared, without a database.

``python -m tests.planner.record`` asks anew. A question that no recording holds fails with that advice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sabot_planner import Column, Placement, PlanSettings, SourceInfo
from sabot_planner.job.plan import PlanContext, Zone

FOLDER = Path(__file__).resolve().parent / "recorded"
SUITES = ("tpch", "tpcds")
AGENTS = 4
_POSITION = re.compile(r'"query_location(?:_length)?":\d+,?')


class NotRecorded(LookupError):
    """The planner asked what no recording holds."""

    def __init__(self, question: str) -> None:
        super().__init__(f"not recorded: {question}\nrun python -m tests.planner.record")


@dataclass(slots=True)
class Answers:
    """The answers to all questions that the planning of one query asks."""

    exported: str
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int | None] = field(default_factory=dict)
    parses: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Recording:
    """The answers for a suite of queries, by the query's name, and those that are the same for all."""

    aggregates: list[str]
    volatile: list[str]
    queries: dict[str, Answers]

    @staticmethod
    def load(suite: str) -> Recording:
        """The recording of a suite."""
        stored = json.loads((FOLDER / f"{suite}.json").read_text())
        queries = {name: Answers(**answers) for name, answers in stored["queries"].items()}
        return Recording(stored["aggregates"], stored["volatile"], queries)

    def store(self, suite: str) -> None:
        """Write the recording, one answer a line, so that a change shows as the answers that it touches."""
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{suite}.json").write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    def context(self, query: str, settings: PlanSettings | None = None) -> RecordedContext:
        """The context in which the query can be planned again."""
        return RecordedContext(self, self.queries[query], settings or PlanSettings())


@dataclass(slots=True)
class RecordedContext:
    """Implements ``PlanContext`` by recorded answers."""

    recording: Recording
    answers: Answers
    settings: PlanSettings
    agents: int = AGENTS

    def source(self, relation_sql: str, virtual_columns: Sequence[str]) -> SourceInfo:
        stored = _answer(self.answers.sources, _source_question(relation_sql, virtual_columns))
        columns = tuple(Column(**column) for column in stored["columns"])
        return SourceInfo(**{**stored, "columns": columns, "placement": Placement(stored["placement"])})

    def types(self, expressions: Sequence[str], relation_sql: str) -> tuple[str, ...]:
        return tuple(_answer(self.answers.types, _types_question(expressions, relation_sql)))

    def aggregates(self) -> frozenset[str]:
        return frozenset(self.recording.aggregates)

    def volatile_functions(self) -> frozenset[str]:
        return frozenset(self.recording.volatile)

    def is_collated(self) -> bool:
        return False

    def rows_estimated(self, tables: Sequence[str]) -> int | None:
        found: int | None = _answer(self.answers.rows, " ".join(tables))
        return found

    def check(self) -> None:
        pass

    def recalls(self) -> bool:
        return False

    def remembered(self, identity: str) -> int | None:
        raise AssertionError(f"nothing was measured, but {identity} was asked for")

    def zones(self, source_id: str, column: str) -> tuple[Zone, ...] | None:
        return None

    def serialized(self, sql: str) -> str:
        return _parse(_answer(self.answers.parses, _digest(sql)))


@dataclass(slots=True)
class Recorder:
    """Passes the planner's questions on to a context and keeps the answers."""

    asked: PlanContext
    answers: Answers

    @property
    def agents(self) -> int:
        return self.asked.agents

    @property
    def settings(self) -> PlanSettings:
        return self.asked.settings

    def source(self, relation_sql: str, virtual_columns: Sequence[str]) -> SourceInfo:
        found = self.asked.source(relation_sql, virtual_columns)
        self.answers.sources[_source_question(relation_sql, virtual_columns)] = asdict(found)
        return found

    def types(self, expressions: Sequence[str], relation_sql: str) -> tuple[str, ...]:
        found = self.asked.types(expressions, relation_sql)
        self.answers.types[_types_question(expressions, relation_sql)] = list(found)
        return found

    def aggregates(self) -> frozenset[str]:
        return self.asked.aggregates()

    def volatile_functions(self) -> frozenset[str]:
        return self.asked.volatile_functions()

    def is_collated(self) -> bool:
        return self.asked.is_collated()

    def rows_estimated(self, tables: Sequence[str]) -> int | None:
        found = self.asked.rows_estimated(tables)
        self.answers.rows[" ".join(tables)] = found
        return found

    def check(self) -> None:
        pass

    def recalls(self) -> bool:
        return False

    def remembered(self, identity: str) -> int | None:
        return self.asked.remembered(identity)

    def zones(self, source_id: str, column: str) -> tuple[Zone, ...] | None:
        return self.asked.zones(source_id, column)

    def serialized(self, sql: str) -> str:
        """A parse is kept as its digest, without places in the text: the print guard compares parses, no more."""
        parse = self.asked.serialized(sql)
        assert parse.startswith('{"error":false'), parse
        self.answers.parses[_digest(sql)] = _digest(_POSITION.sub("", parse))
        return parse


def _parse(digest: str) -> str:
    return json.dumps({"error": False, "parse": digest}, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _source_question(relation_sql: str, virtual_columns: Sequence[str]) -> str:
    return " ".join([relation_sql, *virtual_columns])


def _types_question(expressions: Sequence[str], relation_sql: str) -> str:
    return f"{', '.join(expressions)} FROM {relation_sql}"


def _answer(answers: dict[str, Any], question: str) -> Any:
    if question not in answers:
        raise NotRecorded(question)
    return answers[question]
