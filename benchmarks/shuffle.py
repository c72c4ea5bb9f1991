"""How near the native shuffle comes to the speed of memory.

Every figure is a ratio of CPU seconds, medians over rounds in which all contenders run one after the other, so that a
noisy machine disturbs all of them alike. Run ``python benchmarks/shuffle.py`` on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sabot_native import Manifest, Output, Scheme, ShuffleManager

BATCH_ROWS = 131_072  # as DuckDB exports them
MIB = 1 << 20


def make_table(rows: int) -> pa.Table:
    """48-byte rows: int64, double, int64, nullable double, a short string."""
    random = np.random.default_rng(7)
    nulls = random.random(rows) < 0.1
    tags = np.char.add("tag-", random.integers(0, 99_999_999, rows).astype("U8"))
    table = pa.table(
        {
            "id": pa.array(np.arange(rows, dtype=np.int64)),
            "value": pa.array(random.random(rows)),
            "key": pa.array(random.integers(0, 1 << 40, rows)),
            "measure": pa.array(random.random(rows), mask=nulls),
            "tag": pa.array(tags, pa.string()),
        }
    )
    batches = table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS)
    return pa.Table.from_batches(
        [pa.record_batch(pc.take(batch, pa.array(range(batch.num_rows)))) for batch in batches]
    )


def buffers_of(table: pa.Table) -> list[np.ndarray]:
    """Every buffer of the table, as bytes."""
    return [
        np.frombuffer(buffer, np.uint8)
        for batch in table.to_batches()
        for column in batch.columns
        for buffer in column.buffers()
        if buffer is not None
    ]


class Memcpy:
    """Copies every buffer of a table into memory that was touched before."""

    def __init__(self, table: pa.Table) -> None:
        self.sources = buffers_of(table)
        self.target = np.ones(sum(len(source) for source in self.sources), np.uint8)

    def __call__(self) -> None:
        """Copy once."""
        at = 0
        for source in self.sources:
            self.target[at : at + len(source)] = source
            at += len(source)


class Partition:
    """The native shuffle: write a table into N partitions, then recycle them."""

    def __init__(self, manager: ShuffleManager, table: pa.Table, scheme: Scheme) -> None:
        self.manager, self.table, self.scheme = manager, table, scheme

    def write(self) -> Manifest:
        """The manifest of the table's rows."""
        self.manager.register_shuffle("q")
        return self.manager.write_partition(self.table, [Output("q", "e", 0, 0, self.scheme)])[0]

    def __call__(self) -> None:
        """Write and release."""
        self.write()
        self.manager.release("q")


def polars_partition(table: pa.Table, partitions: int) -> Callable[[], None]:
    """polars' own partition_by, given the partition number of each row."""
    frame = pl.DataFrame(pl.from_arrow(table)).with_columns(
        (pl.col("key").hash() % partitions).cast(pl.UInt32).alias("p")
    )

    def run() -> None:
        frame.partition_by("p", include_key=False)

    return run


def sort_and_take(table: pa.Table, partitions: int) -> Callable[[], None]:
    """pyarrow: a stable sort of the partition numbers, then take."""
    numbers = pa.array(table["key"].to_numpy() % partitions)

    def run() -> None:
        table.take(pc.array_sort_indices(numbers))

    return run


def interleaved(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each contender."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender()
    for _ in range(rounds):
        for name, contender in contenders.items():
            started = time.process_time()
            contender()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def handoff_us(manager: ShuffleManager, table: pa.Table) -> float:
    """Microseconds of CPU to hand one batch to pyarrow in the same process, its import of the columns included."""
    manifest = Partition(manager, table, Scheme.hash_columns(["key"], 64)).write()
    stream = manager.read([manifest], 0, 64)
    reader_cost = time_of(lambda: pa.table(stream), 50)
    manager.release("q")
    return reader_cost / manifest.batches * 1e6


def time_of(body: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds."""
    return interleaved({"body": lambda: body() and None}, rounds)["body"]


def duckdb_share(manager: ShuffleManager, rows: int, rounds: int) -> float:
    """The partitioner's share of DuckDB export + partition + DuckDB import, N = 16."""
    connection = duckdb.connect(config={"threads": 1})
    connection.register("source", make_table(rows))
    connection.execute("create table t as select *, hash(key) h from source")
    cursor = connection.cursor()

    def export() -> None:
        for _ in pa.RecordBatchReader.from_stream(cursor.sql("from t")):
            pass

    def export_and_partition() -> None:
        manager.register_shuffle("q")
        manager.write_partition(cursor.sql("from t"), [Output("q", "e", 0, 0, Scheme.hash_column("h", 16))])
        manager.release("q")

    def whole() -> None:
        manager.register_shuffle("q")
        (manifest,) = manager.write_partition(
            cursor.sql("from t"), [Output("q", "e", 0, 0, Scheme.hash_column("h", 16))]
        )
        for partition in range(16):
            stream = manager.read([manifest], partition, partition + 1)
            cursor.sql("select max(id), max(value), max(key), max(measure), max(tag) from stream").fetchall()
            del stream
        manager.release("q")

    seconds = interleaved({"export": export, "partition": export_and_partition, "whole": whole}, rounds)
    return (seconds["partition"] - seconds["export"]) / seconds["whole"]


def measure(rows: int, rounds: int) -> dict[str, float]:
    """All figures by name."""
    table = make_table(rows)
    numeric = table.select(["id", "value", "key"])
    figures: dict[str, float] = {"row_bytes": table.nbytes / rows}
    budget_bytes = max(64 * MIB, table.nbytes * 2)
    with (
        tempfile.TemporaryDirectory() as spill,
        ShuffleManager("bench", budget_bytes=budget_bytes, spill_directory=spill) as manager,
    ):
        contenders: dict[str, Callable[[], None]] = {
            "memcpy": Memcpy(table),
            "memcpy_numeric": Memcpy(numeric),
            "numeric_16": Partition(manager, numeric, Scheme.hash_columns(["key"], 16)),
            "polars": polars_partition(table, 16),
            "pyarrow": sort_and_take(table, 16),
        }
        for partitions in (1, 4, 16, 64, 256, 1024):
            contenders[f"hash_{partitions}"] = Partition(manager, table, Scheme.hash_columns(["key"], partitions))
        seconds = interleaved(contenders, rounds)
        figures["memcpy_gb_per_s"] = table.nbytes / seconds["memcpy"] / 1e9
        for partitions in (1, 4, 16, 64, 256, 1024):
            figures[f"vs_memcpy_n{partitions}"] = seconds["memcpy"] / seconds[f"hash_{partitions}"]
        figures["numeric_vs_memcpy_n16"] = seconds["memcpy_numeric"] / seconds["numeric_16"]
        figures["vs_polars_n16"] = seconds["polars"] / seconds["hash_16"]
        figures["vs_pyarrow_n16"] = seconds["pyarrow"] / seconds["hash_16"]
        figures["handoff_with_pyarrow_import_us"] = handoff_us(manager, table)
        figures["duckdb_share_n16"] = duckdb_share(manager, rows, rounds)
        figures["pool_over_budget_bytes"] = max(0, manager.metrics()["peak_pool_bytes"] - budget_bytes)
    return figures


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(
        json.dumps(
            {name: round(value, 3) for name, value in measure(arguments.rows, arguments.rounds).items()}, indent=2
        )
    )


if __name__ == "__main__":
    main()
