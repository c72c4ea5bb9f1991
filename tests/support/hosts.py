"""Hosts with a network between them, on one machine: network namespaces, each with a link to a switch.

The switch is a bridge in a namespace of its own. This process is on the network as well, by a link that can be cut like
the others. Links have a bandwidth (tbf); latency and loss need netem, which not every kernel has: see
:func:`has_netem`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache

_numbers = itertools.count(os.getpid() % 200)

OURS = "ours"
"""The name of the link of this process."""


def run(*command: str) -> str:
    """What the command prints; its error is raised with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@cache
def why_not() -> str | None:
    """Why there can be no hosts here, or None."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"there is no {tool}: install iproute2"
    try:
        with hosts(1):
            return None
    except OSError as error:
        return str(error)


@cache
def has_netem() -> bool:
    """Whether links can have latency and loss."""
    with hosts(1) as network:
        try:
            network.shape(network.names[0], delay_ms=1)
        except OSError:
            return False
    return True


@dataclass
class Network:
    """``names`` are the hosts; their namespaces have the same names, and each an address."""

    tag: str
    subnet: str
    names: list[str] = field(default_factory=list)

    @property
    def switch(self) -> str:
        """The namespace of the bridge."""
        return f"{self.tag}-switch"

    def address(self, name: str) -> str:
        """Of a host, or of this process."""
        return f"{self.subnet}.{254 if name == OURS else self.names.index(name) + 1}"

    def inside(self, name: str) -> list[str]:
        """The beginning of a command that is to run on a host."""
        return ["ip", "netns", "exec", name]

    def cut(self, name: str) -> None:
        """Nothing comes through a link any more, and neither end is told."""
        run(*self.inside(self.switch), "ip", "link", "set", name, "down")

    def mend(self, name: str) -> None:
        """The link works again."""
        run(*self.inside(self.switch), "ip", "link", "set", name, "up")

    def shape(self, name: str, *, mbit: float | None = None, delay_ms: float = 0, loss_percent: float = 0) -> None:
        """Give both directions of a link a bandwidth, a latency and a loss."""
        ends = [[*self.inside(self.switch), "tc", "qdisc", "replace", "dev", name]]
        ends.append([*([] if name == OURS else self.inside(name)), "tc", "qdisc", "replace", "dev", self._end(name)])
        for end in ends:
            if mbit is not None:
                rate = ("rate", f"{mbit}mbit", "burst", "256kb", "latency", "200ms")
                run(*end, "root", "handle", "1:", "tbf", *rate)
            if delay_ms or loss_percent:
                place = ("parent", "1:1", "handle", "10:") if mbit is not None else ("root", "handle", "10:")
                run(*end, *place, "netem", "delay", f"{delay_ms}ms", "loss", f"{loss_percent}%")

    def sent_bytes(self, name: str) -> int:
        """What a host has sent over its link so far."""
        return int(run(*self.inside(name), "cat", "/sys/class/net/eth0/statistics/tx_bytes"))

    def _end(self, name: str) -> str:
        return f"{self.tag}-up" if name == OURS else "eth0"

    def add(self, name: str) -> None:
        """Connect a host, or this process."""
        end = self._end(name)
        run("ip", "link", "add", f"{self.tag}-up", "type", "veth", "peer", "name", name, "netns", self.switch)
        if name != OURS:
            run("ip", "netns", "add", name)
            self.names.append(name)
            run("ip", "link", "set", f"{self.tag}-up", "netns", name, "name", end)
        here = [] if name == OURS else self.inside(name)
        run(*here, "ip", "address", "add", f"{self.address(name)}/24", "dev", end)
        run(*here, "ip", "link", "set", end, "up")
        run(*self.inside(self.switch), "ip", "link", "set", name, "master", "bridge", "up")
        if name != OURS:
            run(*here, "ip", "link", "set", "lo", "up")


@contextmanager
def hosts(count: int, *, mbit: float | None = None, delay_ms: float = 0, loss_percent: float = 0) -> Iterator[Network]:
    """A network of that many hosts and this process."""
    number = next(_numbers) % 250
    network = Network(f"sb{os.getpid() % 10_000}x{number}", f"10.{200 + number % 50}.{number}")
    try:
        run("ip", "netns", "add", network.switch)
        run(*network.inside(network.switch), "ip", "link", "add", "bridge", "type", "bridge", "stp_state", "0")
        run(*network.inside(network.switch), "ip", "link", "set", "bridge", "up")
        for index in range(count):
            network.add(f"{network.tag}h{index}")
        network.add(OURS)
        for name in (*network.names, OURS):
            network.shape(name, mbit=mbit, delay_ms=delay_ms, loss_percent=loss_percent)
        yield network
    finally:
        with suppress(OSError):
            run("ip", "link", "del", f"{network.tag}-up")
        for name in (*network.names, network.switch):
            with suppress(OSError):
                run("ip", "netns", "del", name)
