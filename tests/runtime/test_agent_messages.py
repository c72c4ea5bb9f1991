"""Messages between a session and its agents survive the wire, and nothing else comes out of it."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest

from sabot_planner.job.operators import Column
from sabot_sql.errors import QueryError
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.task_spec import (
    EdgeInput,
    EdgeOutput,
    FailureKind,
    Fragment,
    OutputReport,
    QueryContext,
    ScanBinding,
    SplitReport,
    SplitSpec,
    TaskFailure,
    TaskId,
    TaskReport,
    TaskSpec,
    WriteKind,
    WriteScheme,
)
from sabot_sql.protocol.wire import Frame, receive_frame, send_frame

pytestmark = pytest.mark.fast

ID = TaskId("q1", "s1", 3, 2)
INNER = Fragment("SELECT * FROM t", scans=(ScanBinding("t", ("a", "b"), "SELECT 1, 2"),))
SPEC = TaskSpec(
    ID,
    Fragment(
        "SELECT * FROM e1",
        edges=(EdgeInput("e1", "e1", (Column("a", "ENUM('x')"),), (0, 2), (b"\x00\xff", b""), 1, 4),),
        chained=(("e0", INNER),),
    ),
    (
        EdgeOutput("e2", WriteScheme(WriteKind.HASH_COLUMN, 8, "h"), ("a",)),
        EdgeOutput("e3", WriteScheme(WriteKind.RANGE_COLUMN, 2, "k", bounds=(b"\x80",))),
    ),
    deadline_ms=1000,
)
OUTPUT = OutputReport("e2", "agent-1", b"manifest", 10, 100, 5, (4, 6), (40, 60), ((7, 3, 0),), (b"s1", b"s2"))
MESSAGES = [
    SPEC,
    SplitSpec(ID, "e3", b"m", (b"a", b"b")),
    TaskReport(ID, "agent-1", (Column("a", "INTEGER"),), (OUTPUT,), 12, 3.5),
    SplitReport(ID, "agent-1", OUTPUT),
    TaskFailure(ID, "agent-1", FailureKind.USER, QueryError("no", candidates=("yes",)), (("e1", 2),)),
    QueryContext("q1", ("e1",), (("TimeZone", "Asia/Tokyo"),), ("/data/a.parquet",), (("db", "/data/x.duckdb"),)),
]


def _travel(message: object) -> object:
    left, right = socket.socketpair()
    with left, right:
        blobs: list[bytes] = []
        sender = threading.Thread(target=send_frame, args=(left, Frame("m", encode(message, blobs), blobs)))
        sender.start()
        frame = receive_frame(right)
        sender.join(5)
    assert frame is not None
    return decode(type(message), frame.body, frame.blobs)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_survives_the_wire(message: object) -> None:
    received = _travel(message)
    if isinstance(message, TaskFailure):
        assert isinstance(received, TaskFailure)
        assert str(received.error) == str(message.error)
        assert (received.id, received.kind, received.lost) == (message.id, message.kind, message.lost)
    else:
        assert received == message


def test_objects_of_this_process_do_not_travel() -> None:
    scan = ScanBinding("t", (), "FROM t", {"t": object()})
    with pytest.raises(TypeError, match="cannot travel"):
        encode(scan, [])


@pytest.mark.parametrize(
    "damage",
    [
        {"task": "3"},
        {"attempt": None},
        {"attempt": True},
        {"extra": 1},
    ],
    ids=["text for a number", "nothing", "a truth value for a number", "an unknown field"],
)
def test_a_field_of_another_type_is_refused(damage: dict[str, object]) -> None:
    body = {**encode(ID, []), **damage}
    with pytest.raises(MalformedMessage):
        decode(TaskId, body, [])


def test_bytes_that_did_not_come_are_refused() -> None:
    body = encode(SplitSpec(ID, "e", b"m", ()), [])
    with pytest.raises(MalformedMessage, match="no bytes number 0"):
        decode(SplitSpec, body, [])


def test_an_unknown_error_type_is_refused() -> None:
    blobs: list[bytes] = []
    body = encode(MESSAGES[4], blobs)
    body["error"]["type"] = "KeyError"
    with pytest.raises(MalformedMessage, match="KeyError"):
        decode(TaskFailure, body, blobs)


def test_descriptors_arrive_with_their_own_frame() -> None:
    left, right = socket.socketpair()
    read_end, write_end = os.pipe()
    with left, right:
        send_frame(left, Frame("first", 1, [b"x"]))
        send_frame(left, Frame("with", 2, [], (read_end,)))
        send_frame(left, Frame("last", 3))
        os.close(read_end)
        frames = [receive_frame(right) for _ in range(3)]
    assert [f.kind for f in frames if f] == ["first", "with", "last"]
    assert frames[0] is not None
    assert frames[0].blobs == [b"x"]
    assert frames[1] is not None
    (received,) = frames[1].descriptors
    os.write(write_end, b"through")
    assert os.read(received, 16) == b"through"
    os.close(received)
    os.close(write_end)


def test_end_of_stream_between_frames_is_no_error() -> None:
    left, right = socket.socketpair()
    with right:
        send_frame(left, Frame("only"))
        left.close()
        assert receive_frame(right) == Frame("only")
        assert receive_frame(right) is None


def test_end_of_stream_inside_a_frame_is_an_error() -> None:
    left, right = socket.socketpair()
    with right:
        left.sendall(b"SBT1\x00")
        left.close()
        with pytest.raises(ConnectionResetError):
            receive_frame(right)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"SBT1\xff\xff\xff\xff\x00\x00\x00"])
def test_another_protocol_is_refused(data: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(data)
        with pytest.raises(MalformedMessage):
            receive_frame(right)


def test_frames_are_json_and_bytes_only() -> None:
    left, right = socket.socketpair()
    with left, right:
        send_frame(left, Frame("kind", {"a": [1, None]}, [b"raw"]))
        data = right.recv(4096)
    text = json.dumps(["kind", {"a": [1, None]}], separators=(",", ":")).encode()
    assert data[11 + 8 :] == text + b"raw"
