"""Certificates for tests, by an authority of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own, made with the ``openssl`` command."""

    folder: Path

    @staticmethod
    def make(folder: Path) -> Authority:
        folder.mkdir()
        openssl(
            folder, "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=sabot-test-root -keyout ca.key -out ca.pem"
        )
        return Authority(folder)

    def issue(self, name: str, address: str = "IP:127.0.0.1,DNS:localhost") -> tuple[bytes, bytes]:
        """A certificate for the addresses and its key."""
        (self.folder / "extensions").write_text(f"subjectAltName={address}\n")
        openssl(self.folder, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
        sign = "x509 -req -days 1 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions"
        openssl(self.folder, f"{sign} -in {name}.csr -out {name}.pem")
        return (self.folder / f"{name}.pem").read_bytes(), (self.folder / f"{name}.key").read_bytes()

    @property
    def root(self) -> bytes:
        return (self.folder / "ca.pem").read_bytes()


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=60)
