"""The durable host: answers clients on its socket, and runs what DBOS gives it."""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dbos import WorkflowStatus

from sabot_sql.config import memory_budget_bytes
from sabot_sql.coordinator.controller import DBOSParallelController, Grant
from sabot_sql.detached.durable_query import DurableQuery
from sabot_sql.detached.host_client import DATABASE_DOWN
from sabot_sql.detached.kept_result import Outcome
from sabot_sql.detached.messages import (
    Answer,
    Ask,
    Cancel,
    Describe,
    DescribeHost,
    Done,
    Forget,
    Greeting,
    HostState,
    ListQueries,
    QueryState,
    QueryStates,
    StopHost,
    Submit,
)
from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.durable.admission import Admission
from sabot_sql.durable.live_query import LiveQuery, failed, now_ms, remove_query
from sabot_sql.durable.retention import Quotas, expired
from sabot_sql.durable.workflows import APPLICATION_VERSION, DATABASE_ERRORS, OPEN_STATES, Workflows, shown_database
from sabot_sql.errors import AgentError, InternalError, QueryCancelled, SabotSQLError, UsageError
from sabot_sql.protocol.codec import MalformedMessage, decode, encode
from sabot_sql.protocol.handshake import own_versions
from sabot_sql.protocol.wire import Frame, receive_frame, send_frame

_QUESTIONS: dict[str, type[Ask]] = {
    kind.__name__: kind for kind in (Submit, Describe, Cancel, Forget, ListQueries, DescribeHost, StopHost)
}
_CHECK_SECONDS = 0.5
_RETAIN_SECONDS = 600.0
_CLIENT_SECONDS = 60.0
_BACKLOG = 64
_MOST_WAIT_SECONDS = 60.0
_RECORD_SECONDS = 10.0


class AlreadyServed(Exception):
    """Another host serves the state directory."""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Where a host keeps its state, in which database, and how long it stays without anything to do."""

    state: StateDirectory
    database: Path | str
    idle_seconds: float
    quotas: Quotas


class DurableHost:
    """Serves one state directory; while it lives it holds the lock of it."""

    def __init__(self, config: HostConfig) -> None:
        """Take the lock, launch DBOS, and listen: a client that reaches the socket is answered.

        Raises:
            AlreadyServed: another host is there.
            ResourceError: the state directory cannot be written.
        """
        self._config = config
        self._state = config.state
        self._lock = _locked(config.state)
        self._epoch = self._state.next_epoch()
        self._started_ms = now_ms()
        self._token = self._state.token()
        self._admission = Admission(DBOSParallelController(), memory_budget_bytes(None))
        self._changed = threading.Condition()
        self._live: dict[str, LiveQuery] = {}
        self._clients = 0
        self._used = time.monotonic()
        self._ending = threading.Event()
        self._workflows = Workflows(config.database, self._state.executor(), self)
        self._refuse_foreign()
        self._retained = time.monotonic()
        self.retain()
        self._listener = _listening(self._state)

    # --- its life -------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answer clients until it is stopped, or there was nothing to do for long."""
        self._accept_in_thread()
        while not self._ending.wait(_CHECK_SECONDS):
            self._stop_if_fenced()
            self._listen_again_if_removed()
            try:
                self._look_after()
            except DATABASE_ERRORS:
                logging.getLogger(__name__).exception("the system database does not answer")
        self.close()

    def _look_after(self) -> None:
        """Do what is to be done from time to time, and end where there was nothing to do for long."""
        if time.monotonic() - self._retained > _RETAIN_SECONDS:
            self._retained = time.monotonic()
            self.retain()
        with self._changed:
            idle = not self._clients and not self._live
            if not idle:
                self._used = time.monotonic()
        if idle and time.monotonic() - self._used > self._config.idle_seconds and not self._open():
            self._ending.set()

    def stop(self) -> None:
        """End soon; callable from any thread and from a signal's handler."""
        self._ending.set()

    def close(self) -> None:
        """Listen no more, and let go of everything; what runs goes on with the next host."""
        self._state.socket.unlink(missing_ok=True)
        self._listener.close()
        # Nothing is waited for: what was not recorded is done again, and what was is kept.
        self._lock.close()

    def retain(self) -> None:
        """Remove the queries that ended too long ago, or that there is no more room for."""
        for query_id in expired(self._state, self._config.quotas, now_ms()):
            with suppress(SabotSQLError):
                self._forget(Forget(query_id))

    def _open(self) -> bool:
        return bool(self._workflows.list(1, open_only=True))

    def _stop_if_fenced(self) -> None:
        """End at once where another host has taken over: what this one does would not count."""
        if self._state.epoch() != self._epoch:
            os._exit(_FENCED)

    def _refuse_foreign(self) -> None:
        """Refuse, in words, queries whose journal this release cannot read: DBOS would leave them for ever."""
        for status in self._workflows.list(open_only=True):
            if status.app_version not in (None, APPLICATION_VERSION):
                error = UsageError(
                    f"query {status.workflow_id} was begun by a release with the journal {status.app_version}; "
                    f"this one goes on with {APPLICATION_VERSION}",
                    code="JOURNAL_UNREADABLE",
                    hint="run it again, or with the release that began it",
                )
                self._workflows.cancel(status.workflow_id)
                with suppress(SabotSQLError):
                    Outcome("failed", now_ms(), error=error.to_dict()).write(self._state.query(status.workflow_id))

    # --- for DBOS -------------------------------------------------------------------------------------------------

    def admit(self, query_id: str) -> dict[str, Any]:
        """See :class:`~sabot_sql.durable.workflows.Runner`."""
        try:
            live = self._alive(query_id)
            grant = self._admission.admit(query_id, live.query.config, live.check)
        except SabotSQLError as error:  # it was cancelled meanwhile, or removed by hand: the next step says so
            grant = Grant(0, error.message)
        self._stop_if_fenced()
        return {"memory_bytes": grant.memory_bytes, "reason": grant.reason}

    def advance(self, query_id: str, grant: Mapping[str, Any], recorded: Sequence[str]) -> dict[str, Any]:
        """See :class:`~sabot_sql.durable.workflows.Runner`."""
        try:
            live = self._alive(query_id)
        except SabotSQLError as error:
            return {"lines": [], "outcome": _summary(failed(error))}
        given = Grant(int(grant["memory_bytes"]), str(grant["reason"]))
        self._admission.take(query_id, given)
        live.start(given, recorded)
        piece = live.pieces.take()
        self._stop_if_fenced()
        if not piece.ended:
            return {"lines": list(piece.lines), "outcome": None}
        outcome = live.outcome
        assert outcome is not None  # it is there before the pieces end
        with self._changed:
            self._live.pop(query_id, None)
            self._changed.notify_all()
        return {"lines": [], "outcome": {**_summary(outcome), "admission": given.reason}}

    def _alive(self, query_id: str) -> LiveQuery:
        """The query, while it is at work here.

        Raises:
            UsageError: it is not there any more.
        """
        with self._changed:
            if query_id not in self._live:
                query = DurableQuery.read(self._state.query(query_id))
                self._live[query_id] = LiveQuery(query, self._state, self._admission)
                self._changed.notify_all()
            return self._live[query_id]

    # --- for clients ----------------------------------------------------------------------------------------------

    def _accept_in_thread(self) -> None:
        accept = partial(self._accept, self._listener)
        threading.Thread(target=accept, name="sabot-host-accept", daemon=True).start()

    def _listen_again_if_removed(self) -> None:
        """Listen under the socket's name again if somebody has removed it: no client would find this host."""
        if self._state.socket.exists():
            return
        with suppress(OSError):  # a full disk: the next time may be better
            removed, self._listener = self._listener, _listening(self._state)
            self._accept_in_thread()
            removed.shutdown(socket.SHUT_RDWR)  # its thread ends
            removed.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="sabot-host-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._changed:
            self._clients += 1
        try:
            with closing(connection):
                connection.settimeout(_CLIENT_SECONDS)
                question = self._question(connection)
                if question is None:
                    return
                try:
                    answer = self._answer(question)
                except Exception as error:  # noqa: BLE001  whoever asked is told
                    shown = error if isinstance(error, SabotSQLError) else _unforeseen(error)
                    send_frame(connection, Frame("error", shown.to_dict()))
                    return
                send_frame(connection, Frame(type(answer).__name__, encode(answer, [])))
        except (OSError, MalformedMessage):
            return  # the client is gone, or is none
        finally:
            with self._changed:
                self._clients -= 1
                self._used = time.monotonic()

    def _question(self, connection: socket.socket) -> Ask | None:
        """What a client asks, once it has shown the token; None where it showed another one."""
        first = receive_frame(connection)
        if first is None or first.kind != Greeting.__name__:
            return None
        greeting = decode(Greeting, first.body, first.blobs)
        if not hmac.compare_digest(greeting.token.encode(), self._token.encode()):
            return None
        second = receive_frame(connection)
        if second is None:
            return None
        ours = own_versions().sabot_sql
        if greeting.sabot_sql != ours and second.kind != StopHost.__name__:
            reason = f"the durable host is of release {ours}, this is {greeting.sabot_sql}"
            error = UsageError(
                reason, code="HOST_VERSION", hint="end it with the release that started it: sabot-sql doctor --stop"
            )
            send_frame(connection, Frame("error", error.to_dict()))
            return None
        kind = _QUESTIONS.get(second.kind)
        if kind is None:
            raise MalformedMessage(f"no question {second.kind!r}")
        return decode(kind, second.body, second.blobs)

    def _answer(self, question: Ask) -> Answer:
        self._workflows.check()
        match question:
            case Submit(query_id, priority):
                query = DurableQuery.read(self._state.query(query_id))
                self._workflows.enqueue(query_id, query.first_line, query.submitted_ms, priority)
                return self._describe(query_id)
            case Describe():
                return self._described(question)
            case Cancel(query_id):
                return self._cancel(query_id)
            case Forget():
                return self._forget(question)
            case ListQueries(limit):
                found = self._workflows.list(min(max(1, limit), 10_000))
                return QueryStates(tuple(self._state_of(status) for status in found))
            case DescribeHost():
                return self._host_state()
            case StopHost():
                threading.Timer(0.05, self.stop).start()
                return Done()

    def _described(self, question: Describe) -> QueryState:
        ends = time.monotonic() + min(_MOST_WAIT_SECONDS, question.wait_ms / 1e3)
        while True:
            found = self._describe(question.query_id)
            left = ends - time.monotonic()
            if found.state != question.known or found.ended or left <= 0:
                return found
            with self._changed:
                self._changed.wait(min(left, 0.1))

    def _describe(self, query_id: str) -> QueryState:
        self._state.query(query_id)
        status = self._workflows.find(query_id)
        if status is None:
            raise UsageError(
                f"no durable query {query_id}", code="NO_SUCH_QUERY", hint="sabot_sql.queries() lists them"
            )
        return self._state_of(status)

    def _state_of(self, status: WorkflowStatus) -> QueryState:
        query_id = status.workflow_id
        _, first_line, submitted_ms = status.input["args"] if status.input else (query_id, "", 0)
        live = self._live.get(query_id)
        outcome = live.outcome if live else None
        came: Mapping[str, Any] = status.output or {} if outcome is None else _summary(outcome)
        if not came and live is None and (written := _outcome(self._state, query_id)) is not None:
            came = _summary(written)  # it is not recorded yet, or it was cancelled before it began
        if came:
            state = str(came["state"])
        elif live is not None and live.grant is not None:
            state = "running"
        else:
            state = "queued" if status.status in OPEN_STATES else "failed"
        gave_up = f"DBOS gave it up: {status.status}" if state == "failed" and not came else ""
        running = live if state == "running" else None
        return QueryState(
            query_id,
            state,
            first_line,
            submitted_ms,
            live.began_ms if live else status.dequeued_at,
            came.get("ended_ms", status.completed_at),
            running.progress_percent if running else None,
            live.agents if live else came.get("agents"),
            came.get("rows") if state == "finished" else None,
            live.grant.reason if live and live.grant else str(came.get("admission") or ""),
            str(came.get("error") or gave_up),
            running.plan_text if running else "",
        )

    def _cancel(self, query_id: str) -> Done:
        found = self._describe(query_id)
        live = self._live.get(query_id)
        if live is not None:
            live.cancel()
        elif not found.ended:
            self._workflows.cancel(query_id)
            error = QueryCancelled("the query was cancelled")
            Outcome("cancelled", now_ms(), error=error.to_dict()).write(self._state.query(query_id))
        return Done()

    def _forget(self, question: Forget) -> Done:
        found = self._describe(question.query_id)
        if found.ended:
            self._recorded(question.query_id)
        else:
            raise UsageError(
                f"query {question.query_id} is {found.state} and cannot be forgotten",
                code="QUERY_OPEN",
                hint="cancel it first",
            )
        self._workflows.delete([question.query_id])
        remove_query(self._state, question.query_id)
        return Done()

    def _recorded(self, query_id: str) -> None:
        """Wait until DBOS has the end of a query as well: its outcome is there a little earlier."""
        ends = time.monotonic() + _RECORD_SECONDS
        while time.monotonic() < ends:
            status = self._workflows.find(query_id)
            if query_id not in self._live and (status is None or status.status not in OPEN_STATES):
                return
            time.sleep(0.01)
        raise UsageError(f"the end of query {query_id} is not recorded yet", code="QUERY_OPEN", hint="try again")

    def _host_state(self) -> HostState:
        opened = self._workflows.list(open_only=True)
        return HostState(
            os.getpid(),
            self._epoch,
            own_versions().sabot_sql,
            shown_database(self._config.database),
            self._started_ms,
            len(self._live),
            max(0, len(opened) - len(self._live)),
        )


_FENCED = 4


def run_host(config: HostConfig) -> None:
    """Serve until SIGTERM, or until there was nothing to do for long.

    Raises:
        AlreadyServed: another host is there.
        SabotSQLError: it cannot start.
    """
    host = DurableHost(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: host.stop())
    host.serve()


def _locked(state: StateDirectory) -> Any:
    file = state.lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise AlreadyServed(str(state.path)) from None
    return file


def _listening(state: StateDirectory) -> socket.socket:
    """A socket of mode 0600 under the name that clients know; it can be connected to from then on."""
    directory = os.open(state.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".host-{secrets.token_hex(4)}.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{name}")
        (state.path / name).chmod(0o600)
        listener.listen(_BACKLOG)
        (state.path / name).replace(state.socket)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def _unforeseen(error: Exception) -> SabotSQLError:
    logging.getLogger(__name__).exception("a client could not be answered")
    if isinstance(error, DATABASE_ERRORS):
        return AgentError("the system database of the durable host does not answer", code=DATABASE_DOWN)
    return InternalError(f"the durable host failed: {type(error).__name__}: {error}")


def _summary(outcome: Outcome) -> dict[str, Any]:
    """What is recorded of an outcome; the rest lies in its file."""
    return {
        "state": outcome.state,
        "rows": outcome.rows,
        "agents": outcome.plan.get("agents"),
        "error": (outcome.error or {}).get("message", ""),
        "ended_ms": outcome.ended_ms,
    }


def _outcome(state: StateDirectory, query_id: str) -> Outcome | None:
    try:
        return Outcome.read(state.query(query_id))
    except SabotSQLError:
        return None
