"""Which files of its host a service lets sessions read, and whether they are those that a session means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sabot_sql.errors import SourceError
from sabot_sql.protocol.task_spec import FileVersion, QueryContext


@dataclass(frozen=True, slots=True)
class DataRoots:
    """Directories, by their real paths; a file counts by where it really lies."""

    roots: tuple[str, ...]

    @staticmethod
    def of(directories: Sequence[str]) -> DataRoots:
        """Those directories.

        Raises:
            SourceError: one is no directory.
        """
        for directory in directories:
            if not Path(directory).is_dir():
                raise SourceError(f"{directory} is no directory", file=directory)
        return DataRoots(tuple(os.path.realpath(directory) for directory in directories))

    def allows(self, path: str) -> bool:
        """Whether the file or directory lies under one of them."""
        real = os.path.realpath(path)
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self.roots)

    def fault(self, context: QueryContext, agent_id: str) -> str:
        """Why tasks of the query cannot run here, or nothing."""
        for path in (
            *context.paths,
            *(path for _, path in context.attachments),
            *filter(None, [context.sink, context.kept_segments]),
        ):
            if "://" not in path and not self.allows(path):
                return f"agent {agent_id} may not read {path}: it is under none of its --data directories"
        return next(filter(None, (_difference(version, agent_id) for version in context.files)), "")

    def mapped(self, context: QueryContext) -> tuple[str, ...]:
        """The paths of the query that are allowed here, and no others."""
        return tuple(path for path in context.paths if "://" in path or self.allows(path))

    @staticmethod
    def error(fault: str) -> SourceError:
        """The fault as an error."""
        return SourceError(fault, code="FILE_DIFFERS")


def _difference(version: FileVersion, agent_id: str) -> str:
    try:
        found = Path(version.path).stat()
    except OSError as error:
        return f"agent {agent_id} cannot read {version.path}: {error.strerror}"
    if (found.st_size, found.st_mtime_ns) == (version.size_bytes, version.mtime_ns):
        return ""
    ours = f"{version.size_bytes} bytes of {version.mtime_ns} ns at the session"
    return (
        f"{version.path} is another file on agent {agent_id}: {found.st_size} bytes of {found.st_mtime_ns} ns, {ours}"
    )
