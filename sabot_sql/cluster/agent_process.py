"""An agent service as a process of this host, which ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sabot_sql.cluster_target import address_text
from sabot_sql.transport.credentials import Credentials

START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_LISTENS = "listening on "
_LAST_WORDS_BYTES = 2000


class AgentProcess:
    """A ``sabot-sql agent`` on any free port of ``host``; ``options`` are further ones of it.

    It ends when its standard input does, and so with this process, however that ends. :meth:`end` must be called.
    """

    def __init__(self, host: str, credentials: Credentials, options: Sequence[str] = ()) -> None:
        self.host = host
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._directory = tempfile.TemporaryDirectory(prefix="sabot-agent-")
        command = [sys.executable, "-P", "-m", "sabot_sql.cli", "agent", "--with-parent"]
        command += ["--listen", address_text(host, 0)]
        try:
            self._process = subprocess.Popen(
                [*command, *self._secrets(credentials), *options],
                stdin=subprocess.PIPE,
                stdout=self._words,
                stderr=self._words,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        except BaseException:
            self._words.close()
            self._directory.cleanup()
            raise

    @property
    def process_id(self) -> int:
        """Of the service."""
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it listens; 0 as long as it does not."""
        for line in self.last_words.splitlines():
            if line.startswith(_LISTENS):
                return int(line.rpartition(":")[2])
        return 0

    @property
    def last_words(self) -> str:
        """The end of what it has printed."""
        size = os.fstat(self._words.fileno()).st_size
        data = os.pread(self._words.fileno(), _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        return data.decode(errors="replace").strip()

    @property
    def exit_code(self) -> int | None:
        """None as long as it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        return self._process.wait()

    def drain(self) -> None:
        """Tell it to take no new work, and to end once nobody reads what it has."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """End it now, and remove what it was given. May be called again."""
        self._process.kill()
        self._process.wait(_STOP_SECONDS)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._words.close()
        self._directory.cleanup()

    def _secrets(self, credentials: Credentials) -> list[str]:
        """Files that only this user may read: a command line can be seen by all."""
        options: list[str] = []
        contents = {
            "token-file": credentials.token.encode(),
            "tls-ca": credentials.tls_ca,
            "tls-cert": credentials.tls_certificate,
            "tls-key": credentials.tls_key,
        }
        for option, content in contents.items():
            if content:
                path = Path(self._directory.name, option)
                path.touch(mode=0o600)
                path.write_bytes(content)
                options += [f"--{option}", str(path)]
        return options
