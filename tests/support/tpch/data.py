"""TPC-H: generated data, kept between runs, and the 22 queries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TABLES = ("customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier")
DIRECTORY_VARIABLE = "SABOT_TPCH_DIR"
"""Names a directory where generated data is kept; by default one in the system's temporary directory."""

_QUERIES = Path(__file__).parent / "queries"


def tpch(scale: float) -> Path:
    """The directory with ``<table>.parquet`` of all tables at this scale factor, generated at the first call."""
    root = Path(os.environ.get(DIRECTORY_VARIABLE) or Path(tempfile.gettempdir()) / "sabot-tpch")
    target = root / f"sf{scale:g}"
    if all((target / f"{table}.parquet").is_file() for table in TABLES):
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        generator = shutil.which(
            "tpchgen-cli", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        )
        if generator is None:
            raise FileNotFoundError("tpchgen-cli is not installed; it comes with the extra sabot-sql[test]")
        subprocess.run(
            [generator, "parquet", "-s", f"{scale:g}", "--output-dir", scratch],
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        target.mkdir(exist_ok=True)
        for table in TABLES:
            Path(scratch, f"{table}.parquet").replace(target / f"{table}.parquet")
    return target


def views(directory: Path) -> list[str]:
    """Statements that make each table a view over its Parquet file."""
    return [f"CREATE OR REPLACE VIEW {table} AS FROM '{directory / table}.parquet'" for table in TABLES]


def queries() -> dict[str, str]:
    """The 22 queries by name, ``q01`` to ``q22``."""
    return {path.stem: path.read_text().strip().rstrip(";") for path in sorted(_QUERIES.glob("q*.sql"))}
