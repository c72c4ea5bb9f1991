"""What ``sabot-sql top`` does."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys

from sabot_sql.cluster_target import ClusterTarget, parse_cluster
from sabot_sql.errors import ConfigError
from sabot_sql.top import readers
from sabot_sql.top.lines import heading, lines
from sabot_sql.top.screen import watch
from sabot_sql.transport.credentials import Credentials, read_credentials

_LEAST_SECONDS, _MOST_SECONDS = 0.1, 3600.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--once", action="store_true", help="print it as lines and end, as where there is no terminal")
    parser.add_argument("--json", action="store_true", help="print it as JSON and end")
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between two looks (1)")
    parser.add_argument("--connect", metavar="URL", help="agent services as well: grpc+tls://host:port,… or a file")
    parser.add_argument("--token-file", metavar="FILE", help="the secret of the cluster")
    parser.add_argument("--tls-ca", metavar="FILE", help="the authority that signed the agents' certificates (PEM)")
    parser.add_argument("--tls-cert", metavar="FILE", help="a certificate to show them")
    parser.add_argument("--tls-key", metavar="FILE", help="its key")


def top(options: argparse.Namespace) -> None:
    """Show what the sessions of this user on this machine do, and the agent services of a cluster.

    Raises:
        ConfigError: an option is wrong, or the directory of the sessions' sockets is open to others.
    """
    if not _LEAST_SECONDS <= options.interval <= _MOST_SECONDS or math.isnan(options.interval):
        reason = f"--interval {options.interval} is to be from {_LEAST_SECONDS} to {_MOST_SECONDS:.0f} seconds"
        raise ConfigError(reason)
    cluster = _cluster(options)

    def look() -> tuple[list[readers.Status], list[readers.Status]]:
        return readers.sessions(), readers.services(*cluster) if cluster else []

    def draw(width: int) -> tuple[str, list[str]]:
        sessions, services = look()
        return heading(sessions, services), lines(sessions, services, width)

    if options.json:
        sessions, services = look()
        print(json.dumps({"sessions": sessions, "services": services}, indent=2))
    elif options.once or not sys.stdout.isatty():
        head, found = draw(shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize)
        print("\n".join([head, *found]))
    else:
        watch(draw, options.interval)


def _cluster(options: argparse.Namespace) -> tuple[ClusterTarget, Credentials] | None:
    given = {name: getattr(options, name) for name in ("token_file", "tls_ca", "tls_cert", "tls_key")}
    if options.connect is None:
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise ConfigError(f"--{named[0].replace('_', '-')} is for --connect")
        return None
    target = parse_cluster(options.connect, **given)
    if not target.addresses or target.starts_agents:
        raise ConfigError(f"--connect {options.connect} names no agent services", hint="give grpc+tls://host:port,…")
    credentials = read_credentials(target.token_file, target.tls_ca, target.tls_cert, target.tls_key)
    return target, credentials
