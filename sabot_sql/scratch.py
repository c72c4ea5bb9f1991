"""Private temporary directories, one a session, removed with it and swept when its process is gone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from sabot_sql.errors import ResourceError
from sabot_sql.forks import is_own

_NAME = re.compile(r"sabot-(\d+)-(\d+)-[A-Za-z0-9_]+\Z")


class Scratch:
    """A directory of mode 0700 under ``parent``, made on first use.

    Its name carries the process id and that process's start time, so that another session can tell at its own start
    which directories nobody owns any more.
    """

    def __init__(self, parent: str) -> None:
        self._parent = Path(parent)
        self._path: Path | None = None
        self._owner = os.getpid()

    @property
    def path(self) -> Path:
        """The directory, made if need be.

        Raises:
            ResourceError: it cannot be made.
        """
        if self._path is None:
            try:
                self._parent.mkdir(parents=True, exist_ok=True)
                sweep(self._parent)
                prefix = f"sabot-{os.getpid()}-{process_started(os.getpid()) or 0}-"
                self._path = Path(tempfile.mkdtemp(prefix=prefix, dir=self._parent))
            except OSError as error:
                raise ResourceError(
                    f"cannot make a directory for temporary files in {self._parent}: {error.strerror}",
                    code="NO_SPILL_DIRECTORY",
                ) from None
        return self._path

    def close(self) -> None:
        """Remove the directory and all in it."""
        if self._path is not None and is_own(self._owner):
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None


def sweep(parent: Path) -> None:
    """Remove what sessions of dead processes left in ``parent``; directories of other users are left alone."""
    for entry in parent.iterdir():
        match = _NAME.match(entry.name)
        if match and process_started(int(match.group(1))) != int(match.group(2)):
            with contextlib.suppress(OSError):
                if entry.lstat().st_uid == os.getuid() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)


def process_started(process_id: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
