"""What ``sabot-sql agent`` does."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing

import sabot_native
from sabot_native.control import ControlClient
from sabot_sql.arguments import whole
from sabot_sql.cluster_target import parse_address
from sabot_sql.config import MAX_THREADS, machine_cores, memory_budget_bytes
from sabot_sql.errors import AgentError, ConfigError
from sabot_sql.service.agent_service import AgentService, ServiceConfig, run_service
from sabot_sql.transport.credentials import read_credentials

_STATUS_MS = 5000
_MOST_SESSIONS = 64
_MOST_GRACE_SECONDS = 86_400.0
_MOST_IDLE_SECONDS = 30 * 86_400.0


def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM has drained the service, or SIGINT has ended it.

    Raises:
        ConfigError: an option is wrong, or the service would be open to anybody.
    """
    host, port = parse_address(options.listen, None)
    credentials = read_credentials(options.token_file, options.tls_ca, options.tls_cert, options.tls_key)
    client_ca = read_credentials(None, options.tls_client_ca, None, None).tls_ca
    if not credentials.token:
        raise ConfigError("an agent needs --token-file", hint="make one: (umask 077; openssl rand -hex 32 > FILE)")
    if credentials.tls_certificate and not credentials.tls_ca:
        raise ConfigError("--tls-cert needs --tls-ca: agents read from each other, and check whom they read from")
    if client_ca and not credentials.tls_certificate:
        raise ConfigError("--tls-client-ca needs --tls-cert")
    if not 0 <= options.grace <= _MOST_GRACE_SECONDS:
        raise ConfigError(f"--grace {options.grace} is to be from 0 to {_MOST_GRACE_SECONDS:.0f} seconds")
    if options.idle is not None and not 0 < options.idle <= _MOST_IDLE_SECONDS:
        raise ConfigError(f"--idle {options.idle} is to be more than 0 and up to {_MOST_IDLE_SECONDS:.0f} seconds")
    config = ServiceConfig(
        host,
        port,
        None if options.advertise is None else parse_address(options.advertise, port or None),
        credentials,
        client_ca,
        memory_budget_bytes(options.memory),
        machine_cores() if options.threads is None else whole("--threads", options.threads, least=1, most=MAX_THREADS),
        whole("--sessions", options.sessions, least=1, most=_MOST_SESSIONS),
        options.spill,
        tuple(options.data),
        options.grace,
        options.idle,
    )
    service = AgentService(config, lambda text: print(text, file=sys.stderr, flush=True))
    print(f"listening on {options.listen.rpartition(':')[0]}:{service.port}", flush=True)
    run_service(service, with_parent=options.with_parent, read_input=lambda: sys.stdin.buffer.read(1))


def print_status(options: argparse.Namespace) -> int:
    """Print what an agent says of itself as JSON.

    Raises:
        AgentError: it does not answer, or refuses the token.
    """
    host, port = parse_address(options.status, None)
    credentials = read_credentials(options.token_file, options.tls_ca, options.tls_cert, options.tls_key)
    try:
        with closing(ControlClient(host, port, **credentials.of_client())) as client:
            health = client.health(_STATUS_MS)
    except sabot_native.NativeError as error:
        raise AgentError(f"{options.status} does not answer: {error}") from None
    print(json.dumps(json.loads(health), indent=2))
    return 0
