"""Agents beside the workers of a Dask cluster, whatever has deployed it."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Security

from sabot_sql.cluster.agent_order import AgentOrder
from sabot_sql.cluster.authority import Authority
from sabot_sql.cluster.dask_worker import end_agent, have_agent
from sabot_sql.cluster.provider import Check, Gone, Launch, LaunchedAgent
from sabot_sql.errors import AgentError
from sabot_sql.forks import is_own
from sabot_sql.transport.credentials import Credentials

LAUNCH_SECONDS = 40.0
"""For workers to come and for their agents to listen: one deadline for all of them."""
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
_STOP_SECONDS = 5.0
_WORKERS_SECONDS = 0.5
_CHECK_SECONDS = 0.05
_LEFT = "the worker has left"
_SECRET_SCHEMES = ("tls", "wss", "inproc")


@dataclass(frozen=True, slots=True)
class DaskAddress:
    """A scheduler at ``host:port``; over TLS where there is a certificate of an authority (files)."""

    address: str
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


class DaskProvider:
    """See :class:`~sabot_sql.cluster.provider.Provider`. ``dask`` is a client of the user's, or where to connect one.

    Agents are ordered from as many workers as are wanted, of as many hosts as there are; when a worker has left or one
    has come later, :meth:`scale` orders anew. ``order`` makes an order of a session's name and secrets.
    """

    def __init__(self, dask: Client | DaskAddress, order: Callable[[str, str, Authority], AgentOrder]) -> None:
        authority, token = Authority.make("sabot-sql session"), secrets.token_hex(32)
        self.credentials = Credentials(token, authority.certificate)
        self._order = order(uuid.uuid4().hex, token, authority)
        self._dask = dask
        self._client: Client | None = None
        self._placed: dict[str, LaunchedAgent] = {}
        self._ordered: set[str] = set()
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def launch(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`: also of workers that come by the deadline."""
        with self._lock:
            client = self._connected(check)
            scheme, _, _ = str(client.scheduler.address).partition("://")
            if scheme not in _SECRET_SCHEMES:
                warnings.warn(
                    f"the Dask scheduler at {client.scheduler.address} has no TLS: whoever can reach it can run any "
                    "code on its workers, and whoever can listen reads the secrets of this session. Give the cluster "
                    "and the client a distributed.Security",
                    RuntimeWarning,
                    stacklevel=2,
                )
            give_up = time.monotonic() + LAUNCH_SECONDS
            while len(self._workers(client, check)) < count and time.monotonic() < give_up:
                _pause(_WORKERS_SECONDS, check)
            # Agents start within seconds; those of workers that came at the end are to have a chance.
            return self._placed_on(client, count, max(give_up, time.monotonic() + _ANSWER_SECONDS), check)

    def scale(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`: of the workers that there are now."""
        with self._lock:
            return self._placed_on(self._connected(check), count, time.monotonic() + LAUNCH_SECONDS, check)

    def watch(self, gone: Gone) -> None:
        """Dask tells a client nothing of workers that have left; the session finds out by itself."""

    def stop(self) -> None:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        if not is_own(self._owner):
            return
        with self._lock:
            client, self._client = self._client, None
            ordered, self._ordered, self._placed = self._ordered, set(), {}
        if client is None:
            return
        if client.status == "running":
            _ended(client, self._order.session, list(ordered))
        if client is not self._dask:
            _Call(lambda: client.close(_STOP_SECONDS)).wait(_STOP_SECONDS)

    # --- with the lock held ----------------------------------------------------------------------------------------

    def _connected(self, check: Check) -> Client:
        if self._client is not None and self._client.status == "running":
            return self._client
        if isinstance(self._dask, DaskAddress):
            address = self._dask
            found = _Call(lambda: _connect(address)).result(2 * _CONNECT_SECONDS, check)
            if isinstance(found, BaseException):
                raise AgentError(f"the Dask scheduler at {address.address} cannot be reached: {found}") from None
            self._client = found
        elif self._dask.status == "running":
            self._client = self._dask
        else:
            raise AgentError(f"the Dask client is {self._dask.status}", hint="make another one, and another session")
        return self._client

    def _workers(self, client: Client, check: Check) -> list[str]:
        """The workers' addresses, one of each host before the second of one."""
        found = _Call(client.nthreads).result(_ANSWER_SECONDS, check)
        if isinstance(found, BaseException):
            raise AgentError(f"the Dask scheduler does not say which workers there are: {found}")
        hosts: dict[str | None, list[str]] = defaultdict(list)
        for address in sorted(found):
            hosts[urlsplit(address).hostname].append(address)
        return [address for turn in zip_longest(*hosts.values()) for address in turn if address is not None]

    def _placed_on(self, client: Client, count: int, give_up: float, check: Check) -> Launch:
        workers = self._workers(client, check)
        # Those that have an agent come first, so that it stays.
        ordered = sorted(workers, key=lambda worker: worker not in self._placed)
        wanted, unwanted = ordered[:count], [worker for worker in ordered[count:] if worker in self._placed]
        _ended(client, self._order.session, unwanted)
        self._ordered = {*self._ordered.difference(unwanted).intersection(workers), *wanted}
        calls = {worker: _Call(partial(_have, client, self._order, worker)) for worker in wanted}
        left: set[str] = set()
        # Dask goes on dialling a worker that has just left, for longer than a query should wait.
        while any(not call.done and worker not in left for worker, call in calls.items()):
            if time.monotonic() > give_up:
                break
            _pause(_WORKERS_SECONDS, check, lambda: all(call.done for call in calls.values()))
            left = set(calls).difference(self._workers(client, check))
        skipped: list[tuple[str, str]] = []
        self._placed = {}
        for worker, call in calls.items():
            nothing = _LEFT if worker in left else f"nothing within {LAUNCH_SECONDS:.0f} s"
            answer = call.outcome if call.done else nothing
            if isinstance(answer, tuple):
                self._placed[worker] = LaunchedAgent(*answer)
            else:
                skipped.append((worker, str(answer) or type(answer).__name__))
        if len(workers) < count:
            skipped.append((f"{count - len(workers)} of {count} agents", f"Dask has {len(workers)} workers"))
        if not self._placed:
            said = "; ".join(f"{name}: {reason}" for name, reason in skipped)
            raise AgentError(f"no agent came up on the Dask cluster: {said}")
        return Launch(tuple(self._placed.values()), tuple(skipped))


class _Call:
    """A call that may never return, on a thread of its own: not all calls of a Dask client have deadlines."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.outcome: Any = None
        self._call = call
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="sabot-dask", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it has returned; ``outcome`` is what, or the exception that it raised."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> None:
        """Wait until it has returned, or not any longer."""
        self._ended.wait(seconds)

    def result(self, seconds: float, check: Check) -> Any:
        """What it returned or raised; :class:`TimeoutError` where it did neither."""
        give_up = time.monotonic() + seconds
        while not self._ended.wait(_CHECK_SECONDS) and time.monotonic() < give_up:
            check()
        return self.outcome if self.done else TimeoutError(f"no answer within {seconds:.0f} s")

    def _run(self) -> None:
        try:
            self.outcome = self._call()
        except Exception as error:  # noqa: BLE001  whoever waits is told
            self.outcome = error
        self._ended.set()


def _connect(address: DaskAddress) -> Client:
    security = None
    scheme = "tcp"
    if address.tls_ca is not None:
        security = Security(
            tls_ca_file=address.tls_ca,
            tls_client_cert=address.tls_cert,
            tls_client_key=address.tls_key,
            require_encryption=True,
        )
        scheme = "tls"
    where = f"{scheme}://{address.address}"
    return Client(where, security=security, timeout=_CONNECT_SECONDS, set_as_default=False)


def _have(client: Client, order: AgentOrder, worker: str) -> Any:
    answers = client.run(have_agent, order, workers=[worker], on_error="return")
    return answers.get(worker, _LEFT)


def _ended(client: Client, session: str, workers: Sequence[str]) -> None:
    """End agents, as far as their workers answer; those of others end when nobody uses them."""
    if workers:
        call = _Call(lambda: client.run(end_agent, session, workers=list(workers), on_error="ignore"))
        call.wait(_STOP_SECONDS)


def _pause(seconds: float, check: Check, over: Callable[[], bool] = lambda: False) -> None:
    until = time.monotonic() + seconds
    while not over() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _CHECK_SECONDS))
        check()
