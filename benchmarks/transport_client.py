"""A reading side of ``shuffle_transport.py``: one transport in a process of its own, as its users would run it.

DuckDB counts the rows, as a fragment reads an edge: the rows are not kept. Its Python client looks for signals every
hundred thousand rows or so, under the GIL, so where the GIL is what is measured the rows go into a shuffle instead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.flight as arrow_flight

from sabot_native import Manifest, Output, Scheme, ShuffleManager
from sabot_native.flight import FlightPeer

ROW_BYTES = 128
"""More than a row takes in the shuffle's memory."""


class Streamable(Protocol):
    """What exports an Arrow C stream."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class Rows:
    """A stream and nothing else: DuckDB would read a pyarrow reader through pyarrow's scanner, in Python."""

    def __init__(self, stream: Streamable, schema: pa.Schema) -> None:
        self._stream, self._schema = stream, schema

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._stream.__arrow_c_stream__()

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()


def opener(transport: str, hello: dict[str, str], manager: ShuffleManager, repeats: int) -> Callable[[], Streamable]:
    """How to begin a read of the served table, ``repeats`` times over."""
    if transport == "shared_memory":
        arena_fd = os.open(f"/proc/{hello['pid']}/fd/{hello['arena_fd']}", os.O_RDWR)
        manager.attach_peer("server", arena_fd, hello["spill"])
        os.close(arena_fd)
        manifest = Manifest.from_bytes(bytes.fromhex(hello["manifest"]))
        return lambda: manager.read([manifest] * repeats, 0, 1)
    if transport == "flight":
        peer = FlightPeer("127.0.0.1", int(hello["port"]))
        ticket = bytes.fromhex(hello["long_ticket" if repeats > 1 else "ticket"])
        return lambda: peer.read(ticket, deadline_ms=600_000)
    client = arrow_flight.connect(f"grpc://127.0.0.1:{hello['python_port']}")
    return lambda: client.do_get(arrow_flight.Ticket(str(repeats))).to_reader()


def spin() -> None:
    """Take the GIL whenever it is free, and no memory."""
    while True:
        pass


def main() -> None:
    """Read once for every line of the input; answer it with the CPU and elapsed seconds that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transport", choices=["shared_memory", "flight", "pyarrow_flight"])
    parser.add_argument("rows", type=int)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--into-shuffle", action="store_true", help="write the rows into a shuffle of one partition")
    parser.add_argument("--spin", action="store_true", help="with a Python thread spinning beside the reader")
    arguments = parser.parse_args()
    hello = json.loads(sys.stdin.readline())
    budget_bytes = arguments.rows * arguments.repeats * ROW_BYTES if arguments.into_shuffle else 1 << 20
    database = duckdb.connect(config={"threads": 1})
    spinner = threading.Thread(target=spin, daemon=True)
    with (
        tempfile.TemporaryDirectory() as own,
        ShuffleManager("reader", budget_bytes=budget_bytes, spill_directory=own) as manager,
    ):
        open_stream = opener(arguments.transport, hello, manager, arguments.repeats)
        schema = pa.RecordBatchReader.from_stream(open_stream()).schema
        if arguments.spin:
            spinner.start()
            spinner_clock = time.pthread_getcpuclockid(spinner.ident or 0)

        def write(rows: Rows) -> int:
            manager.register_shuffle("read")
            (manifest,) = manager.write_partition(rows, [Output("read", "e", 0, 0, Scheme.single())])
            manager.release("read")
            return manifest.rows

        def count(rows: Rows) -> int:
            return int(database.execute("SELECT count(*) FROM rows").fetchall()[0][0])

        def cpu_seconds() -> float:
            return time.process_time() - (time.clock_gettime(spinner_clock) if arguments.spin else 0)

        for _ in sys.stdin:
            before, started = cpu_seconds(), time.monotonic()
            rows = Rows(open_stream(), schema)
            arrived = write(rows) if arguments.into_shuffle else count(rows)
            figures = {"cpu": cpu_seconds() - before, "elapsed": time.monotonic() - started}
            if arrived != arguments.rows * arguments.repeats:
                raise RuntimeError(f"{arguments.transport} lost rows")
            print(json.dumps(figures), flush=True)
            del rows
    os._exit(0)  # the spinner never ends


if __name__ == "__main__":
    main()
