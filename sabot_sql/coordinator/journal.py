"""The journal of a query: how it began, and every event since. Its state follows from that alone.

A journal has the manifests of committed stages, and never their rows: an entry is what an agent reported, not what it
wrote. It is text, an entry a line, of the types that the declarations name; nothing else can come out of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Column
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.messages import Event
from sabot_sql.errors import UsageError
from sabot_sql.protocol.codec import Blobs, MalformedMessage, decode, encode

JOURNAL_VERSION = 1
"""Changes with whatever makes the same journal mean something else: its fields, or a rule of the coordinator."""

JOURNAL_UNREADABLE = "JOURNAL_UNREADABLE"


@dataclass(frozen=True, slots=True)
class QueryOpening:
    """What a query began with. ``agents`` could be given tasks then; ``session_agent`` runs what only it can read.

    ``to_files``: the last stage writes files and commits the numbers of its rows. ``mode``, ``reason``,
    ``planned_agents`` and ``output`` are the plan's, for those who look at the query.
    """

    query_id: str
    operator_graph: OperatorGraph
    agents: tuple[str, ...]
    session_agent: str
    controller: DBOSParallelController
    adaptive: bool = True
    to_files: bool = False
    mode: str = "distributed"
    reason: str = ""
    planned_agents: int = 0
    output: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An event, and when it was handled: milliseconds since the query began."""

    at_ms: float
    event: Event


@dataclass(frozen=True, slots=True)
class Journal:
    """How a query began, and its events in the order in which they were handled."""

    opening: QueryOpening
    entries: tuple[JournalEntry, ...] = ()

    def lines(self) -> Iterator[str]:
        """The journal as text, the opening first. Every line stands for itself, so that a journal can grow."""
        yield opening_line(self.opening)
        yield from map(entry_line, self.entries)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Journal:
        """The journal of these lines; the events of a prefix are one too.

        Raises:
            UsageError: it is of another version, or no journal.
        """
        rest = iter(lines)
        first = next(rest, None)
        if first is None:
            raise _unreadable("it is empty")
        return cls(_read(first, {"QueryOpening": QueryOpening})[0], tuple(map(_entry, rest)))


def opening_line(opening: QueryOpening) -> str:
    """The first line of a journal."""
    return _line(opening, version=JOURNAL_VERSION)


def entry_line(entry: JournalEntry) -> str:
    """One of the other lines."""
    return _line(entry.event, at_ms=entry.at_ms)


_EVENTS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}


def _line(value: object, **more: object) -> str:
    blobs: Blobs = []
    body = encode(value, blobs)
    texts = [base64.b64encode(blob).decode() for blob in blobs]
    record = {**more, "kind": type(value).__name__, "body": body, "blobs": texts}
    return json.dumps(record, separators=(",", ":"), allow_nan=False)


def _entry(line: str) -> JournalEntry:
    event, record = _read(line, _EVENTS)
    at_ms = record.get("at_ms")
    if not isinstance(at_ms, int | float):
        raise _unreadable(f"an entry has the time {at_ms!r}")
    return JournalEntry(at_ms, event)


def _read(line: str, kinds: Mapping[str, type]) -> tuple[Any, dict[str, Any]]:
    try:
        record = json.loads(line)
        kind, body = record["kind"], record["body"]
        blobs = [base64.b64decode(text, validate=True) for text in record["blobs"]]
    except (ValueError, TypeError, KeyError, RecursionError) as reason:
        raise _unreadable(f"a line is {line[:80]!r}") from reason
    if "QueryOpening" in kinds and record.get("version") != JOURNAL_VERSION:
        raise _unreadable(f"it has version {record.get('version')!r}; this release reads version {JOURNAL_VERSION}")
    if kind not in kinds:
        raise _unreadable(f"it has a {kind!r} where one of {', '.join(sorted(kinds))} belongs")
    try:
        return decode(kinds[kind], body, blobs), record
    except MalformedMessage as reason:
        raise _unreadable(f"a {kind} of it is not one of this release: {reason}") from reason


def _unreadable(what: str) -> UsageError:
    return UsageError(
        f"the journal of a query cannot be read: {what}",
        code=JOURNAL_UNREADABLE,
        hint="run the query again, or read it with the release that wrote it",
    )
