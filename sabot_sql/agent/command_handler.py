"""What an agent does with the commands of a session, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable

from sabot_sql.agent.thread_agent import ThreadAgent
from sabot_sql.process_memory import resident_bytes
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.task_spec import (
    Outcome,
    QueryContext,
    SplitReport,
    SplitSpec,
    TaskFailure,
    TaskId,
    TaskReport,
    TaskSpec,
)
from sabot_sql.protocol.wire import Frame

_OUTCOMES: dict[str, type[TaskReport] | type[SplitReport] | type[TaskFailure]] = {
    kind.__name__: kind for kind in (TaskReport, SplitReport, TaskFailure)
}


class CommandHandler:
    """Runs commands on ``agent`` and answers with ``send``, which any thread may call."""

    def __init__(self, agent: ThreadAgent, send: Callable[[Frame], None]) -> None:
        self._agent = agent
        self._send = send

    def handle(self, frame: Frame) -> None:
        """Do what ``frame`` says; nothing here waits for a task.

        Raises:
            MalformedMessage: it says nothing that an agent knows.
        """
        body = frame.body
        match frame.kind:
            case "begin":
                self._agent.begin(decode(QueryContext, body, frame.blobs))
            case "task":
                self._agent.submit(decode(TaskSpec, body, frame.blobs), self._done)
            case "split":
                self._agent.submit(decode(SplitSpec, body, frame.blobs), self._done)
            case "stop":
                self._agent.stop(decode(TaskId, body, frame.blobs))
            case "cancel":
                self._agent.cancel(str(body))
            case "release":
                query_id, edge_id = body
                self._agent.release(query_id, edge_id)
            case "metrics":
                self._send(Frame("metrics", {**self._agent.metrics(), "resident_bytes": resident_bytes()}))
            case _:
                raise MalformedMessage(f"no message {frame.kind!r}")

    def _done(self, outcome: Outcome) -> None:
        blobs: list[bytes] = []
        self._send(Frame(type(outcome).__name__, encode(outcome, blobs), blobs))


def outcome_of(frame: Frame) -> Outcome:
    """What a frame says became of a work.

    Raises:
        MalformedMessage: it says something else.
    """
    kind = _OUTCOMES.get(frame.kind)
    if kind is None:
        raise MalformedMessage(f"no message {frame.kind!r}")
    return decode(kind, frame.body, frame.blobs)
