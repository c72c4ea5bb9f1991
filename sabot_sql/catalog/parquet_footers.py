"""Rows and bytes of the row groups of Parquet files, read once per version of a file."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sabot_planner import Zone

if TYPE_CHECKING:
    from pyarrow import parquet as pq

_MAX_ENTRIES = 4096

_lock = threading.Lock()
_cache: OrderedDict[tuple[str, int, int], FooterFacts] = OrderedDict()


@dataclass(frozen=True, slots=True)
class FooterFacts:
    """``group_rows[i]`` are the rows of row group i; ``size_bytes`` is what all row groups take uncompressed."""

    group_rows: tuple[int, ...]
    size_bytes: int
    metadata: pq.FileMetaData = field(repr=False, compare=False)
    _zones: dict[str, tuple[Zone, ...] | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def zones(self, column: str) -> tuple[Zone, ...] | None:
        """The least and greatest value of a column in every row group; None where one is not known or may be NULL."""
        if column not in self._zones:
            self._zones[column] = self._read_zones(column)
        return self._zones[column]

    def _read_zones(self, column: str) -> tuple[Zone, ...] | None:
        schema = self.metadata.schema
        index = next((i for i in range(len(schema)) if schema.column(i).path == column), None)
        if index is None:
            return None
        zones = []
        for number, rows in enumerate(self.group_rows):
            statistics = self.metadata.row_group(number).column(index).statistics
            if statistics is None or not statistics.has_min_max or statistics.null_count != 0:
                return None
            try:
                least, greatest = statistics.min, statistics.max
            except (OverflowError, ValueError):
                return None  # a date or time that Python cannot say: BC, after 9999, infinity
            if type(least) not in (int, date, datetime):
                return None
            zones.append(Zone(least, greatest, rows))
        return tuple(zones)

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)


def local_path(name: str) -> Path:
    """Where a file that DuckDB calls ``name`` lies: without ``file:`` and with ``~`` for the home directory."""
    return Path(re.sub(r"\Afile:(//(localhost)?(?=/))?", "", name)).expanduser()


def footer(path: str) -> FooterFacts | None:
    """The facts of a local Parquet file; None where it cannot be read as one, which DuckDB will say better."""
    from pyarrow import parquet as pq  # loaded when the first query is planned, not with the package

    try:
        file = local_path(path)
        status = file.stat()
        key = (path, status.st_mtime_ns, status.st_size)
        with _lock:
            if key in _cache:
                _cache.move_to_end(key)
                return _cache[key]
        metadata = pq.read_metadata(file)
    except (OSError, ValueError):
        return None
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    facts = FooterFacts(tuple(g.num_rows for g in groups), sum(g.total_byte_size for g in groups), metadata)
    with _lock:
        _cache[key] = facts
        while len(_cache) > _MAX_ENTRIES:
            _cache.popitem(last=False)
    return facts
