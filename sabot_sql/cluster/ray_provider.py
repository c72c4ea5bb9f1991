"""Agents on the nodes of a Ray cluster, one on each."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sabot_sql.cluster.agent_order import AgentOrder
from sabot_sql.cluster.authority import Authority
from sabot_sql.cluster.provider import Check, Gone, Launch, LaunchedAgent
from sabot_sql.cluster.ray_actor import AgentKeeper
from sabot_sql.errors import AgentError
from sabot_sql.forks import is_own
from sabot_sql.transport.credentials import Credentials

LAUNCH_SECONDS = 40.0
"""For actors to be placed and their agents to listen: one deadline for all of them."""
_CHECK_SECONDS = 0.1
_MAX_RESTARTS = 3
_SHARE_OF_NODE = 0.5
"""Of the memory that Ray states of a node."""
_WITHOUT_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Node:
    node_id: str
    host: str
    cpus: int
    memory_bytes: int

    @property
    def name(self) -> str:
        return f"{self.host} node {self.node_id[:8]}"


class RayProvider:
    """See :class:`~sabot_sql.cluster.provider.Provider`.

    ``address`` is a Ray client's (``ray://…``); without one it is the cluster that this process is connected to, or the
    one of this host. ``order`` makes an order of a session's name and secrets.
    """

    def __init__(self, address: str | None, order: Callable[[str, str, Authority], AgentOrder]) -> None:
        authority, token = Authority.make("sabot-sql session"), secrets.token_hex(32)
        self.credentials = Credentials(token, authority.certificate)
        self._order = order(uuid.uuid4().hex, token, authority)
        self._address = address
        self._connected = False
        self._keepers: dict[_Node, Any] = {}
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def launch(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        with self._lock:
            self._connect()
            if not _asks_for_a_secret():
                warnings.warn(
                    "Ray asks for no token: whoever can reach its cluster can run any code there, and read the secrets "
                    "of this session. Start the cluster and this process with RAY_AUTH_MODE=token",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return self._placed(count, check)

    def scale(self, count: int, check: Check) -> Launch:
        """See :class:`~sabot_sql.cluster.provider.Provider`: on the nodes that there are now."""
        with self._lock:
            self._connect()
            return self._placed(count, check)

    def watch(self, gone: Gone) -> None:
        """Nobody asks Ray; the session finds out by itself."""

    def stop(self) -> None:
        """See :class:`~sabot_sql.cluster.provider.Provider`."""
        if not is_own(self._owner):
            return
        with self._lock:
            keepers, self._keepers = list(self._keepers.values()), {}
            if ray.is_initialized():
                for keeper in keepers:
                    _kill(keeper)
            if self._connected:
                self._connected = False
                ray.shutdown()

    # --- with the lock held ----------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if ray.is_initialized():
            if self._address is not None and not self._connected:
                raise AgentError(
                    "this process is connected to a Ray cluster already",
                    hint='use that one, connect("ray"), or ray.shutdown() before',
                )
            return
        where = self._address or "auto"
        self._keepers = {}
        try:
            ray.init(where, log_to_driver=False)
        except Exception as error:  # noqa: BLE001  Ray raises many kinds
            raise AgentError(f"the Ray cluster {where} cannot be reached: {_first_line(error)}") from None
        self._connected = True

    def _placed(self, count: int, check: Check) -> Launch:
        nodes = _nodes()
        for node in self._keepers.keys() - set(nodes):
            _kill(self._keepers.pop(node))
        # Those that have an agent come first, so that it stays.
        ordered = sorted(nodes, key=lambda node: (node not in self._keepers, node.name))
        for node in ordered[count:]:
            if node in self._keepers:
                _kill(self._keepers.pop(node))
        for node in ordered[:count]:
            if node not in self._keepers:
                self._keepers[node] = self._keeper(node)
        asked = {self._keepers[node].have_agent.remote(): node for node in ordered[:count]}
        give_up = time.monotonic() + LAUNCH_SECONDS
        pending = list(asked)
        while pending and time.monotonic() < give_up:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=_CHECK_SECONDS)
            check()
        found: list[LaunchedAgent] = []
        skipped: list[tuple[str, str]] = []
        for reference, node in asked.items():
            late = f"nothing within {LAUNCH_SECONDS:.0f} s; are {self._cpus(node)} CPUs of it free?"
            answer = late if reference in pending else _answer(reference)
            if isinstance(answer, str):
                skipped.append((node.name, answer))
                _kill(self._keepers.pop(node))
            else:
                found.append(LaunchedAgent(*answer))
        if len(nodes) < count:
            skipped.append((f"{count - len(nodes)} of {count} agents", f"Ray has {len(nodes)} nodes with CPUs"))
        if not found:
            said = "; ".join(f"{name}: {reason}" for name, reason in skipped)
            raise AgentError(f"no agent came up on the Ray cluster: {said}")
        return Launch(tuple(found), tuple(skipped))

    def _cpus(self, node: _Node) -> int:
        return self._order.threads or node.cpus

    def _keeper(self, node: _Node) -> Any:
        memory_bytes = self._order.memory_bytes or int(node.memory_bytes * _SHARE_OF_NODE)
        options: dict[str, Any] = {"memory": memory_bytes} if node.memory_bytes else {}
        actor = ray.remote(AgentKeeper).options(
            num_cpus=self._cpus(node),
            max_restarts=_MAX_RESTARTS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False),
            **options,
        )
        return actor.remote(self._order, memory_bytes or _WITHOUT_LIMIT_BYTES, self._cpus(node))


def _nodes() -> list[_Node]:
    """The nodes that can have an actor with a CPU."""
    found = []
    for node in ray.nodes():
        resources = node["Resources"]
        cpus = int(resources.get("CPU", 0))
        if node["Alive"] and cpus:
            memory_bytes = int(resources.get("memory", 0))
            found.append(_Node(node["NodeID"], node["NodeManagerAddress"], cpus, memory_bytes))
    return found


def _asks_for_a_secret() -> bool:
    """Whether Ray's own connections show a token, or certificates to each other."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:
        return False
    return bool(is_token_auth_enabled())


def _answer(reference: Any) -> tuple[str, str, int] | str:
    try:
        answer: tuple[str, str, int] | str = ray.get(reference, timeout=1)
    except RayError as error:
        return _first_line(error)
    return answer


def _kill(keeper: Any) -> None:
    """The actor's process is killed, and its agent ends with it."""
    with suppress(Exception):
        ray.kill(keeper, no_restart=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
