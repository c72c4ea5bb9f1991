"""The crew that a session's configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

import sabot_native
from sabot_sql.agent.crew import Crew
from sabot_sql.agent.pool import Hire
from sabot_sql.cluster.local_provider import LocalProvider
from sabot_sql.cluster.provider import Provider
from sabot_sql.cluster.remote_crew import RemoteCrew
from sabot_sql.cluster.static_provider import StaticProvider
from sabot_sql.cluster_target import ClusterTarget
from sabot_sql.config import SessionConfig
from sabot_sql.transport.credentials import read_credentials

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
    if not target.is_local:
        credentials = read_credentials(target.token_file, target.tls_ca, target.tls_cert, target.tls_key)
        return StaticProvider(target.addresses, credentials)
    share = config.memory_bytes // (config.agent_count + 1)
    options = ["--memory", f"{share}B", "--threads", str(config.threads), "--sessions", str(_LOCAL_SESSIONS)]
    return LocalProvider([*options, "--spill", config.spill_directory, "--data", "/"])
