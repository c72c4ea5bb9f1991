"""Committed outputs as files that outlive the agents that wrote them.

An output is one file: for each partition with rows an Arrow IPC stream, one more without rows for the schema, then an
index and its place. It is complete from the moment that it has its name. The name follows from the manifest, which
no other output has: an agent that its coordinator believes dead cannot replace what another one wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

import sabot_native
from sabot_sql.errors import ResourceError
from sabot_sql.transport.interface import EdgeStream, PartsLost, Transport

_MAGIC = b"SABOTSG1"
_TAIL = struct.Struct("<Q8s")
_ALIGNMENT = 64
"""Arrow's own for the buffers of a file that is mapped."""

Partition = Callable[[int], object]
"""Gives the Arrow stream of a partition by its number."""


def segment_path(directory: str, manifest: sabot_native.Manifest) -> Path:
    """Where the output of ``manifest`` is kept."""
    digest = hashlib.sha256(manifest.to_bytes()).hexdigest()[:16]
    name = f"{quote(manifest.edge_id, safe='')}-{manifest.task}-{manifest.attempt}-{digest}.segments"
    return Path(directory, quote(manifest.query_id, safe=""), name)


def keep(directory: str, manifest: sabot_native.Manifest, partition: Partition) -> None:
    """Write an output to its file.

    Raises:
        ResourceError: the file cannot be written. Nothing of it is left.
    """
    path = segment_path(directory, manifest)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with pa.OSFile(str(unfinished), "wb") as file:
            _write(file, manifest, partition)
        unfinished.rename(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise ResourceError(f"cannot keep the output of a stage in {path.parent}: {reason}", code="DISK_FULL") from None
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _write(file: pa.NativeFile, manifest: sabot_native.Manifest, partition: Partition) -> None:
    file.write(_MAGIC)
    places: list[tuple[int, int]] = []
    schema: pa.Schema | None = None
    for number, rows in enumerate(manifest.partition_rows):
        if rows == 0 and (schema is not None or number + 1 < len(manifest.partition_rows)):
            places.append((0, 0))
            continue
        reader = pa.RecordBatchReader.from_stream(partition(number))
        schema = reader.schema
        places.append(_write_stream(file, reader))
    assert schema is not None  # there is at least one partition
    empty = _write_stream(file, pa.RecordBatchReader.from_batches(schema, []))
    index = json.dumps({"rows": list(manifest.partition_rows), "places": places, "schema": empty}).encode()
    file.write(index)
    file.write(_TAIL.pack(len(index), _MAGIC))


def _write_stream(file: pa.NativeFile, reader: pa.RecordBatchReader) -> tuple[int, int]:
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    begin = file.tell()
    with pa.ipc.new_stream(file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return begin, file.tell() - begin


class KeptStream:
    """Partitions of kept outputs, mapped from their files; see :class:`~sabot_sql.transport.interface.EdgeStream`."""

    def __init__(self, directory: str, manifests: Sequence[sabot_native.Manifest], first: int, last: int) -> None:
        """Open the files.

        Raises:
            PartsLost: some are not there, or not whole.
        """
        self._streams: list[pa.Buffer] = []
        self._rows = 0
        self._schema: pa.Schema | None = None
        lost: dict[int, str] = {}
        for position, manifest in enumerate(manifests):
            path = segment_path(directory, manifest)
            try:
                self._open(path, first, last)
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
                lost[position] = f"{path}: {error}"
        if lost:
            raise PartsLost(f"outputs that were kept are gone: {'; '.join(lost.values())}", tuple(lost))

    @property
    def rows(self) -> int:
        """How many they have."""
        return self._rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        batches = (batch for stream in self._streams for batch in pa.ipc.open_stream(stream))
        return pa.RecordBatchReader.from_batches(self._schema, batches).__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        assert self._schema is not None
        return self._schema.__arrow_c_schema__()

    def raise_lost(self) -> None:
        """A file that was whole when it was opened stays so: it is mapped."""

    def cancel(self) -> None:
        """Nothing waits here."""

    def _open(self, path: Path, first: int, last: int) -> None:
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
        end = data.size - _TAIL.size
        if end < len(_MAGIC):
            raise ValueError("the file is too short")
        length, magic = _TAIL.unpack(data.slice(end).to_pybytes())
        if magic != _MAGIC or length > end:
            raise ValueError("the file has no index")
        index = json.loads(data.slice(end - length, length).to_pybytes())
        if self._schema is None:
            self._schema = pa.ipc.open_stream(data.slice(*index["schema"])).schema
        for (begin, size), rows in zip(index["places"][first:last], index["rows"][first:last], strict=True):
            self._rows += rows
            if size:
                self._streams.append(data.slice(begin, size))


class OnlyKept:
    """The files in ``directory``; see :class:`~sabot_sql.transport.interface.Transport`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def open(
        self,
        manifests: Sequence[sabot_native.Manifest],
        first: int,
        last: int,
        *,
        cancel: sabot_native.CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> EdgeStream:
        """See :class:`~sabot_sql.transport.interface.Transport`; nothing here waits."""
        return KeptStream(self._directory, manifests, first, last)


class OrKept:
    """Another transport, and the files in ``directory`` for what it cannot reach any more."""

    def __init__(self, transport: Transport, directory: str) -> None:
        self._transport = transport
        self._kept = OnlyKept(directory)

    def open(
        self,
        manifests: Sequence[sabot_native.Manifest],
        first: int,
        last: int,
        *,
        cancel: sabot_native.CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> EdgeStream:
        """See :class:`~sabot_sql.transport.interface.Transport`."""
        try:
            return self._transport.open(manifests, first, last, cancel=cancel, deadline_ms=deadline_ms)
        except PartsLost:
            return self._kept.open(manifests, first, last)


def kept_or(transport: Transport, directory: str) -> Transport:
    """``transport``, which falls back to ``directory`` where a query has one."""
    return OrKept(transport, directory) if directory else transport
