"""An agent that is a spawned process of this host, seen from the session."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import sabot_native
from sabot_sql.agent.agent import Done
from sabot_sql.agent.agent_instance import InstanceConfig
from sabot_sql.agent.command_handler import outcome_of
from sabot_sql.errors import AgentError
from sabot_sql.forks import closed_in_children
from sabot_sql.protocol.codec import MalformedMessage, encode
from sabot_sql.protocol.task_spec import (
    FailureKind,
    Outcome,
    QueryContext,
    TaskFailure,
    TaskId,
    TaskSpec,
    Work,
)
from sabot_sql.protocol.wire import PROTOCOL_VERSION, Frame, frame_bytes, receive_frame, send_descriptors, send_frame

START_SECONDS = 20.0
LEASE_SECONDS = 4.0
"""A process that does not run for so long is taken for dead, and ended so that it is: it is stopped, or starved."""
SILENCE_SECONDS = 120.0
"""So long may a process run without its Python answering. DuckDB's parser keeps Python's lock over a whole text."""
_HEARTBEAT_MS = 250
_ANSWER_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_CHECK_SECONDS = 0.05
_LATENESS_SECONDS = 1.0
_LAST_WORDS_BYTES = 2000

Peer = tuple[str, str, int]
"""Agent id, spill directory, descriptor of its arena."""


class ProcessAgent:
    """A child process and the socket to it; see :class:`sabot_sql.agent.agent.Agent`.

    The process is spawned, never forked, and ends when the socket does. :meth:`wait_ready` must return before anything
    else is called. ``on_death`` gets the id once the process is gone, after its work has been answered.
    """

    def __init__(self, config: InstanceConfig, on_death: Callable[[str], None] = lambda _: None) -> None:
        self.agent_id = config.agent_id
        self.spill_directory = config.spill_directory
        self.arena_descriptor = -1
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._pending: dict[TaskId, Done] = {}
        self._alive = True
        self._metrics: dict[str, int] = {}
        self._metrics_came = threading.Event()
        self._on_death = on_death
        self._backlog: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._heartbeat: sabot_native.Heartbeat | None = None
        self._asked = False
        self._silence = 0.0
        self._checked = time.monotonic()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._connection, remote = socket.socketpair()
        self._pulse, remote_pulse = socket.socketpair()
        for own in (self._connection, self._pulse):
            closed_in_children(own)
        with remote, remote_pulse:
            descriptors = (remote.fileno(), remote_pulse.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sabot_sql.agent.process_main", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                # Ctrl-C in a terminal reaches the session alone: it decides what is cancelled.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        blobs: list[bytes] = []
        with contextlib.suppress(OSError):  # it ended at once: that is found out by who waits for it
            send_frame(self._connection, Frame("configure", encode(config, blobs), blobs))
        self._reader = threading.Thread(target=self._read, name=f"sabot-{self.agent_id}", daemon=True)

    @property
    def process_id(self) -> int:
        """The id of the child process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process can take work, as far as is known."""
        return self._alive

    @property
    def readable(self) -> bool:
        """Always: the memory of a process outlives it where others map it."""
        return True

    def wait_ready(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the process to come up; ``check`` raises when it is not wanted any more.

        Raises:
            AgentError: it did not, or is of another version.
        """
        give_up = time.monotonic() + START_SECONDS
        while not select.select([self._connection], [], [], _CHECK_SECONDS)[0]:
            check()
            if time.monotonic() > give_up:
                raise self._no_start(f"it said nothing within {START_SECONDS:.0f} s")
        self._connection.settimeout(START_SECONDS)
        try:
            hello = receive_frame(self._connection)
        except (OSError, MalformedMessage) as error:
            raise self._no_start(str(error)) from None
        if hello is None or hello.kind != "hello":
            raise self._no_start("it ended at once")
        (self.arena_descriptor,) = hello.descriptors
        if hello.body["version"] != PROTOCOL_VERSION:
            raise self._no_start(f"it speaks version {hello.body['version']}, this session {PROTOCOL_VERSION}")
        self._connection.settimeout(None)
        self._heartbeat = sabot_native.Heartbeat(self._pulse.fileno(), _HEARTBEAT_MS)
        self._reader.start()

    def attach(self, peers: Sequence[Peer]) -> None:
        """Let the agent read what ``peers`` commit."""
        names = [[agent_id, directory] for agent_id, directory, _ in peers]
        self._send(Frame("peers", names, [], tuple(descriptor for _, _, descriptor in peers)))

    def detach(self, agent_id: str) -> None:
        """Give up what the agent maps of a dead one."""
        self._send(Frame("detach", agent_id))

    def rest(self) -> None:
        """Let the idle agent give up its DuckDB instance and the free memory of its pool; it takes them again."""
        self._send(Frame("rest"))

    def begin(self, context: QueryContext) -> None:
        """Announce a query."""
        blobs: list[bytes] = []
        self._send(Frame("begin", encode(context, blobs), blobs))

    def submit(self, work: Work, done: Done) -> None:
        """Send ``work`` to the process."""
        with self._lock:
            alive = self._alive
            if alive:
                self._pending[work.id] = done
        if not alive:
            done(self._died(work.id))
            return
        blobs: list[bytes] = []
        kind = "task" if isinstance(work, TaskSpec) else "split"
        self._send(Frame(kind, encode(work, blobs), blobs))

    def cancel(self, query_id: str) -> None:
        """Interrupt the query's work."""
        self._send(Frame("cancel", query_id))

    def stop(self, task_id: TaskId) -> None:
        """Interrupt the attempt."""
        self._send(Frame("stop", encode(task_id, [])))

    def give_up(self, query_id: str) -> None:
        """End the process."""
        if any(work_id.query_id == query_id for work_id in tuple(self._pending)):
            self.kill()

    def release(self, query_id: str, edge_id: str | None = None) -> None:
        """Free what the query committed."""
        self._send(Frame("release", [query_id, edge_id]))

    def metrics(self, wait_seconds: float = _ANSWER_SECONDS) -> dict[str, int]:
        """Figures of the process's shuffle manager, or those that came last if it does not answer."""
        self._metrics_came.clear()
        self._send(Frame("metrics"))
        self._metrics_came.wait(wait_seconds)
        return dict(self._metrics)

    def check_lease(self) -> None:
        """End the process if it does not run, or its Python has long said nothing; call it often.

        Two threads without Python's lock tell the first, one in each process; so it does not matter what holds that
        lock, here or there. They count from a question that was sent, and leave out the time in which this process did
        not run itself. Of the second, so does this method.
        """
        now = time.monotonic()
        passed, self._checked = min(now - self._checked, _LATENESS_SECONDS), now
        self._silence = self._silence + passed if self._asked else 0.0
        heartbeat = self._heartbeat
        running = heartbeat is None or heartbeat.silent_ms < LEASE_SECONDS * 1e3
        if not running or self._silence > SILENCE_SECONDS:
            self.kill()
        elif not self._asked:
            self._asked = True
            self._send(Frame("ping"))

    def kill(self) -> None:
        """End the process at once; its work answers ``AGENT_DIED``."""
        self._process.kill()
        self.end()  # also where the kernel cannot end it yet

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Ask the process to end."""
        # It ends with its socket; this session's reader sees the end as well.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ask the process to end, and make it."""
        self.end()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_CLOSE_SECONDS)
        if self._reader.is_alive():
            self._reader.join(_CLOSE_SECONDS)
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            heartbeat.stop()
        self._connection.close()
        self._pulse.close()
        self._words.close()
        if self.arena_descriptor >= 0:
            os.close(self.arena_descriptor)
            self.arena_descriptor = -1

    def _send(self, frame: Frame) -> None:
        """Send without waiting: what the socket does not take at once follows by a thread of its own."""
        data = frame_bytes(frame)
        # Sent by copies: the kernel keeps what they name for as long as any process has it.
        descriptors = tuple(os.dup(descriptor) for descriptor in frame.descriptors)
        try:
            with self._sending:
                if not self._backlog and not descriptors:
                    data = data[self._sent_at_once(data) :]
                    if not data:
                        return
                self._backlog.append((data, descriptors))
                if len(self._backlog) == 1:
                    threading.Thread(target=self._send_backlog, name=f"sabot-{self.agent_id}-send", daemon=True).start()
        except OSError:
            self._process.kill()

    def _sent_at_once(self, data: bytes) -> int:
        try:
            return self._connection.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _send_backlog(self) -> None:
        failed = False
        while True:
            with self._sending:
                data, descriptors = self._backlog[0]
            try:
                if not failed:
                    self._connection.sendall(data)
                    if descriptors:
                        send_descriptors(self._connection, descriptors)
            except OSError:
                # Half a frame may have gone: nothing can follow it. The reader answers all pending work.
                failed = True
                self._process.kill()
            for descriptor in descriptors:
                os.close(descriptor)
            with self._sending:
                self._backlog.popleft()
                if not self._backlog:
                    return

    def _read(self) -> None:
        with contextlib.suppress(OSError, MalformedMessage):
            while (frame := receive_frame(self._connection)) is not None:
                self._asked = False
                if frame.kind == "pong":
                    continue
                if frame.kind == "metrics":
                    self._metrics = dict(frame.body)
                    self._metrics_came.set()
                else:
                    self._answer(outcome_of(frame))
        self._end()

    def _answer(self, outcome: Outcome) -> None:
        with self._lock:
            done = self._pending.pop(outcome.id, None)
        if done is not None:
            done(outcome)

    def _end(self) -> None:
        with self._lock:
            self._alive = False
            pending, self._pending = self._pending, {}
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Malformed answers end here as well: such a process is of no use.
            self._process.kill()
            self._process.wait(_CLOSE_SECONDS)
        for work_id, done in pending.items():
            done(self._died(work_id))
        self._on_death(self.agent_id)

    def _died(self, work_id: TaskId) -> TaskFailure:
        code = self._process.returncode
        how = "is gone" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        error = AgentError(
            f"agent {self.agent_id} (process {self._process.pid}) {how}",
            agent=self.agent_id,
            stage=work_id.stage,
            task=work_id.task,
            attempt=work_id.attempt,
            remote_message=self._last_words(),
        )
        return TaskFailure(work_id, self.agent_id, FailureKind.AGENT_DIED, error)

    def _no_start(self, reason: str) -> AgentError:
        self._alive = False
        self._process.kill()
        self._process.wait(_CLOSE_SECONDS)
        return AgentError(
            f"agent {self.agent_id} did not start: {reason}", agent=self.agent_id, remote_message=self._last_words()
        )

    def _last_words(self) -> str | None:
        if self._words.closed:
            return None
        size = os.fstat(self._words.fileno()).st_size
        text = os.pread(self._words.fileno(), _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        return text.decode(errors="replace").strip() or None


def agent_directories(root: Path, agent_id: str) -> tuple[str, str]:
    """The directories, made if need be, for an agent's spilled segments and for DuckDB's temporary files."""
    paths = (root / agent_id / "segments", root / agent_id / "duckdb")
    for path in paths:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(paths[0]), str(paths[1])
