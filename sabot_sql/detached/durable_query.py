"""What a durable query is asked with, as the JSON file from which a host runs it."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabot_sql.arguments import shown
from sabot_sql.catalog.connection import Parameters
from sabot_sql.cluster_target import ClusterTarget
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.detached.state_directory import write_whole
from sabot_sql.errors import InternalError, UsageError

FORMAT = 1
_FILE = "query.json"


@dataclass(frozen=True, slots=True)
class DurableQuery:
    """``sql`` with its parameters, and the session that it was asked in.

    ``config`` opens a session like it, on a copy of what the query reads of the session's own tables; ``statements``
    bring the rest about: databases to attach, temporary objects, settings, variables.
    """

    query_id: str
    sql: str
    params: Parameters
    config: SessionConfig
    statements: tuple[str, ...]
    submitted_ms: int
    timeout_seconds: float | None = None

    def write(self, directory: Path) -> None:
        """Write it to its file in ``directory``.

        Raises:
            UsageError: a parameter has a type that does not travel.
            ResourceError: the file cannot be written.
        """
        document = {
            "format": FORMAT,
            "query_id": self.query_id,
            "sql": self.sql,
            "params": _params_json(self.params),
            "config": _config_json(self.config),
            "statements": list(self.statements),
            "submitted_ms": self.submitted_ms,
            "timeout_seconds": self.timeout_seconds,
        }
        write_whole(directory / _FILE, json.dumps(document).encode())

    @classmethod
    def read(cls, directory: Path) -> DurableQuery:
        """The query whose file is in ``directory``.

        Raises:
            UsageError: there is none, or this release cannot read it.
        """
        try:
            found = json.loads((directory / _FILE).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"no durable query {directory.name}: {error}", code="NO_SUCH_QUERY") from None
        if found.get("format") != FORMAT:
            raise UsageError(
                f"query {directory.name} was written in format {found.get('format')!r}, this release reads {FORMAT}",
                code="JOURNAL_UNREADABLE",
                hint="run it again, or with the release that wrote it",
            )
        return cls(
            found["query_id"],
            found["sql"],
            _params_of(found["params"]),
            _config_of(found["config"]),
            tuple(found["statements"]),
            found["submitted_ms"],
            found["timeout_seconds"],
        )

    @property
    def first_line(self) -> str:
        """The first line of the SQL that says something."""
        return next((line.strip() for line in self.sql.splitlines() if line.strip()), "")


def _config_json(config: SessionConfig) -> dict[str, Any]:
    cluster = config.cluster
    if cluster is not None and cluster.client is not None:
        raise UsageError(
            "a Dask client of this process cannot be handed to the durable host",
            code="NOT_DURABLE",
            hint='connect("dask://host:port") names the cluster instead',
        )
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        **fields,
        "isolation": config.isolation.value,
        "duckdb": dict(config.duckdb),
        "cluster": None if cluster is None else {**dataclasses.asdict(cluster), "client": None},
    }


def _config_of(fields: Mapping[str, Any]) -> SessionConfig:
    cluster = fields["cluster"]
    if cluster is not None:
        cluster = ClusterTarget(**{**cluster, "addresses": tuple(map(tuple, cluster["addresses"]))})
    return SessionConfig(**{**fields, "isolation": Isolation(fields["isolation"]), "cluster": cluster})


def _params_json(params: Parameters) -> Any:
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {"names": {name: _value_json(value) for name, value in params.items()}}
    return {"values": [_value_json(value) for value in params]}


def _params_of(found: Any) -> Parameters:
    if found is None:
        return None
    if "names" in found:
        return {name: _value_of(value) for name, value in found["names"].items()}
    return [_value_of(value) for value in found["values"]]


_WRITERS: Sequence[tuple[type, str, Callable[[Any], Any]]] = (
    (float, "float", repr),  # JSON has no infinity
    (bytes, "bytes", lambda value: base64.b64encode(value).decode()),
    (dt.datetime, "timestamp", lambda value: value.isoformat()),
    (dt.date, "date", lambda value: value.isoformat()),
    (dt.time, "time", lambda value: value.isoformat()),
    (dt.timedelta, "interval", lambda value: [value.days, value.seconds, value.microseconds]),
    (decimal.Decimal, "decimal", str),
    (uuid.UUID, "uuid", str),
)
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "float": float,
    "bytes": base64.b64decode,
    "timestamp": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "interval": lambda value: dt.timedelta(*value),
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
}


def _value_json(value: object) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, list | tuple):
        return [_value_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"struct": {key: _value_json(item) for key, item in value.items()}}
    for kind, name, write in _WRITERS:
        if type(value) is kind:
            return {name: write(value)}
    raise UsageError(
        f"the parameter {shown(value)} is of type {type(value).__qualname__}, which does not outlive this process",
        code="NOT_DURABLE",
        hint="give a plain value: a number, text, date, Decimal, bytes, or lists and dicts of those",
    )


def _value_of(found: Any) -> Any:
    if isinstance(found, list):
        return [_value_of(item) for item in found]
    if not isinstance(found, dict):
        return found
    ((name, value),) = found.items()
    if name == "struct":
        return {key: _value_of(item) for key, item in value.items()}
    if name not in _READERS:
        raise InternalError(f"a parameter was written as {name!r}")
    return _READERS[name](value)
