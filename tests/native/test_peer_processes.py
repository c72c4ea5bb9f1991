"""Process agents of one host: a peer maps the arena once and reads what was committed there."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import pyarrow as pa

from sabot_native import Manifest, Output, Scheme, ShuffleManager

READER = """
import sys
import pyarrow as pa
from sabot_native import Manifest, ShuffleManager

fd, spill, own_spill = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with ShuffleManager("reader", budget_bytes=1 << 20, spill_directory=own_spill) as manager:
    manager.register_shuffle("q")
    manager.attach_peer("writer", fd, spill)
    manifests = [Manifest.from_bytes(bytes.fromhex(line)) for line in sys.stdin.readline().split()]
    table = pa.table(manager.read(manifests, 0, 4))
    print(table.num_rows, sum(table["i"].to_pylist()), flush=True)
    sys.stdin.readline()
"""


@contextmanager
def reader(manager: ShuffleManager, tmp_path, *manifests: Manifest):
    """A process that read the manifests and holds their arrays; gives its answer and the process."""
    arguments = [str(manager.arena_fd()), str(tmp_path / "spill"), str(tmp_path / "own")]
    with subprocess.Popen(
        [sys.executable, "-c", READER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[manager.arena_fd()],
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(" ".join(manifest.to_bytes().hex() for manifest in manifests) + "\n")
        process.stdin.flush()
        try:
            yield process.stdout.readline().split(), process
        finally:
            process.kill()


def write(manager: ShuffleManager, task: int, rows: int) -> Manifest:
    table = pa.table({"i": range(rows), "s": [f"row {i}" for i in range(rows)]})
    (manifest,) = manager.write_partition(table, [Output("q", "e", task, 0, Scheme.hash_columns(["i"], 4))])
    return manifest


def test_a_peer_reads_memory_and_spilled_segments(tmp_path):
    with ShuffleManager("writer", budget_bytes=1 << 20, spill_directory=str(tmp_path / "spill")) as manager:
        manager.register_shuffle("q")
        manifests = [write(manager, task, 20000) for task in range(4)]
        assert 0 < manager.metrics()["spilled_bytes"] < sum(m.bytes for m in manifests)
        with reader(manager, tmp_path, *manifests) as (answer, _):
            assert answer == ["80000", str(4 * sum(range(20000)))]


def test_what_a_dead_peer_pinned_is_recycled(tmp_path):
    with ShuffleManager("writer", budget_bytes=1 << 20, spill_directory=str(tmp_path / "spill")) as manager:
        manager.register_shuffle("q")
        manifest = write(manager, 0, 20000)
        with reader(manager, tmp_path, manifest) as (answer, _):
            assert answer[0] == "20000"
            manager.release("q")
            assert manager.metrics()["pool_bytes"] > 0
            manager.register_shuffle("q")
            write(manager, 1, 20000)
        for task in range(2, 6):
            manager.register_shuffle("q")
            write(manager, task, 20000)
            manager.release("q")
        assert manager.metrics()["pool_bytes"] == 0


DETACHED = """
import sys
import pyarrow as pa
from sabot_native import Manifest, SegmentLost, ShuffleManager

with ShuffleManager("reader", budget_bytes=1 << 20, spill_directory=sys.argv[3]) as manager:
    manager.register_shuffle("q")
    manifest = Manifest.from_bytes(bytes.fromhex(sys.argv[4]))
    manager.attach_peer("writer", int(sys.argv[1]), sys.argv[2])
    held = pa.table(manager.read([manifest], 0, 4))
    manager.detach_peer("writer")
    assert held.num_rows == 100 and sum(held["i"].to_pylist()) == sum(range(100))
    before = open("/proc/self/maps").read().count("sabot-arena")
    del held
    after = open("/proc/self/maps").read().count("sabot-arena")
    try:
        manager.read([manifest], 0, 4)
    except SegmentLost:
        print(before, after)
"""


def test_a_detached_peer_is_unmapped_once_nothing_is_held(tmp_path):
    with ShuffleManager("writer", budget_bytes=1 << 20, spill_directory=str(tmp_path / "spill")) as manager:
        manager.register_shuffle("q")
        manifest = write(manager, 0, 100)
        arguments = [str(manager.arena_fd()), str(tmp_path / "spill"), str(tmp_path / "own"), manifest.to_bytes().hex()]
        done = subprocess.run(
            [sys.executable, "-c", DETACHED, *arguments],
            capture_output=True,
            text=True,
            check=True,
            pass_fds=[manager.arena_fd()],
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        before, after = map(int, done.stdout.split())
        assert before > after == 2  # its own arena: table and pages


def test_an_unreachable_agent_is_a_lost_segment(tmp_path):
    with ShuffleManager("writer", budget_bytes=1 << 20, spill_directory=str(tmp_path / "spill")) as manager:
        manager.register_shuffle("q")
        data = write(manager, 0, 10).to_bytes()
    script = (
        "import sys; from sabot_native import *\n"
        "m = ShuffleManager('x', budget_bytes=1, spill_directory=sys.argv[1])\n"
        "try: m.read([Manifest.from_bytes(bytes.fromhex(sys.argv[2]))], 0, 4)\n"
        "except SegmentLost as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "own"), data.hex()],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert "agent writer cannot be reached from agent x" in done.stdout
