"""Files and directories that are written under hidden names and appear complete, or not at all.

A hidden name says whose it is. What a process that was killed has left beside a target goes when somebody writes there
again on the same host.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
from pathlib import Path

from sabot_sql.protocol.handshake import host_mark
from sabot_sql.scratch import process_started

PART = re.compile(r"part-\d{5,}\.[^/]+\Z")
"""The names of the files of a directory that tasks have written, one each."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_HERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})


def staged(target: Path) -> Path:
    """A new name beside ``target`` to write under; what dead processes have left under such names is removed."""
    host, process = _host(), os.getpid()
    names = re.compile(rf"{re.escape(f'.{target.name}.{host}')}-(\d+)-(\d+)-[0-9a-f]+\.tmp\Z")
    with contextlib.suppress(OSError):
        for entry in target.parent.iterdir():
            left = names.match(entry.name)
            if left and process_started(int(left[1])) != int(left[2]):
                remove(entry)
    owner = f"{host}-{process}-{process_started(process) or 0}"
    return target.with_name(f".{target.name}.{owner}-{secrets.token_hex(4)}.tmp")


def reveal(made: Path, target: Path) -> None:
    """Let ``made`` appear as ``target``, at once, and in place of what is there.

    Raises:
        OSError: it cannot, or something is there that may not go; then ``target`` is as it was.
    """
    if not is_replaceable(target):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(target))
    replaced = staged(target)
    if made.is_dir() == target.is_dir() and not (target.is_dir() and any(target.iterdir())):
        made.replace(target)
    elif not os.path.lexists(target):
        made.rename(target)
    elif _exchanged(made, target):
        remove(made)
    else:
        target.rename(replaced)  # there is no better way on this file system
        try:
            made.rename(target)
        except BaseException:
            replaced.rename(target)
            raise
        remove(replaced)


def is_replaceable(target: Path) -> bool:
    """Whether what is at ``target`` may go: nothing, a file, or a directory with nothing in it but files of tasks."""
    if not os.path.lexists(target) or target.is_file():
        return True
    if target.is_symlink() or not target.is_dir():
        return False
    return all(PART.match(entry.name) and entry.is_file() and not entry.is_symlink() for entry in target.iterdir())


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it; may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names have changed places, in one step; False where the system cannot do that."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _host() -> str:
    """Tells hosts apart that share a file system, and one host before and after it was started anew."""
    mark = host_mark()
    return hashlib.sha256(f"{mark.boot} {mark.namespaces}".encode()).hexdigest()[:8]
