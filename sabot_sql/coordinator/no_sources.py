"""The sources of an operator graph that has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sabot_sql.errors import InternalError

if TYPE_CHECKING:
    from sabot_planner.job.operators import RangeSplit
    from sabot_sql.catalog.sources import SliceBinding
    from sabot_sql.protocol.task_spec import BatchFunction, FileVersion


class NoSources:
    """For operator graphs whose fragments read nothing but edges and what DuckDB can make itself."""

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """There are none."""
        raise InternalError(f"no source {source_id!r}; slice {index} of {count} was asked for")

    def bind_range(self, source_id: str, split: RangeSplit, first: int, last: int) -> SliceBinding:
        """There are none."""
        raise InternalError(f"no source {source_id!r}; parts [{first}, {last}) of {split.column} were asked for")

    def in_session(self, source_id: str) -> bool:
        """There are none."""
        raise InternalError(f"no source {source_id!r}; its place was asked for")

    def function(self, function_id: str) -> BatchFunction:
        """There are none."""
        raise InternalError(f"no function {function_id!r}")

    def session_settings(self) -> Mapping[str, str]:
        """None."""
        return {}

    def attachments(self) -> tuple[tuple[str, str], ...]:
        """None."""
        return ()

    def paths(self) -> tuple[str, ...]:
        """None."""
        return ()

    def files(self) -> tuple[FileVersion, ...]:
        """None."""
        return ()
