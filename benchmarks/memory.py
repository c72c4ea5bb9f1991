"""Memory and processor time of a process and all its descendants."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What one process has, a page that several map counted in parts: private memory, files, memory that is shared."""

    pid: int
    private_bytes: int
    file_bytes: int
    shared_bytes: int
    rss_bytes: int

    @property
    def pss_bytes(self) -> int:
        """All of it."""
        return self.private_bytes + self.file_bytes + self.shared_bytes


@dataclass(frozen=True, slots=True)
class MemoryPeak:
    """The highest sums seen over a process tree.

    ``rss_bytes`` counts a page that several processes map once for each of them; ``pss_bytes`` counts it once in all,
    and is what the machine really gave. ``tree`` is what the processes had then, the first one first.
    """

    rss_bytes: int = 0
    pss_bytes: int = 0
    processes: int = 0
    samples: int = 0
    tree: tuple[ProcessMemory, ...] = ()

    def seen(self, tree: tuple[ProcessMemory, ...]) -> MemoryPeak:
        """This peak once ``tree`` was seen as well."""
        pss_bytes = sum(process.pss_bytes for process in tree)
        peak = replace(
            self,
            rss_bytes=max(self.rss_bytes, sum(process.rss_bytes for process in tree)),
            processes=max(self.processes, len(tree)),
            samples=self.samples + 1,
        )
        return replace(peak, pss_bytes=pss_bytes, tree=tree) if pss_bytes > self.pss_bytes else peak


def peak_while(pid: int, running: Callable[[], bool]) -> MemoryPeak:
    """Sample the tree below ``pid`` until ``running()`` is false."""
    peak = MemoryPeak()
    while running():
        peak = peak.seen(tree_memory(pid))
        time.sleep(INTERVAL_S)
    return peak


def processor_seconds(pid: int) -> float:
    """Processor time that the tree below ``pid`` has used so far; processes that ended are not in it."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def tree_memory(pid: int) -> tuple[ProcessMemory, ...]:
    """What the processes of a tree have now; those that just ended are left out."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return ()
    found = []
    for process in tree:
        try:
            rolled = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kilobytes = {line.split()[0]: int(line.split()[1]) for line in rolled.splitlines()[1:]}
        if kilobytes:
            names = ("Pss_Anon:", "Pss_File:", "Pss_Shmem:", "Rss:")
            found.append(ProcessMemory(process.pid, *(kilobytes[name] << 10 for name in names)))
    return tuple(found)
