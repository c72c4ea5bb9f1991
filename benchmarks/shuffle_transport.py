"""Moving committed partitions between processes: shared memory, the C++ Flight transport, pyarrow's Flight server.

Server and readers are processes of their own. CPU figures are seconds of the server and the reader together; rounds of
all readers are interleaved, readers are started anew several times, and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# What the C++ transport sets for its process: glibc keeps freed memory instead of returning and faulting it in again.
KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
REPEATS = 10


class Process:
    """A script that answers lines with lines."""

    def __init__(self, script: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FOLDER / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def send(self, line: str = "") -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def receive(self) -> str:
        """Read a line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self) -> str:
        """The answer to an empty line."""
        self.send()
        return self.receive()

    def close(self) -> None:
        """End it."""
        self._process.communicate()


Reader = tuple[list[str], dict[str, str]]  # arguments and environment


def measure(rows: int, rounds: int, readers: dict[str, Reader]) -> dict[str, dict[str, float]]:
    """Median CPU and elapsed seconds of each reader."""
    server = Process("transport_server.py", str(rows), str(REPEATS))
    hello = server.receive()
    seconds: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "elapsed": []} for name in readers}
    for _ in range(3):
        running = {}
        for name, (arguments, environment) in readers.items():
            running[name] = Process("transport_client.py", *arguments, environment=environment)
            running[name].send(hello.strip())
            running[name].ask()  # a round to warm up
        for _ in range(rounds):
            for name, reader in running.items():
                before = float(server.ask())
                figures = json.loads(reader.ask())
                seconds[name]["cpu"].append(figures["cpu"] + float(server.ask()) - before)
                seconds[name]["elapsed"].append(figures["elapsed"])
        for reader in running.values():
            reader.close()
    server.close()
    return {name: {kind: statistics.median(kinds[kind]) for kind in kinds} for name, kinds in seconds.items()}


def measure_beside(rows: int, rounds: int, spin: str) -> dict[str, dict[str, float]]:
    """The Flight readers on long streams: alone, beside a spinning Python ``thread``, or beside another ``process``.

    They write into a shuffle, in which no part needs the GIL but the call itself.
    """
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if spin == "process" else None
    flags = ["--spin"] if spin == "thread" else []
    figures = {}
    for transport in ("flight", "pyarrow_flight"):  # one at a time: each has a spinner of its own
        reader = ([transport, str(rows), "--repeats", str(REPEATS), "--into-shuffle", *flags], {})
        figures |= measure(rows, rounds, {transport: reader})
    if beside is not None:
        beside.kill()
        beside.wait()
    return figures


def main() -> None:
    """Print the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows = str(arguments.rows)
    seconds = measure(
        arguments.rows,
        arguments.rounds,
        {
            "shared_memory": (["shared_memory", rows], {}),
            "flight": (["flight", rows], {}),
            "pyarrow_flight": (["pyarrow_flight", rows], {}),
            "pyarrow_flight_keeping_freed_memory": (["pyarrow_flight", rows], KEEP_FREED),
        },
    )
    cpu = {name: kinds["cpu"] for name, kinds in seconds.items()}
    figures = {
        "shared_memory_vs_flight": cpu["flight"] / cpu["shared_memory"],
        "flight_vs_pyarrow_flight": cpu["pyarrow_flight"] / cpu["flight"],
        "flight_vs_pyarrow_flight_keeping_freed_memory": cpu["pyarrow_flight_keeping_freed_memory"] / cpu["flight"],
        "flight_gb_per_cpu_second": arguments.rows * 48 / cpu["flight"] / 1e9,
    }
    # A spinning thread takes a core as well as the GIL; a spinning process takes a core only.
    beside = {spin: measure_beside(arguments.rows, arguments.rounds, spin) for spin in ("", "process", "thread")}
    for name in ("flight", "pyarrow_flight"):
        alone, process, thread = (beside[spin][name] for spin in ("", "process", "thread"))
        figures |= {
            f"{name}_cpu_beside_a_spinning_thread": thread["cpu"] / alone["cpu"],
            f"{name}_slower_beside_a_spinning_thread": thread["elapsed"] / alone["elapsed"],
            f"{name}_slower_beside_a_spinning_process": process["elapsed"] / alone["elapsed"],
        }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
