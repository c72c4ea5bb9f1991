"""A disk that is full, seen through the largest file that a process may write."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, resource, sys
import pyarrow as pa
from sabot_native import Output, Scheme, ShuffleManager, SpillQuotaExceeded

table = pa.table({"i": range(400_000)})
with ShuffleManager("agent", budget_bytes=1 << 20, spill_directory=sys.argv[1]) as manager:
    manager.register_shuffle("q")
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
    try:
        manager.write_partition(table, [Output("q", "e", 0, 0, Scheme.hash_columns(["i"], 8))])
    except SpillQuotaExceeded as error:
        print(type(error).__name__, error)
    metrics = manager.metrics()
    assert metrics["pool_bytes"] == metrics["disk_bytes"] == metrics["segments"] == 0, metrics
    assert os.listdir(sys.argv[1]) == []
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (manifest,) = manager.write_partition(table, [Output("q", "e", 0, 1, Scheme.hash_columns(["i"], 8))])
    assert pa.table(manager.read([manifest], 0, 8)).num_rows == 400_000
    print("usable again", manifest.spilled_bytes > 0)
"""


def test_a_full_disk_is_a_typed_error_and_the_manager_stays_usable(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "spill")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("SpillQuotaExceeded cannot spill to")
    assert second == "usable again True"
