"""The crew that a session's configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import sabot_native
from sabot_sql.agent.crew import Crew
from sabot_sql.agent.pool import Hire
from sabot_sql.cluster.local_provider import LocalProvider
from sabot_sql.cluster.provider import Provider
from sabot_sql.cluster.remote_crew import RemoteCrew
from sabot_sql.cluster.static_provider import StaticProvider
from sabot_sql.cluster_target import ClusterTarget, address_text
from sabot_sql.config import SessionConfig
from sabot_sql.errors import ConfigError
from sabot_sql.transport.credentials import read_credentials

if TYPE_CHECKING:
    from sabot_sql.cluster.agent_order import AgentOrder
    from sabot_sql.cluster.authority import Authority

_LOCAL_SESSIONS = 1


def hire_of(config: SessionConfig, target: ClusterTarget) -> Hire:
    """What makes the crew of the agents at ``target``.

    Raises:
        ConfigError: a file that it names cannot be read.
    """

    def hire(manager: sabot_native.ShuffleManager, lost: Callable[[str], None]) -> Crew:
        return RemoteCrew(_provider(config, target), config.agent_count, target.lease_seconds, manager, lost)

    return hire


def _provider(config: SessionConfig, target: ClusterTarget) -> Provider:
    if target.starts_agents:
        return _engine(config, target)
    if not target.is_local:
        credentials = read_credentials(target.token_file, target.tls_ca, target.tls_cert, target.tls_key)
        return StaticProvider(target.addresses, credentials)
    share = config.memory_bytes // (config.agent_count + 1)
    options = ["--memory", f"{share}B", "--threads", str(config.threads), "--sessions", str(_LOCAL_SESSIONS)]
    return LocalProvider([*options, "--spill", config.spill_directory, "--data", "/"])


def _engine(config: SessionConfig, target: ClusterTarget) -> Provider:
    threads = config.threads if config.threads_given else None

    def order(session: str, token: str, authority: Authority) -> AgentOrder:
        return agent_order.AgentOrder(
            session, token, authority, config.agent_memory_bytes, threads, agent_order.IDLE_SECONDS
        )

    engine = "Ray" if target.is_ray else "Dask"
    try:
        from sabot_sql.cluster import agent_order

        return _ray(target, order) if target.is_ray else _dask(target, order)
    except ModuleNotFoundError as error:
        hint = f"pip install 'sabot-sql[{engine.lower()}]'"
        raise ConfigError(f"{engine} is not installed here: {error}", hint=hint) from None


def _dask(target: ClusterTarget, order: Callable[[str, str, Authority], AgentOrder]) -> Provider:
    from sabot_sql.cluster.dask_provider import DaskAddress, DaskProvider

    if target.client is not None:
        return DaskProvider(target.client, order)
    return DaskProvider(DaskAddress(_address(target), target.tls_ca, target.tls_cert, target.tls_key), order)


def _ray(target: ClusterTarget, order: Callable[[str, str, Authority], AgentOrder]) -> Provider:
    from sabot_sql.cluster.ray_provider import RayProvider

    return RayProvider(f"ray://{_address(target)}" if target.addresses else None, order)


def _address(target: ClusterTarget) -> str:
    (address,) = target.addresses
    return address_text(*address)
