"""A PostgreSQL server of a test's own, from Debian's packages, on loopback and without a password."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"


def binaries() -> Path | None:
    """Where the programs of a server are; None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A server that can be stopped and started again; its data stay."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._run("initdb", "--pgdata", f"{directory}/data", "--auth", "trust", "--username", USER, "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/sabot"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self._directory} -F"
        log = f"{self._directory}/log"
        self._run("pg_ctl", "--pgdata", f"{self._directory}/data", "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """At once, as if it had crashed."""
        self._run("pg_ctl", "--pgdata", f"{self._directory}/data", "-w", "-m", "immediate", "stop")

    def create(self) -> None:
        """Make the database of :attr:`url`."""
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", USER, "sabot")

    def _run(self, program: str, *arguments: str) -> None:
        # The server refuses to run as root.
        user = USER if os.geteuid() == 0 else None
        command = [str(self._programs / program), *arguments]
        # A pipe would stay open as long as the server that pg_ctl starts.
        with tempfile.TemporaryFile() as words:
            done = subprocess.run(
                command,
                user=user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                timeout=60,
                check=False,
            )
            words.seek(0)
            assert done.returncode == 0, f"{command}: {words.read().decode()}"


@contextmanager
def server(programs: Path) -> Iterator[Server]:
    """A running server with an empty database."""
    directory = Path(tempfile.mkdtemp(prefix="sabot-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, USER)
        made = Server(programs, directory)
        made.start()
        try:
            made.create()
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
