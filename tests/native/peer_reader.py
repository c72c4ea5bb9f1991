"""A process that reads a manager's outputs through shared memory: one line of JSON in, one Arrow stream out."""

from __future__ import annotations

import json
import sys

import pyarrow as pa

from sabot_native import Manifest, ShuffleManager


def main(arena_fd: int, spill_directory: str, own_directory: str) -> None:
    with ShuffleManager("reader", budget_bytes=1 << 20, spill_directory=own_directory) as manager:
        manager.register_shuffle("q")
        manager.attach_peer("writer", arena_fd, spill_directory)
        for line in sys.stdin:
            request = json.loads(line)
            manifests = [Manifest.from_bytes(bytes.fromhex(text)) for text in request["manifests"]]
            stream = manager.read(manifests, request["first"], request["last"])
            sink = pa.BufferOutputStream()
            try:
                reader = pa.RecordBatchReader.from_stream(stream)
                with pa.ipc.new_stream(sink, reader.schema) as writer:
                    for batch in reader:
                        writer.write_batch(batch)
                answer = sink.getvalue().to_pybytes()
            except OSError as error:
                answer = b"!" + str(error).encode()
            sys.stdout.buffer.write(len(answer).to_bytes(8, "little") + answer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
