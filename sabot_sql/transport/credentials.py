"""What proves who may talk to whom on a cluster."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabot_sql.errors import ConfigError

_LEAST_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Credentials:
    """The token of a cluster and, for TLS, the authority that signed its certificates and an own certificate (PEM)."""

    token: str = field(default="", repr=False)
    tls_ca: bytes = field(default=b"", repr=False)
    tls_certificate: bytes = field(default=b"", repr=False)
    tls_key: bytes = field(default=b"", repr=False)

    def of_client(self) -> dict[str, Any]:
        """The options of a native client."""
        return {
            "token": self.token,
            "tls": bool(self.tls_ca),
            "tls_root_certificate": self.tls_ca,
            "tls_certificate": self.tls_certificate if self.tls_ca else b"",
            "tls_key": self.tls_key if self.tls_ca else b"",
        }


def read_credentials(
    token_file: str | None, tls_ca: str | None, tls_certificate: str | None, tls_key: str | None
) -> Credentials:
    """The contents of those files; an empty one where none is named.

    Raises:
        ConfigError: a file cannot be read, or the token is short or can be read by other users.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise ConfigError("a certificate and its key go together: give both or none")
    return Credentials(
        "" if token_file is None else _token(Path(token_file)),
        *(b"" if name is None else _contents(Path(name)) for name in (tls_ca, tls_certificate, tls_key)),
    )


def _token(path: Path) -> str:
    text = _contents(path).decode(errors="replace").strip()
    if len(text) < _LEAST_TOKEN_CHARACTERS or not text.isascii() or not text.isprintable():
        raise ConfigError(
            f"the token in {path} is no token: {_LEAST_TOKEN_CHARACTERS} or more printable ASCII characters",
            hint=f"make one: (umask 077; openssl rand -hex 32 > {path})",
        )
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"other users may read the token file {path}", hint=f"chmod 600 {path}")
    return text


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
