"""The sources and functions of all operators of a job, as the coordinator asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sabot_sql.errors import InternalError

if TYPE_CHECKING:
    from sabot_planner import RangeSplit
    from sabot_sql.catalog.query_sources import QuerySources
    from sabot_sql.catalog.sources import SliceBinding
    from sabot_sql.protocol.task_spec import BatchFunction, FileVersion

_MARK = ":"


class JobSources:
    """A :class:`~sabot_sql.catalog.sources.SourceBinder` over one of each SOURCE, and over Python functions."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._binders: dict[str, QuerySources] = {}
        self._functions: dict[str, BatchFunction] = {}

    def add(self, operator_id: str, sources: QuerySources) -> None:
        """Take over what a SOURCE reads; :meth:`source_id` names it from here on."""
        self._binders[operator_id] = sources

    def add_function(self, function_id: str, function: BatchFunction) -> None:
        """Take over the function of an operator."""
        self._functions[function_id] = function

    @staticmethod
    def source_id(operator_id: str, own_id: str) -> str:
        """The name of a source that the SOURCE itself knows as ``own_id``."""
        return f"{operator_id}{_MARK}{own_id}"

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        binder, own_id = self._found(source_id)
        return binder.bind_slice(own_id, index, count)

    def bind_range(self, source_id: str, split: RangeSplit, first: int, last: int) -> SliceBinding:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        binder, own_id = self._found(source_id)
        return binder.bind_range(own_id, split, first, last)

    def in_session(self, source_id: str) -> bool:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        binder, own_id = self._found(source_id)
        return binder.in_session(own_id)

    def function(self, function_id: str) -> BatchFunction:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        try:
            return self._functions[function_id]
        except KeyError:
            raise InternalError(f"no function {function_id!r}") from None

    def session_settings(self) -> Mapping[str, str]:
        """Settings that change answers."""
        return self._settings

    def attachments(self) -> tuple[tuple[str, str], ...]:
        """Database files that fragments read."""
        found = [pair for binder in self._binders.values() for pair in binder.attachments()]
        return tuple(dict.fromkeys(found))

    def paths(self) -> tuple[str, ...]:
        """Files and directories that fragments read."""
        return tuple(dict.fromkeys(path for binder in self._binders.values() for path in binder.paths()))

    def files(self) -> tuple[FileVersion, ...]:
        """The local files among them, as they were when the job was planned."""
        return tuple(dict.fromkeys(file for binder in self._binders.values() for file in binder.files()))

    def changed_file(self) -> str | None:
        """A local file that is not what it was when the job was planned."""
        return next((file for binder in self._binders.values() if (file := binder.changed_file())), None)

    def _found(self, source_id: str) -> tuple[QuerySources, str]:
        operator_id, _, own_id = source_id.partition(_MARK)
        return self._binders[operator_id], own_id
