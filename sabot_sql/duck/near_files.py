"""What the user may have meant by the name of a file that does not exist."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

_MOST_ENTRIES = 10_000
_MOST_CANDIDATES = 3
_LIKENESS = 0.7
_GLOB = frozenset("*?[")


def near_files(name: str) -> list[str]:
    """Names like ``name`` of files that exist, in its directory or in one of a similar name; a glob stays a glob."""
    if "://" in name or "\0" in name:
        return []
    path = Path(name)
    parts = list(path.parts)
    for place, part in enumerate(parts):
        begin, rest = Path(*parts[:place]), Path(*parts[place + 1 :])
        if _GLOB & set(part):
            return []
        if (begin / part).exists():
            continue
        found = [str(begin / like / rest) for like in _alike(part, begin) if _leads_to_files(begin / like, rest)]
        return found[:_MOST_CANDIDATES]
    return []


def _alike(name: str, folder: Path) -> list[str]:
    """Names in ``folder`` like ``name``, the likeliest one first; endings are alike too often to count."""
    stem = Path(name).stem.lower()
    likeness = {
        entry: difflib.SequenceMatcher(None, stem, Path(entry).stem.lower()).ratio() for entry in _entries(folder)
    }
    return sorted((entry for entry, ratio in likeness.items() if ratio >= _LIKENESS), key=lambda e: (-likeness[e], e))


def _entries(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    except OSError:
        return []


def _leads_to_files(folder: Path, rest: Path) -> bool:
    """Whether something of the name or the glob ``rest`` lies in ``folder``."""
    if not rest.parts:
        return True
    if _GLOB & set(str(rest)):
        return any(True for _ in folder.glob(str(rest)))
    return (folder / rest).exists()
