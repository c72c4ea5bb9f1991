"""Moving committed partitions between processes: shared memory, the C++ Flight transport, pyarrow's Flight server.

Every figure is CPU seconds of both processes together, medians over interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as arrow_flight

from sabot_native import Manifest, ShuffleManager
from sabot_native.flight import FlightPeer


def drain(stream: object) -> int:
    """Read every batch; gives the rows."""
    return pa.table(stream).num_rows


class Server:
    """The serving process."""

    def __init__(self, rows: int) -> None:
        script = Path(__file__).with_name("transport_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(rows), str(rows * 128)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hello = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def cpu_seconds(self) -> float:
        """Used by the server so far."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def measure(rows: int, rounds: int, spinning: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Median CPU and elapsed seconds by transport; with a Python thread spinning beside the reader if asked."""
    server = Server(rows)
    stop = threading.Event()
    spinner = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    cpu_seconds: dict[str, list[float]] = {}
    elapsed_seconds: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as own,
        ShuffleManager("r", budget_bytes=1 << 20, spill_directory=own) as manager,
    ):
        hello = server.hello
        arena_fd = os.open(f"/proc/{server.process.pid}/fd/{hello['arena_fd']}", os.O_RDWR)
        manager.attach_peer("server", arena_fd, hello["spill"])
        os.close(arena_fd)
        manifest = Manifest.from_bytes(bytes.fromhex(hello["manifest"]))
        peer = FlightPeer("127.0.0.1", hello["port"])
        client = arrow_flight.connect(f"grpc://127.0.0.1:{hello['python_port']}")
        readers: dict[str, Callable[[], int]] = {
            "shared_memory": lambda: drain(manager.read([manifest], 0, 1)),
            "flight": lambda: drain(peer.read(bytes.fromhex(hello["ticket"]))),
            "pyarrow_flight": lambda: client.do_get(arrow_flight.Ticket(b"t")).read_all().num_rows,
        }
        if spinning:
            spinner.start()
        for _ in range(rounds + 1):
            for name, reader in readers.items():
                before = server.cpu_seconds() + time.process_time()
                started = time.monotonic()
                if reader() != rows:
                    raise RuntimeError(f"{name} lost rows")
                elapsed = time.monotonic() - started
                elapsed_seconds.setdefault(name, []).append(elapsed)
                cpu_seconds.setdefault(name, []).append(server.cpu_seconds() + time.process_time() - before)
        stop.set()
        client.close()
    server.close()
    cpu, wall = (
        {name: statistics.median(values[1:]) for name, values in seconds.items()}
        for seconds in (cpu_seconds, elapsed_seconds)
    )
    return cpu, wall


def main() -> None:
    """Print the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    cpu, quiet = measure(arguments.rows, arguments.rounds, spinning=False)
    _, beside = measure(arguments.rows, arguments.rounds, spinning=True)
    figures = {
        "shared_memory_vs_flight": cpu["flight"] / cpu["shared_memory"],
        "flight_vs_pyarrow_flight": cpu["pyarrow_flight"] / cpu["flight"],
        "flight_slower_beside_a_spinning_thread": beside["flight"] / quiet["flight"],
        "pyarrow_flight_slower_beside_a_spinning_thread": beside["pyarrow_flight"] / quiet["pyarrow_flight"],
        "flight_gb_per_cpu_second": arguments.rows * 48 / cpu["flight"] / 1e9,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
