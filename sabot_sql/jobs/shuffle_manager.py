"""A shuffle manager with an address, to be driven by hand: rows in by task, partitions out, from any manager."""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa

import sabot_native
from sabot_native.flight import FlightPeer, FlightServer
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_sql import arguments
from sabot_sql.agent.output_writer import output_report
from sabot_sql.coordinator.metrics import Figures, MetricsRegistry
from sabot_sql.errors import AgentError, JobError, ResourceError, SessionClosed
from sabot_sql.jobs.batch_functions import schema_difference
from sabot_sql.jobs.operators import MAX_PARALLELISM
from sabot_sql.scratch import Scratch

if TYPE_CHECKING:
    from types import TracebackType

_QUERY = "by-hand"
_BUDGET_BYTES = 256 << 20
_READ_DEADLINE_MS = 60_000
_MOST_PORT = 65_535
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_LOOPBACK = {"localhost": "127.0.0.1"}

Batch: TypeAlias = "pa.RecordBatch | pa.Table"


@dataclass(frozen=True, slots=True)
class Location:
    """Where an agent's manager listens."""

    agent_id: str
    host: str
    port: int

    @classmethod
    def parsed(cls, text: str | bytes) -> Location:
        """``agent-1:localhost:9000``.

        Raises:
            JobError: it is not of that form.
        """
        agent_id, _, address = as_text(text).partition(":")
        host, _, port = address.rpartition(":")
        if not _ID.match(agent_id) or not host or not port.isdecimal() or int(port) > _MOST_PORT:
            raise JobError(f"{as_text(text)!r} is not of the form agent:host:port", code="LOCATION")
        return cls(agent_id, host, int(port))

    def __str__(self) -> str:
        """As :meth:`parsed` reads it."""
        return f"{self.agent_id}:{self.host}:{self.port}"


@dataclass(slots=True)
class Shuffle:
    """One shuffle as a manager knows it; ``outputs`` are (producing partition, only reader or None, manifest)."""

    shuffle_id: str
    operator_id: str
    keys: tuple[str, ...]
    edge_type: ShuffleEdgeType
    partitions: int
    schema: pa.Schema | None
    bounds: tuple[bytes, ...] = ()
    outputs: list[tuple[int, int | None, sabot_native.Manifest]] = field(default_factory=list)
    producers: dict[int, str] = field(default_factory=dict)

    def read_by(self, partition: int) -> list[sabot_native.Manifest]:
        """What a reader of ``partition`` reads."""
        if self.edge_type is ShuffleEdgeType.FORWARD:
            return [manifest for producer, _, manifest in self.outputs if producer == partition]
        return [manifest for _, only, manifest in self.outputs if only in (None, partition)]

    def figures(self, producer: int, only: int | None, manifest: sabot_native.Manifest) -> Figures:
        """What an output is to the readers: the native writer knows their partitions only where it splits rows."""
        whole = Figures.of(output_report(manifest, manifest.agent_id))
        if self.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE):
            return whole
        one = producer if self.edge_type is ShuffleEdgeType.FORWARD else only
        read = [one in (None, partition) for partition in range(self.partitions)]
        return replace(
            whole,
            partition_rows=tuple(whole.rows * reads for reads in read),
            partition_bytes=tuple(whole.bytes * reads for reads in read),
            partition_batches=tuple(whole.batches * reads for reads in read),
        )

    def within(self, partition: int) -> tuple[int, int]:
        """The native partitions [first, last) that a reader of ``partition`` reads of each manifest."""
        split = self.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE)
        return (partition, partition + 1) if split else (0, 1)


class ShuffleManager:
    """One agent's shuffle memory at ``agent_host:agent_port``: takes batches of tasks and serves their partitions.

    A context manager of both kinds. ``token`` is what other managers must bring; a host beyond loopback needs it, and
    ``tls_certificate`` with ``tls_key`` (PEM). ``tls_ca`` signed the certificates of others, where they are not this
    same one. Methods may be called by any thread.
    """

    def __init__(
        self,
        agent_id: str | bytes,
        agent_host: str | bytes = "localhost",
        agent_port: int = 0,
        *,
        budget_bytes: int = _BUDGET_BYTES,
        spill_directory: str | None = None,
        token: str = "",
        tls_certificate: bytes = b"",
        tls_key: bytes = b"",
        tls_ca: bytes = b"",
    ) -> None:
        self.agent_id = _checked_id("agent_id", agent_id)
        self.agent_host = as_text(agent_host)
        self.agent_port = arguments.whole("agent_port", agent_port, most=_MOST_PORT)
        self._budget_bytes = arguments.whole("budget_bytes", budget_bytes, least=1)
        spills_to = tempfile.gettempdir() if spill_directory is None else spill_directory
        self._scratch = Scratch(arguments.path("spill_directory", spills_to))
        self._token = arguments.text("token", token)
        for name, value in (("tls_certificate", tls_certificate), ("tls_key", tls_key), ("tls_ca", tls_ca)):
            if not isinstance(value, bytes):
                raise JobError(f"{name}={arguments.shown(value)} must be the bytes of a PEM file", code="TLS")
        self._tls = (tls_certificate, tls_key)
        self._tls_root = tls_ca or tls_certificate
        self._key = _new_key()
        self._native: sabot_native.ShuffleManager | None = None
        self._server: FlightServer | None = None
        self._shuffles: dict[str, Shuffle] = {}
        self.metrics = MetricsRegistry()
        """What was written here, by shuffle, partition and task."""
        self._peers: dict[str, ShuffleManager] = {}
        self._clients: dict[tuple[str, int, str], FlightPeer] = {}
        self._written = 0
        self._lock = threading.Lock()

    @property
    def location(self) -> Location:
        """Where it listens."""
        return Location(self.agent_id, self.agent_host, self.agent_port)

    async def start(self) -> None:
        """Take memory and listen; a port of 0 becomes the one that was free.

        Raises:
            ResourceError: the port is taken, or the directory cannot be made.
        """
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """Stop listening and free everything; may be called again."""
        await asyncio.to_thread(self.close)

    def register_shuffle(
        self,
        operator_id: str | bytes,
        partition_keys: Sequence[str | bytes] = (),
        edge_type: ShuffleEdgeType = ShuffleEdgeType.HASH,
        schema: pa.Schema | None = None,
        *,
        shuffle_id: str | bytes = "",
        num_partitions: int | None = None,
        bounds: Sequence[bytes] = (),
    ) -> str:
        """Make a shuffle of the rows of ``operator_id`` known; gives its id. Again with the same is nothing new.

        ``num_partitions`` are those of its readers: 1 unless a coordinator has said otherwise. RANGE needs ``bounds``
        and a BLOB key, which is what ``create_sort_key`` gives.

        Raises:
            JobError: a key is not in the schema, or the shuffle is known as another.
        """
        operator, keys = _checked_id("operator_id", operator_id), _checked_keys(partition_keys)
        if not isinstance(edge_type, ShuffleEdgeType):
            kinds = ", ".join(f"ShuffleEdgeType.{kind.name}" for kind in ShuffleEdgeType)
            raise JobError(f"edge_type={arguments.shown(edge_type)} is none of {kinds}", code="EDGE_TYPE")
        if schema is not None and not isinstance(schema, pa.Schema):
            raise JobError(f"schema={arguments.shown(schema)} is no pyarrow.Schema", code="SCHEMA")
        partitions = (
            1
            if num_partitions is None
            else arguments.whole("num_partitions", num_partitions, least=1, most=MAX_PARALLELISM)
        )
        if not isinstance(bounds, Sequence) or not all(isinstance(bound, bytes) for bound in bounds):
            raise JobError(f"bounds={arguments.shown(bounds)} must be a list of bytes", code="BOUNDS")
        shuffle_id = as_text(shuffle_id) and _checked_id("shuffle_id", shuffle_id)
        found = self._shuffles.get(as_text(shuffle_id)) if shuffle_id else self._of_operator(operator)
        if found is not None:
            return self._known(found, keys, edge_type, schema)
        made = Shuffle(
            shuffle_id or f"{operator}_shuffle", operator, keys, edge_type, partitions, schema,
            tuple(bounds),
        )  # fmt: skip
        scheme_of(made)
        _check_keys(made)
        self._require_native().register_shuffle(_QUERY)
        self._shuffles[made.shuffle_id] = made
        self.metrics.open(made.shuffle_id, made.edge_type.name, made.partitions)
        return made.shuffle_id

    def write_partition(self, shuffle_id: str | bytes, partition_id: int, batch: Batch) -> int:
        """Write rows of task ``partition_id`` of the shuffle's operator; gives how many. They are then committed.

        The manager places them: by the hash of the keys, by range, to all, or in turn.

        Raises:
            JobError: no such shuffle, or other columns than it was registered with.
        """
        shuffle = self._shuffle(shuffle_id)
        partition_id = arguments.whole("partition_id", partition_id, most=MAX_PARALLELISM)
        if shuffle.edge_type is ShuffleEdgeType.FORWARD and partition_id >= shuffle.partitions:
            reason = f"shuffle {shuffle.shuffle_id!r} is FORWARD to {shuffle.partitions} readers: nobody reads what "
            hint = "give num_partitions, as many as there are tasks"
            raise JobError(f"{reason}task {partition_id} writes", code="PARTITION", hint=hint)
        if not isinstance(batch, pa.RecordBatch | pa.Table):
            raise JobError(f"{arguments.shown(batch)} is neither a RecordBatch nor a Table", code="BATCH")
        if shuffle.schema is None:
            shuffle.schema = batch.schema
            _check_keys(shuffle)
        difference = schema_difference(shuffle.schema, batch.schema)
        if difference:
            reason = f"shuffle {shuffle.shuffle_id!r}: batch {len(shuffle.outputs)} of task {partition_id} {difference}"
            raise JobError(reason, code="SCHEMA_CHANGED", operator=shuffle.operator_id)
        with self._lock:
            number, self._written = self._written, self._written + 1
        output = sabot_native.Output(_QUERY, shuffle.shuffle_id, number, 0, scheme_of(shuffle))
        (manifest,) = self._require_native().write_partition(pa.table(batch), [output])
        dealt = shuffle.edge_type is ShuffleEdgeType.REBALANCE
        with self._lock:
            only = len(shuffle.outputs) % shuffle.partitions if dealt else None
            shuffle.outputs.append((partition_id, only, manifest))
            self.metrics.wrote_more(shuffle.shuffle_id, partition_id, shuffle.figures(partition_id, only, manifest))
        return manifest.rows

    def read_partition(self, shuffle_id: str | bytes, partition_id: int) -> pa.RecordBatchReader:
        """All committed rows of a partition: this manager's own from memory, those of others over the network.

        Raises:
            JobError: no such shuffle, a partition that it has not, or rows of a manager in another process.
        """
        shuffle = self._shuffle(shuffle_id)
        streams: list[Any] = [self._own(shuffle, partition_id)]
        for agent_id in sorted(set(shuffle.producers.values()) - {self.agent_id}):
            peer = self._peers.get(agent_id)
            if peer is None:
                reason = f"agent {agent_id!r} has rows of shuffle {shuffle.shuffle_id!r} in another process: "
                reason += "read them by fetch(), with a ticket that its own manager gives"
                raise JobError(reason, code="ELSEWHERE", operator=shuffle.operator_id)
            ticket = peer.ticket(shuffle_id, partition_id)
            if ticket is not None:
                streams.append(self._client(peer.location, peer._token).read(ticket, deadline_ms=_READ_DEADLINE_MS))
        readers = [pa.RecordBatchReader.from_stream(stream) for stream in streams if stream is not None]
        if not readers:
            return pa.RecordBatchReader.from_batches(shuffle.schema or pa.schema([]), [])
        return pa.RecordBatchReader.from_batches(readers[0].schema, (batch for reader in readers for batch in reader))

    def ticket(self, shuffle_id: str | bytes, partition_id: int) -> bytes | None:
        """What another process fetches a partition of this manager's own rows with; None where it has none."""
        shuffle = self._shuffle(shuffle_id)
        manifests = self._manifests(shuffle, partition_id)
        if not manifests:
            return None
        return self._require_native().ticket(manifests, *shuffle.within(partition_id), self._key)

    def fetch(self, location: str | bytes | Location, ticket: bytes, *, token: str = "") -> pa.RecordBatchReader:
        """The rows of a ticket that the manager at ``location`` gave, whichever process or host it is in."""
        place = location if isinstance(location, Location) else Location.parsed(location)
        if not isinstance(ticket, bytes):
            raise JobError(f"{arguments.shown(ticket)} is no ticket: a manager's ticket() gives bytes", code="TICKET")
        try:
            stream = self._client(place, token or self._token).read(ticket, deadline_ms=_READ_DEADLINE_MS)
            return pa.RecordBatchReader.from_stream(stream)
        except sabot_native.NativeError as error:
            raise AgentError(f"cannot read from {place}: {error}", agent=place.agent_id) from error

    def set_locations(self, shuffle_id: str, producers: Mapping[int, str], peers: Mapping[str, ShuffleManager]) -> None:
        """Say which agent has each producing task of a shuffle; a coordinator does."""
        self._shuffle(shuffle_id).producers = dict(producers)
        self._peers = dict(peers)

    def memory(self) -> dict[str, int]:
        """The state of its memory now: ``budget_bytes``, ``pool_bytes``, ``disk_bytes``, …; empty once stopped."""
        return {} if self._native is None else self._native.metrics()

    def close(self) -> None:
        """As :meth:`stop`."""
        if self._server is not None:
            self._server.close()
        if self._native is not None:
            self._native.close()
        self._server = self._native = None
        self._clients.clear()
        self._shuffles.clear()
        self._scratch.close()

    async def __aenter__(self) -> ShuffleManager:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._native is None else f"{len(self._shuffles)} shuffles"
        return f"<ShuffleManager {self.agent_id} at {self.agent_host}:{self.agent_port}: {state}>"

    def _start(self) -> None:
        if self._native is not None:
            return
        _require_free(_LOOPBACK.get(self.agent_host, self.agent_host), self.agent_port)
        native = sabot_native.ShuffleManager(
            self.agent_id, budget_bytes=self._budget_bytes, spill_directory=self._scratch.path
        )
        certificate, key = self._tls
        try:
            self._server = FlightServer(
                native,
                self._key,
                host=_LOOPBACK.get(self.agent_host, self.agent_host),
                port=self.agent_port,
                token=self._token,
                tls_certificate=certificate,
                tls_key=key,
            )
        except (sabot_native.NativeError, OSError, ValueError) as error:
            native.close()
            reason = f"agent {self.agent_id} cannot listen on {self.agent_host}:{self.agent_port}: {error}"
            raise ResourceError(reason, code="CANNOT_LISTEN") from None
        self._native = native
        self.agent_port = self._server.port

    def _client(self, location: Location, token: str) -> FlightPeer:
        host, port = _LOOPBACK.get(location.host, location.host), location.port
        known = (host, port, token)
        if known not in self._clients:
            self._clients[known] = FlightPeer(host, port, token=token, tls_root_certificate=self._tls_root)
        return self._clients[known]

    def _own(self, shuffle: Shuffle, partition: int) -> sabot_native.PartitionStream | None:
        manifests = self._manifests(shuffle, partition)
        return self._require_native().read(manifests, *shuffle.within(partition)) if manifests else None

    def _manifests(self, shuffle: Shuffle, partition: int) -> list[sabot_native.Manifest]:
        partition = arguments.whole("partition_id", partition)
        if partition >= shuffle.partitions:
            reason = f"shuffle {shuffle.shuffle_id!r} has partitions 0 to {shuffle.partitions - 1}, not {partition}"
            raise JobError(reason, code="PARTITION", operator=shuffle.operator_id)
        return shuffle.read_by(partition)

    def _of_operator(self, operator_id: str) -> Shuffle | None:
        found = [shuffle for shuffle in self._shuffles.values() if shuffle.operator_id == operator_id]
        if len(found) > 1:
            ids = ", ".join(shuffle.shuffle_id for shuffle in found)
            raise JobError(f"several shuffles leave {operator_id!r}: say shuffle_id, one of {ids}", code="SHUFFLE")
        return found[0] if found else None

    def _known(
        self, found: Shuffle, keys: tuple[str, ...], edge_type: ShuffleEdgeType, schema: pa.Schema | None
    ) -> str:
        if (found.keys, found.edge_type) != (keys, edge_type):
            shown = f"{found.edge_type.name} by {', '.join(found.keys) or 'nothing'}"
            reason = f"shuffle {found.shuffle_id!r} is {shown}, not {edge_type.name} by {', '.join(keys) or 'nothing'}"
            raise JobError(reason, code="SHUFFLE", operator=found.operator_id)
        if schema is not None:
            if found.schema is not None and schema_difference(found.schema, schema):
                reason = f"shuffle {found.shuffle_id!r}: {schema_difference(found.schema, schema)}"
                raise JobError(reason, code="SCHEMA_CHANGED", operator=found.operator_id)
            found.schema = schema
            _check_keys(found)
        return found.shuffle_id

    def _shuffle(self, shuffle_id: str | bytes) -> Shuffle:
        self._require_native()
        try:
            return self._shuffles[as_text(shuffle_id)]
        except KeyError:
            known = ", ".join(self._shuffles) or "none"
            raise JobError(f"agent {self.agent_id} has no shuffle {as_text(shuffle_id)!r}; it has {known}",
                           code="SHUFFLE") from None  # fmt: skip

    def _require_native(self) -> sabot_native.ShuffleManager:
        if self._native is None:
            raise SessionClosed(f"the shuffle manager of agent {self.agent_id} is not started", hint="await start()")
        return self._native


def as_text(value: str | bytes) -> str:
    """Text, of bytes as well.

    Raises:
        JobError: it is neither.
    """
    try:
        found: object = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        found = None
    if not isinstance(found, str):
        raise JobError(f"{arguments.shown(value)} is neither text nor the bytes of one", code="TEXT")
    return str(found)  # an enum's member may be text as well


def _checked_id(argument: str, value: str | bytes) -> str:
    found = as_text(value)
    if not _ID.match(found):
        raise JobError(f"{argument}={found!r} must be 1 to 64 letters, digits, _ and -", code="ID")
    return found


def _checked_keys(keys: Sequence[str | bytes]) -> tuple[str, ...]:
    if isinstance(keys, str | bytes):
        return (as_text(keys),)
    if not isinstance(keys, Sequence):
        raise JobError(f"partition_keys={arguments.shown(keys)} is no list of names", code="KEYS")
    return tuple(map(as_text, keys))


def scheme_of(shuffle: Shuffle) -> sabot_native.Scheme:
    """How the native writer splits the rows of a shuffle: the one place where its edge types meet the native schemes.

    Raises:
        JobError: the shuffle does not say by what.
    """
    kind: Literal[
        ShuffleEdgeType.FORWARD,
        ShuffleEdgeType.HASH,
        ShuffleEdgeType.BROADCAST,
        ShuffleEdgeType.RANGE,
        ShuffleEdgeType.REBALANCE,
    ] = shuffle.edge_type
    match kind:
        case ShuffleEdgeType.HASH if shuffle.keys:
            return sabot_native.Scheme.hash_columns(shuffle.keys, shuffle.partitions)
        case ShuffleEdgeType.HASH:
            raise JobError(f"shuffle {shuffle.shuffle_id!r}: HASH needs partition_keys", code="KEYS")
        case ShuffleEdgeType.RANGE if len(shuffle.keys) == 1 and len(shuffle.bounds) == shuffle.partitions - 1:
            return sabot_native.Scheme.range_column(shuffle.keys[0], shuffle.bounds)
        case ShuffleEdgeType.RANGE:
            reason = f"RANGE needs one BLOB key and {shuffle.partitions - 1} bounds, it has {len(shuffle.bounds)}"
            raise JobError(f"shuffle {shuffle.shuffle_id!r}: {reason}", code="BOUNDS")
        # Whole batches go in turn, to all, or to the one task of the same number.
        case ShuffleEdgeType.REBALANCE | ShuffleEdgeType.BROADCAST | ShuffleEdgeType.FORWARD:
            return sabot_native.Scheme.single()


def _check_keys(shuffle: Shuffle) -> None:
    if shuffle.schema is None:
        return
    for key in shuffle.keys:
        if key not in shuffle.schema.names:
            raise JobError(
                f"shuffle {shuffle.shuffle_id!r}: key {key!r} is none of {', '.join(shuffle.schema.names)}",
                code="KEY_NOT_IN_SCHEMA",
                operator=shuffle.operator_id,
            )


def _require_free(host: str, port: int) -> None:
    """gRPC shares a port with whoever has it already, and each gets some of the calls."""
    if port == 0:
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ResourceError(f"cannot listen on {host}:{port}: {error.strerror}", code="CANNOT_LISTEN") from None


def _new_key() -> bytes:
    import secrets

    return secrets.token_bytes(32)
