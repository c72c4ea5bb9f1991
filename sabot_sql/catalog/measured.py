"""What a session's queries measured: rows and distinct keys of sub-plans, for the estimates of later queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

_MOST_ENTRIES = 4096
"""A name and a number each: about half a megabyte."""


class MeasuredRows:
    """Rows by the name of a sub-plan, which holds the versions of its sources; the longest unused are forgotten.

    May be used by any thread.
    """

    def __init__(self, most_entries: int = _MOST_ENTRIES) -> None:
        self._most_entries = most_entries
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def learn(self, rows: Mapping[str, int], estimated: Mapping[str, int] | None = None) -> None:
        """Remember what a query measured, in the place of what was measured before.

        What a sketch ``estimated`` does not take the place of anything: that may have been measured.
        """
        with self._lock:
            for identity, count in (estimated or {}).items():
                self._rows.setdefault(identity, count)
                self._rows.move_to_end(identity)
            for identity, count in rows.items():
                self._rows[identity] = count
                self._rows.move_to_end(identity)
            while len(self._rows) > self._most_entries:
                self._rows.popitem(last=False)

    def rows(self, identity: str) -> int | None:
        """The rows of a sub-plan when it was last run."""
        with self._lock:
            if identity not in self._rows:
                return None
            self._rows.move_to_end(identity)
            return self._rows[identity]
