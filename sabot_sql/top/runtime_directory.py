"""The directory in which a user's sessions have their sockets: nobody else may look into it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from sabot_sql.errors import ConfigError

_NAME = "sabot-sql"


def runtime_directory() -> Path:
    """Where it is: in ``$XDG_RUNTIME_DIR`` where there is one, else among the temporary files, by the user's number."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and Path(given).is_absolute() and Path(given).is_dir():
        return Path(given) / _NAME
    return Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}"


def own_directory() -> Path:
    """The directory, made if need be.

    Raises:
        OSError: it cannot be made.
        ConfigError: it is another user's, or others may look into it.
    """
    directory = runtime_directory()
    directory.mkdir(mode=0o700, exist_ok=True)
    check_own(directory)
    return directory


def check_own(directory: Path) -> None:
    """Whether it can be trusted.

    Raises:
        OSError: there is none.
        ConfigError: it is a link, another user's, or others may look into it.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reason = f"{directory} is not a directory of this user's that is closed to others"
        raise ConfigError(reason, hint=f"remove it, or: chmod 700 {directory}")
