"""``python -m sabot_sql.durable``: a durable host, in the process that runs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.errors import ConfigError, SabotSQLError

_IDLE_SECONDS = 600.0
_FAILED = 1


def main() -> int:
    """Serve; gives the exit status: 0 also where another host serves already."""
    parser = argparse.ArgumentParser(prog="python -m sabot_sql.durable", description="Run durable queries.")
    parser.add_argument("--state", metavar="DIR", help="the state directory; SABOT_STATE_DIR")
    options = parser.parse_args()
    os.umask(0o077)
    try:
        state = StateDirectory(Path(options.state).absolute()).made() if options.state else StateDirectory.chosen()
        return _serve(state)
    except SabotSQLError as error:
        print(json.dumps(error.to_dict()), file=sys.stderr, flush=True)  # a client that waits reads it
        return _FAILED


def _serve(state: StateDirectory) -> int:
    from sabot_sql.durable.host import AlreadyServed, HostConfig, run_host
    from sabot_sql.durable.retention import Quotas

    idle = os.environ.get("SABOT_HOST_IDLE_SECONDS", str(_IDLE_SECONDS))
    try:
        idle_seconds = float(idle)
    except ValueError:
        raise ConfigError(f"SABOT_HOST_IDLE_SECONDS={idle!r} is to be a number") from None
    config = HostConfig(
        state, os.environ.get("SABOT_STATE_DATABASE") or state.database, idle_seconds, Quotas.of_environment()
    )
    try:
        run_host(config)
    except AlreadyServed:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
