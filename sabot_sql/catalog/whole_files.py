"""Files that become one row each: ``read_text`` and ``read_blob``, cut between files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sabot_planner import SourceInfo
from sabot_sql.catalog.connection import quote_text
from sabot_sql.catalog.file_places import ShownNames
from sabot_sql.catalog.relation_text import FunctionCall
from sabot_sql.catalog.sources import WHOLE, SliceBinding, even_share, even_spans, nothing, select

WHOLE_FILE_FUNCTIONS = frozenset({"read_text", "read_blob"})
"""Each row is a file; the columns are the same whatever the files are."""


@dataclass(frozen=True, slots=True)
class WholeFilesSource:
    """``files`` in the order in which ``call`` reads them."""

    info: SourceInfo
    call: FunctionCall
    relation: str
    files: tuple[str, ...]
    names: ShownNames

    def slice(self, index: int, count: int) -> SliceBinding:
        """The same call over a part of the files."""
        first, last = even_share(index, count, len(self.files))
        shown = {"filename": self.names.sql("filename")}
        if count == 1:
            return SliceBinding(select(self.info.columns, self.relation, None, shown), WHOLE)
        if first == last:
            return nothing(self.info.columns, self.relation)
        names = ", ".join(map(quote_text, self.files[first:last]))
        part = replace(self.call, arguments=(f"[{names}]",))
        return SliceBinding(
            select(self.info.columns, part.sql(), None, shown), even_spans(index, count, len(self.files))
        )
