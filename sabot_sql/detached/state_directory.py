"""The directory of durable queries: one durable host serves it, and everything that outlives a kernel lies in it."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sabot_sql.errors import ResourceError, UsageError

STATE_DIRECTORY = "STATE_DIRECTORY"
"""Code of a ``ResourceError``: the directory cannot be used."""

_QUERY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """``SABOT_STATE_DIR``, else ``sabot-sql`` in the user's directory for state; of mode 0700.

    ::

        host.lock       held by the durable host as long as it lives
        host.sock       where it listens; mode 0600
        host.log        what it prints
        token           what its clients show; mode 0600
        executor        the name under which it runs queries, and finds them again
        epoch           how many hosts there have been: the fencing token
        system.sqlite   the system database of DBOS, unless that is a PostgreSQL
        queries/ID/     a query: what was asked, what it read of its session, what came of it
        segments/ID/    the outputs of its stages, as long as it runs
    """

    path: Path

    @classmethod
    def chosen(cls) -> StateDirectory:
        """The one that the environment names, made if need be.

        Raises:
            ResourceError: it cannot be made, or others can read it.
        """
        given = os.environ.get("SABOT_STATE_DIR")
        if given:
            path = Path(given)
        else:
            home = os.environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
            path = Path(home, "sabot-sql")
        return cls(path.absolute()).made()

    def made(self) -> StateDirectory:
        """The same, with the directory there.

        Raises:
            ResourceError: it cannot be made, or is not this user's alone.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise _unusable(self.path, "it is not this user's alone: chmod 700 makes it so")
            for directory in (self.queries, self.segments):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error.strerror or str(error)) from None
        return self

    @property
    def lock(self) -> Path:
        """Held by the host as long as it lives."""
        return self.path / "host.lock"

    @property
    def socket(self) -> Path:
        """Where the host listens."""
        return self.path / "host.sock"

    @property
    def log(self) -> Path:
        """What the host prints."""
        return self.path / "host.log"

    @property
    def database(self) -> Path:
        """The SQLite file of DBOS."""
        return self.path / "system.sqlite"

    @property
    def queries(self) -> Path:
        """One directory a query."""
        return self.path / "queries"

    @property
    def segments(self) -> Path:
        """The outputs of the stages of queries that run."""
        return self.path / "segments"

    def query(self, query_id: str) -> Path:
        """The directory of one query.

        Raises:
            UsageError: ``query_id`` is no id.
        """
        if not isinstance(query_id, str) or not _QUERY_ID.match(query_id):
            raise UsageError(f"{query_id!r:.80} is no id of a query", code="NO_SUCH_QUERY")
        return self.queries / query_id

    def token(self) -> str:
        """What clients show to the host; made when it is first asked for.

        Raises:
            ResourceError: it cannot be written.
        """
        return self._once("token", lambda: secrets.token_hex(_TOKEN_BYTES))

    def executor(self) -> str:
        """The name under which hosts of this directory run queries.

        Raises:
            ResourceError: it cannot be written.
        """
        return self._once("executor", lambda: f"sabot-{secrets.token_hex(8)}")

    def epoch(self) -> int:
        """How many hosts there have been."""
        try:
            return int((self.path / "epoch").read_text())
        except (OSError, ValueError):
            return 0

    def next_epoch(self) -> int:
        """Count one more host; only whoever holds the lock does it.

        Raises:
            ResourceError: it cannot be written.
        """
        epoch = self.epoch() + 1
        write_whole(self.path / "epoch", str(epoch).encode())
        return epoch

    def _once(self, name: str, make: Callable[[], str]) -> str:
        file = self.path / name
        with suppress(OSError):
            if found := file.read_text().strip():
                return found
        unfinished = self.path / f".{name}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            unfinished.touch(mode=0o600)
            unfinished.write_text(make())
            with suppress(FileExistsError):
                os.link(unfinished, file)  # whoever comes first
            return file.read_text().strip()
        except OSError as error:
            raise _unusable(self.path, error.strerror or str(error)) from None
        finally:
            unfinished.unlink(missing_ok=True)


def write_whole(file: Path, data: bytes) -> None:
    """Write a file of mode 0600 that is there whole or not at all.

    Raises:
        ResourceError: it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(data)
        unfinished.replace(file)
    except OSError as error:
        raise _unusable(file.parent, error.strerror or str(error)) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _unusable(path: Path, reason: str) -> ResourceError:
    return ResourceError(
        f"the state directory of durable queries, {path}, cannot be used: {reason}",
        code=STATE_DIRECTORY,
        hint="SABOT_STATE_DIR names another one",
    )
