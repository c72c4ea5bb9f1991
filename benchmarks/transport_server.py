"""The serving side of ``shuffle_transport.py``: holds a table, serves it, and reports the CPU time that took."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.flight as arrow_flight
import shuffle

from sabot_native import Output, Scheme, ShuffleManager
from sabot_native.flight import FlightServer

KEY = b"benchmark"


class TableServer(arrow_flight.FlightServerBase):
    """pyarrow's own server over the same batches."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._table = table

    def do_get(self, context: object, ticket: arrow_flight.Ticket) -> arrow_flight.RecordBatchStream:
        """The table, as many times over as the ticket says."""
        return arrow_flight.RecordBatchStream(pa.concat_tables([self._table] * int(ticket.ticket)))


def main(rows: int, repeats: int) -> None:
    """Serve until the input ends; every line of it is answered with the CPU seconds used so far."""
    table = shuffle.make_table(rows)
    with (
        tempfile.TemporaryDirectory() as spill,
        ShuffleManager("server", budget_bytes=rows * 128, spill_directory=spill) as manager,
    ):
        manager.register_shuffle("q")
        (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.single())])
        stored = pa.table(manager.read([manifest], 0, 1))
        with FlightServer(manager, KEY) as server, TableServer(stored) as python_server:
            hello = {
                "pid": os.getpid(),
                "arena_fd": manager.arena_fd(),
                "spill": spill,
                "manifest": manifest.to_bytes().hex(),
                "ticket": manager.ticket([manifest], 0, 1, KEY).hex(),
                "long_ticket": manager.ticket([manifest] * repeats, 0, 1, KEY).hex(),
                "port": server.port,
                "python_port": python_server.port,
            }
            print(json.dumps(hello), flush=True)
            for _ in sys.stdin:
                print(time.process_time(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
