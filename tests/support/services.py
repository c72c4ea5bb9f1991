"""Agent services as processes of a test, on this host or in the network namespaces of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 60.0


@dataclass
class Service:
    """One ``sabot-sql agent``; ``prefix`` is a command that runs it elsewhere, such as ``ip netns exec``."""

    folder: Path
    listen: str = "127.0.0.1:0"
    options: Sequence[str] = ()
    prefix: Sequence[str] = ()
    port: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"
        self.start()

    def start(self) -> None:
        command = [*self.prefix, sys.executable, "-m", "sabot_sql.cli", "agent", "--listen", self.listen]
        spill = self.folder / "spill"
        spill.mkdir(exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--spill", str(spill), *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    def wait_ready(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while "listening on " not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"no service: {self.log.read_text()}")
            time.sleep(0.02)
        self.port = int(self.log.read_text().partition("listening on ")[2].split()[0].rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the Python process, also where ``ip netns exec`` started it: that replaces itself by the program."""
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill(signal.SIGCONT)
            self.kill()
        self.process.wait(10)

    def left_behind(self) -> list[Path]:
        return [path for path in (self.folder / "spill").rglob("*") if path.is_file()]

    def health(self, *options: str) -> dict[str, object]:
        host = self.listen.rpartition(":")[0]
        command = [*self.prefix, sys.executable, "-m", "sabot_sql.cli", "agent", "--status", f"{host}:{self.port}"]
        found = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=60)
        health: dict[str, object] = json.loads(found.stdout)
        return health


def token_file(folder: Path) -> Path:
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text("token-of-a-cluster-of-a-test")
    return path
