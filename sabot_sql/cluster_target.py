"""Which agents on other hosts a session is to use: an address list, a file that has one, or an engine to run them."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabot_sql.arguments import shown
from sabot_sql.errors import ConfigError

DEFAULT_PORT = 8815
LEASE_SECONDS = 15.0
"""So long may the link to an agent of another host be silent before the agent is taken for lost."""

_SCHEMES = ("grpc+tls", "grpc")
_LOCAL = "local"
_DASK = "dask"
_DASK_PORT = 8786
_RAY = "ray"
_RAY_CLIENT_PORT = 10001
_KEYS = frozenset({"agents", "addresses", "token_file", "tls_ca", "tls_cert", "tls_key", "lease_seconds", "tls"})


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """``addresses`` of agent services, or where an engine is that starts them (``dask``, ``ray``).

    There are none where ``scheme`` is ``local`` and services are started on this host, where there is a ``client`` of
    an engine already, or where it is the Ray cluster of this process or host.
    """

    scheme: str
    addresses: tuple[tuple[str, int], ...] = ()
    token_file: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    lease_seconds: float = LEASE_SECONDS
    client: Any = None

    @property
    def is_local(self) -> bool:
        """Whether the session starts the services itself, on its own host."""
        return self.scheme == _LOCAL

    @property
    def starts_agents(self) -> bool:
        """Whether an engine starts the services for this session, which says how large they are."""
        return self.scheme in (_DASK, _RAY)

    @property
    def is_ray(self) -> bool:
        """Whether that engine is Ray."""
        return self.scheme == _RAY


def is_cluster(text: object) -> bool:
    """Whether ``text`` names a cluster or is a client of one, and not a database."""
    if is_dask_client(text) or text == _RAY:
        return True
    if not isinstance(text, str | os.PathLike):
        return False
    name = os.fspath(text)
    if not isinstance(name, str):
        return False
    scheme, separator, _ = name.partition("://")
    return name.endswith(".toml") or (bool(separator) and scheme in (*_SCHEMES, _LOCAL, _DASK, _RAY))


def is_dask_client(value: object) -> bool:
    """Whether it is one; Dask is not loaded for that."""
    dask = sys.modules.get("distributed")
    return dask is not None and isinstance(value, dask.Client)


def parse_cluster(text: Any, **options: Any) -> ClusterTarget:
    """The target that ``grpc+tls://host:port,…``, ``dask://…``, ``ray``, ``local://``, a file or a client is.

    ``options`` overrule the file's.

    Raises:
        ConfigError: it is none, or something is missing.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if is_dask_client(text):
        if text.asynchronous:
            raise ConfigError("an asynchronous Dask client cannot be used", hint="make one with asynchronous=False")
        _refuse_files(given, "a Dask client")
        return ClusterTarget(_DASK, lease_seconds=_lease(given), client=text)
    if not isinstance(text, str | os.PathLike):
        raise ConfigError(f"cluster={shown(text)} names no cluster", hint='give "grpc+tls://host:port"')
    name = os.fspath(text)
    if not name.endswith(".toml"):
        return _target(name, given)
    found = _cluster_file(Path(name))
    beside = Path(name).absolute().parent
    for key in ("token_file", "tls_ca", "tls_cert", "tls_key"):
        if isinstance(found.get(key), str):
            found[key] = str(beside / found[key])
    addresses = found.pop("addresses", None)
    if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses) or not addresses:
        raise ConfigError(f"{name}: addresses is to be a list of 'host:port'")
    secure = found.pop("tls", "tls_ca" in {**found, **given})
    found.pop("agents", None)
    return _target(f"{'grpc+tls' if secure else 'grpc'}://{','.join(addresses)}", {**found, **given})


def agents_of(text: Any) -> int | None:
    """How many agents a cluster file asks for, or workers a Dask cluster has.

    Raises:
        ConfigError: only the user can say.
    """
    if is_dask_client(text):
        workers = len(text.nthreads())
        if not workers:
            raise ConfigError("the Dask cluster has no workers yet", hint="say how many agents: agents=N")
        return workers
    name = os.fspath(text)
    if name == _RAY and (nodes := _ray_nodes()):
        return nodes
    if name.partition("://")[0] in (_DASK, _RAY):
        raise ConfigError(f"how many agents is {name} to start?", hint="say agents=N")
    count = _cluster_file(Path(name)).get("agents") if name.endswith(".toml") else None
    return count if isinstance(count, int) else None


def parse_address(text: str, default_port: int | None = DEFAULT_PORT) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port`` or ``[address]:port``.

    Raises:
        ConfigError: it is none of them.
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?", text.strip())
    port = int(match.group(2)) if match and match.group(2) else default_port
    if match is None or port is None or port > 65535:
        raise ConfigError(f"{shown(text)} is no address", hint="give host:port")
    return match.group(1).strip("[]"), port


def address_text(host: str, port: int) -> str:
    """What :func:`parse_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _target(name: str, options: Mapping[str, Any]) -> ClusterTarget:
    scheme, _, rest = name.partition("://")
    if scheme == _LOCAL:
        return ClusterTarget(_LOCAL, lease_seconds=_lease(options))
    if scheme == _DASK:
        _refuse_token(options, "agents that Dask starts")
        address = parse_address(rest.rstrip("/"), _DASK_PORT)
        files = {key: _file(options, key) for key in ("tls_ca", "tls_cert", "tls_key")}
        return ClusterTarget(_DASK, (address,), **files, lease_seconds=_lease(options))
    if scheme == _RAY:
        _refuse_files(options, "agents that Ray starts")
        ray = () if name == _RAY else (parse_address(rest.rstrip("/"), _RAY_CLIENT_PORT),)
        return ClusterTarget(_RAY, ray, lease_seconds=_lease(options))
    if scheme not in _SCHEMES:
        raise ConfigError(f"{shown(name)} names no cluster", hint=f"give {', '.join(f'{s}://…' for s in _SCHEMES)}")
    addresses = tuple(dict.fromkeys(parse_address(part) for part in rest.rstrip("/").split(",")))
    if scheme == "grpc" and options.get("tls_ca"):
        raise ConfigError("tls_ca is for grpc+tls://")
    if scheme == "grpc+tls" and not options.get("tls_ca"):
        raise ConfigError("grpc+tls:// needs tls_ca: the certificate of the authority that signed those of the agents")
    files = {key: _file(options, key) for key in ("token_file", "tls_ca", "tls_cert", "tls_key")}
    return ClusterTarget(scheme, addresses, **files, lease_seconds=_lease(options))


def _ray_nodes() -> int:
    """Those of the Ray cluster that this process is connected to, with CPUs; Ray is not loaded for that."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0
    return sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1)


def _refuse_files(options: Mapping[str, Any], what: str) -> None:
    unused = [key for key in ("tls_ca", "tls_cert", "tls_key") if key in options]
    if unused:
        raise ConfigError(f"{', '.join(unused)}: not for {what}")
    _refuse_token(options, what)


def _refuse_token(options: Mapping[str, Any], what: str) -> None:
    if "token_file" in options:
        raise ConfigError(f"token_file: {what} get one of the session")


def _cluster_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
    unknown = sorted(found.keys() - _KEYS)
    if unknown:
        raise ConfigError(
            f"{path} has unknown keys: {', '.join(unknown)}", hint=f"known are {', '.join(sorted(_KEYS))}"
        )
    return found


def _file(options: Mapping[str, Any], key: str) -> str | None:
    value = options.get(key)
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{key}={shown(value)} is no name of a file")
    return None if value is None else str(Path(value).absolute())


def _lease(options: Mapping[str, Any]) -> float:
    value = options.get("lease_seconds", LEASE_SECONDS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 3600:
        raise ConfigError(f"lease_seconds={shown(value)} is to be a number from 1 to 3600")
    return float(value)
