"""The journal of a durable query on its way from the thread that drives it to the steps that record it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sabot_sql.coordinator.journal import Journal, JournalEntry, QueryOpening, entry_line, opening_line
from sabot_sql.coordinator.keeper import same_query
from sabot_sql.errors import UsageError

_GATHER_SECONDS = 0.04
"""A step costs some milliseconds: events that come close together are one."""

_OPENING = '"kind":"QueryOpening"'


@dataclass(frozen=True, slots=True)
class Piece:
    """Lines that were not recorded yet. ``ended``: nothing comes after them."""

    lines: tuple[str, ...]
    ended: bool


class JournalPieces:
    """Keeps a journal for :func:`~sabot_sql.coordinator.run_query`, and gives it away piece by piece.

    ``recorded`` is what an earlier host had recorded. The driver's thread notes, another one takes.
    """

    def __init__(self, segments: Path, recorded: Sequence[str]) -> None:
        self._segments = segments
        self._recorded = list(recorded)
        self._changed = threading.Condition()
        self._pending: list[str] = []
        self._ended = False

    @property
    def kept_segments(self) -> str:
        """Where committed outputs are kept."""
        return str(self._segments)

    def earlier(self, opening: QueryOpening) -> Journal | None:
        """The journal of an earlier host that had begun just this; see :class:`~sabot_sql.coordinator.keeper.Keeper`.

        A query may have begun several times, each time with another plan: the last beginning counts.
        """
        begins = [place for place, line in enumerate(self._recorded) if _OPENING in line[:80]]
        if not begins:
            return None
        try:
            journal = Journal.from_lines(self._recorded[begins[-1] :])
        except UsageError:
            return None  # of another release: begin anew
        return journal if same_query(journal.opening, opening) else None

    def begin(self, opening: QueryOpening) -> None:
        """The query begins from its start."""
        self._recorded.clear()
        self._add(opening_line(opening))

    def note(self, entry: JournalEntry) -> None:
        """An event was handled."""
        self._add(entry_line(entry))

    def end(self) -> None:
        """Nothing comes any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self) -> Piece:
        """What was noted since, once there is something and what comes right after it is there as well."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._ended)
            self._changed.wait_for(lambda: self._ended, timeout=_GATHER_SECONDS)
            lines, self._pending = tuple(self._pending), []
            return Piece(lines, self._ended)

    def _add(self, line: str) -> None:
        with self._changed:
            self._pending.append(line)
            self._changed.notify_all()
