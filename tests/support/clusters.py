"""Clusters of agent services on hosts of their own, over TLS with a token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sabot_sql
from sabot_sql.cluster.remote_agent import RemoteAgent
from tests.support import hosts
from tests.support.certificates import Authority
from tests.support.services import Service, token_file

PORT = 8815


@dataclass
class Cluster:
    """An agent on each host of a network, and what a session needs to use them."""

    network: hosts.Network
    services: list[Service]
    url: str
    options: dict[str, Any]

    def connect(self, **options: Any) -> sabot_sql.Session:
        return sabot_sql.connect(self.url, **{"agents": len(self.services), **self.options, **options})

    def agents(self, session: sabot_sql.Session) -> list[RemoteAgent]:
        pool = session._pools._pool
        assert pool is not None
        return [agent for agent in pool.agents if isinstance(agent, RemoteAgent)]

    def service_of(self, agent: RemoteAgent) -> int:
        return [self.network.address(name) for name in self.network.names].index(agent.launched.host)


def make(
    folder: Path, network: hosts.Network, data: Path, *, memory: str = "512MiB", threads: int = 1, sessions: int = 4
) -> Cluster:
    """A service on each host; each of up to ``sessions`` sessions has its part of ``memory``."""
    authority = Authority.make(folder / "tls")
    (folder / "ca.pem").write_bytes(authority.root)
    token = token_file(folder)
    services = []
    for name in network.names:
        certificate, key = authority.issue(name, f"IP:{network.address(name)}")
        (folder / f"{name}.pem").write_bytes(certificate)
        (folder / f"{name}.key").write_bytes(key)
        options = ["--token-file", str(token), "--tls-ca", str(folder / "ca.pem"), "--data", str(data)]
        options += ["--tls-cert", str(folder / f"{name}.pem"), "--tls-key", str(folder / f"{name}.key")]
        options += ["--memory", memory, "--threads", str(threads), "--sessions", str(sessions)]
        services.append(Service(folder / name, f"{network.address(name)}:{PORT}", options, network.inside(name)))
    for service in services:
        service.wait_ready()
    url = "grpc+tls://" + ",".join(f"{network.address(name)}:{PORT}" for name in network.names)
    return Cluster(network, services, url, {"token_file": token, "tls_ca": folder / "ca.pem"})
