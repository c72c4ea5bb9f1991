"""What the coordinator asks of whoever knows the sources of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class SliceBinding(Protocol):
    """A slice of a source as SQL."""

    @property
    def sql(self) -> str:
        """A SELECT of the source's columns, declared ones and then virtual ones."""
        ...

    @property
    def registrations(self) -> Mapping[str, object]:
        """Objects of this process that the SELECT reads by name."""
        ...


class SourceBinder(Protocol):
    """The sources of one query, and the surroundings that its fragments need on every agent."""

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """Slice ``index`` of ``count`` contiguous ones of a source; slice 0 of 1 is the whole."""
        ...

    def session_settings(self) -> Mapping[str, str]:
        """Settings that change answers and differ from DuckDB's defaults."""
        ...

    def paths(self) -> Sequence[str]:
        """Files, and directories with a slash at the end, that fragments may read in agent processes."""
        ...

    def attachments(self) -> Mapping[str, str]:
        """Name → database file, to attach read-only in agent processes."""
        ...


class NoSources:
    """For job graphs whose fragments read nothing but edges and what DuckDB can make itself."""

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """There are none."""
        raise KeyError(f"no source {source_id!r}; slice {index} of {count} was asked for")

    def session_settings(self) -> Mapping[str, str]:
        """None."""
        return {}

    def paths(self) -> Sequence[str]:
        """None."""
        return ()

    def attachments(self) -> Mapping[str, str]:
        """None."""
        return {}
