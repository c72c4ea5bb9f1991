"""Where the files of a call lie, whatever directory the process that reads them is in.

DuckDB reads a relative name in the working directory of its process and shows it as it was written. An agent was
started in another directory, or the session has left that one since: names that travel are absolute, and the names that
a query shows are made relative again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sabot_sql.catalog.connection import quote_text
from sabot_sql.catalog.parquet_footers import local_path
from sabot_sql.catalog.relation_text import FunctionCall

GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class ShownNames:
    """DuckDB's names of the files, from those under which they are read: ``prefix`` stands in the place of ``base``."""

    base: str = ""
    prefix: str = ""

    def sql(self, name_sql: str) -> str:
        """The name that DuckDB shows, from an expression that gives the name of the file that is read."""
        if not self.base:
            return name_sql
        shown = f'"system".main.substr({name_sql}, {len(self.base) + 1})'
        return f"{quote_text(self.prefix)} || {shown}" if self.prefix else shown


@dataclass(frozen=True, slots=True)
class PlacedCall:
    """A call whose names are absolute where that can be said; ``relation`` is its SQL.

    Where ``anywhere`` is false, only this process knows which files are meant.
    """

    call: FunctionCall
    relation: str
    patterns: tuple[str, ...]
    names: ShownNames
    anywhere: bool


def placed_call(
    call: FunctionCall, relation: str, patterns: Sequence[str], settings: Mapping[str, str], *, shows_names: bool
) -> PlacedCall:
    """``call``, which reads the files of ``patterns``, with names that mean the same in every directory.

    ``shows_names`` is whether the query wants the names of the files.
    """
    here = PlacedCall(call, relation, tuple(patterns), ShownNames(), anywhere=False)
    searched = [name for name in settings.get("file_search_path", "").split(",") if name.strip()]
    if searched and not all(map(_is_absolute, patterns)):
        # The directories of the search path are tried in turn, and each has its own way to show a name.
        return replace(here, anywhere=all(name.strip().startswith("/") for name in searched))
    try:
        found = [_placed(pattern, settings.get("home_directory", "")) for pattern in patterns]
        relation.encode()
        "".join(name for name, _ in found).encode()
    except (OSError, ValueError):
        return here  # the working directory is gone, or has no name in UTF-8
    if all(name == pattern for (name, _), pattern in zip(found, patterns, strict=True)):
        return replace(here, anywhere=True)
    bases = {names for _, names in found}
    if shows_names and len(bases) > 1:
        return here
    # A directory named like a partition, or with a wildcard, would be read as one.
    if any(GLOB.search(names.base) or "=" in names.base for names in bases):
        return here
    absolute = tuple(name for name, _ in found)
    literals = ", ".join(map(quote_text, absolute))
    argument = literals if len(absolute) == 1 else f"[{literals}]"
    moved = replace(call, arguments=(argument, *call.arguments[1:]))
    return PlacedCall(moved, moved.sql(), absolute, bases.pop() if len(bases) == 1 else ShownNames(), anywhere=True)


def is_remote(name: str) -> bool:
    """Whether DuckDB would not look for ``name`` on this machine's disks."""
    return "://" in name and not name.startswith("file:")


def _is_absolute(pattern: str) -> bool:
    return pattern.startswith(("/", "file:/", "~/")) or pattern == "~" or is_remote(pattern)


def _placed(pattern: str, home_setting: str) -> tuple[str, ShownNames]:
    """The absolute name of a pattern, and how what it finds is shown.

    Raises:
        OSError: the working directory does not exist any more.
        ValueError: the pattern climbs out of directories it went into, which only the file system can follow.
    """
    if pattern == "~" or pattern.startswith("~/"):
        home = home_setting or os.environ.get("HOME", "")
        return (home.rstrip("/") + pattern[1:] if home else pattern), ShownNames()
    if _is_absolute(pattern):
        return pattern, ShownNames()
    here = str(Path.cwd())
    if not GLOB.search(pattern) and not local_path(pattern).is_dir():
        return f"{here}/{pattern}", ShownNames(f"{here}/")
    # What a glob finds is shown without "." and "//".
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    up = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    if ".." in parts[up:]:
        raise ValueError(pattern)
    root = Path(here)
    base = str(root.parents[up - 1]) if 0 < up <= len(root.parents) else str(root) if up == 0 else "/"
    base = base if base.endswith("/") else f"{base}/"
    return base + "/".join(parts[up:]), ShownNames(base, "../" * up)
