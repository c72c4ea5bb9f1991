"""Frames between a session and its agents: a JSON value, raw bytes and, on a stream socket, file descriptors.

A frame is ``header, lengths of the byte strings, JSON, byte strings`` and, where descriptors travel, one more byte that
carries them. Reads take exactly what a frame announces, so a descriptor never arrives with the wrong frame.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from sabot_sql.protocol.codec import Blobs, MalformedMessage

PROTOCOL_VERSION = 1

_HEADER = struct.Struct("!4sIHB")
_MAGIC = b"SBT1"
_MAX_JSON_BYTES = 64 << 20
_MAX_BLOB_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; ``kind`` names it, ``body`` is its JSON value. Whoever receives ``descriptors`` closes them."""

    kind: str
    body: Any = None
    blobs: Blobs = field(default_factory=list)
    descriptors: tuple[int, ...] = ()


def send_frame(connection: socket.socket, frame: Frame) -> None:
    """Send one frame; callers serialise.

    Raises:
        OSError: the peer is gone.
    """
    connection.sendall(frame_bytes(frame))
    if frame.descriptors:
        send_descriptors(connection, frame.descriptors)


def send_descriptors(connection: socket.socket, descriptors: tuple[int, ...]) -> None:
    """Send what follows the bytes of a frame that has descriptors.

    Raises:
        OSError: the peer is gone.
    """
    socket.send_fds(connection, [b"\0"], list(descriptors))


def frame_bytes(frame: Frame) -> bytes:
    """A frame as it is sent, without its descriptors."""
    text = json.dumps([frame.kind, frame.body], separators=(",", ":"), allow_nan=False).encode()
    lengths = struct.pack(f"!{len(frame.blobs)}Q", *map(len, frame.blobs))
    header = _HEADER.pack(_MAGIC, len(text), len(frame.blobs), len(frame.descriptors))
    return b"".join((header, lengths, text, *frame.blobs))


def receive_frame(connection: socket.socket) -> Frame | None:
    """The next frame, or None at the end of the stream.

    Raises:
        MalformedMessage: the peer speaks something else.
        OSError: the connection broke.
    """
    header = _receive(connection, _HEADER.size, at_boundary=True)
    if header is None:
        return None
    magic, json_bytes, blob_count, descriptor_count = _HEADER.unpack(header)
    _check_header(magic, json_bytes)
    lengths = _lengths(_exactly(connection, 8 * blob_count))
    kind, body = _parsed(_exactly(connection, json_bytes))
    blobs = [_exactly(connection, length) for length in lengths]
    return Frame(kind, body, blobs, _receive_descriptors(connection, descriptor_count))


def frame_from_bytes(data: bytes) -> Frame:
    """The one frame that :func:`frame_bytes` wrote, where messages arrive whole and carry no descriptors.

    Raises:
        MalformedMessage: it is something else.
    """
    rest = memoryview(data)

    def take(count: int) -> bytes:
        nonlocal rest
        if count > len(rest):
            raise MalformedMessage("a frame is shorter than it says")
        taken, rest = bytes(rest[:count]), rest[count:]
        return taken

    magic, json_bytes, blob_count, descriptor_count = _HEADER.unpack(take(_HEADER.size))
    _check_header(magic, json_bytes)
    lengths = _lengths(take(8 * blob_count))
    kind, body = _parsed(take(json_bytes))
    blobs = [take(length) for length in lengths]
    if rest or descriptor_count:
        raise MalformedMessage("a frame is longer than it says")
    return Frame(kind, body, blobs)


def _check_header(magic: bytes, json_bytes: int) -> None:
    if magic != _MAGIC or json_bytes > _MAX_JSON_BYTES:
        raise MalformedMessage("not a frame of this protocol")


def _lengths(data: bytes) -> tuple[int, ...]:
    lengths = struct.unpack(f"!{len(data) // 8}Q", data)
    if sum(lengths) > _MAX_BLOB_BYTES:
        raise MalformedMessage(f"a frame of {sum(lengths)} bytes is too large")
    return lengths


def _parsed(text: bytes) -> tuple[str, Any]:
    try:
        kind, body = json.loads(text)
    except (ValueError, TypeError, RecursionError) as reason:
        raise MalformedMessage(f"the JSON of a frame cannot be read: {reason}") from None
    if not isinstance(kind, str):
        raise MalformedMessage("a frame without a kind")
    return kind, body


def _receive_descriptors(connection: socket.socket, count: int) -> tuple[int, ...]:
    if not count:
        return ()
    _, received, flags, _ = socket.recv_fds(connection, 1, count)
    if len(received) != count or flags & socket.MSG_CTRUNC:
        for descriptor in received:
            os.close(descriptor)
        raise MalformedMessage(f"{count} descriptors announced, {len(received)} came")
    return tuple(received)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = _receive(connection, count, at_boundary=False)
    return data or b""


def _receive(connection: socket.socket, count: int, *, at_boundary: bool) -> bytes | None:
    if not count:
        return b""
    chunks: list[bytes] = []
    missing = count
    while missing:
        chunk = connection.recv(min(missing, 1 << 20))
        if not chunk:
            if at_boundary and missing == count:
                return None
            raise ConnectionResetError("the peer closed the connection inside a frame")
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
