"""Memory and processor time of a process and all its descendants."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class MemoryPeak:
    """The highest sums seen over a process tree.

    ``rss_bytes`` counts a page that several processes map once for each of them; ``pss_bytes`` counts it once in all,
    and is what the machine really gave.
    """

    rss_bytes: int
    pss_bytes: int
    processes: int
    samples: int


def peak_while(pid: int, running: Callable[[], bool]) -> MemoryPeak:
    """Sample the tree below ``pid`` until ``running()`` is false."""
    peak = MemoryPeak(0, 0, 0, 0)
    while running():
        rss_bytes, pss_bytes, processes = _tree_bytes(pid)
        peak = MemoryPeak(
            max(peak.rss_bytes, rss_bytes),
            max(peak.pss_bytes, pss_bytes),
            max(peak.processes, processes),
            peak.samples + 1,
        )
        time.sleep(INTERVAL_S)
    return peak


def processor_seconds(pid: int) -> float:
    """Processor time that the tree below ``pid`` has used so far; processes that ended are not in it."""
    root = psutil.Process(pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def _tree_bytes(pid: int) -> tuple[int, int, int]:
    """Resident bytes, proportional bytes and number of the processes of a tree; those that just ended count as none."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0, 0
    rss_bytes = pss_bytes = processes = 0
    for process in tree:
        try:
            rolled = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kilobytes = {line.split()[0]: int(line.split()[1]) for line in rolled.splitlines()[1:]}
        rss_bytes += kilobytes["Rss:"] * 1024
        pss_bytes += kilobytes["Pss:"] * 1024
        processes += 1
    return rss_bytes, pss_bytes, processes
