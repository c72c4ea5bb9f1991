"""TPC-DS: generated data and the 99 queries, kept between runs.

Both come from DuckDB's ``tpcds`` extension, whose latest build is for an older DuckDB than this project's; it therefore
runs in a virtual environment of its own, and only Parquet files and texts come out of it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import venv
from pathlib import Path

DIRECTORY_VARIABLE = "SABOT_TPCDS_DIR"
"""Names a directory where generated data is kept; by default one in the system's temporary directory."""

GENERATOR = ("duckdb==1.5.5", "duckdb-extension-tpcds==1.5.5")
_SECONDS = 1_200

_GENERATE = """
import sys
from pathlib import Path
import duckdb
import duckdb_extension_tpcds

scale, target = sys.argv[1], Path(sys.argv[2])
extension = next(Path(duckdb_extension_tpcds.__file__).parent.rglob("tpcds.duckdb_extension"))
connection = duckdb.connect(config={"threads": 2})
connection.execute(f"LOAD '{extension}'")
if scale == "queries":
    for number, text in connection.execute("SELECT query_nr, query FROM tpcds_queries()").fetchall():
        Path(target, f"q{number:02}.sql").write_text(text)
else:
    connection.execute(f"CALL dsdgen(sf = {scale})")
    for (table,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall():
        connection.execute(f"COPY {table} TO '{target / table}.parquet'")
"""


def tpcds(scale: float) -> Path:
    """The directory with ``<table>.parquet`` of all 24 tables at this scale factor, generated at the first call."""
    return _made(f"sf{scale:g}", f"{scale:g}")


def views(directory: Path) -> list[str]:
    """Statements that make each table a view over its Parquet file."""
    return [f"CREATE OR REPLACE VIEW {path.stem} AS FROM '{path}'" for path in sorted(directory.glob("*.parquet"))]


def queries() -> dict[str, str]:
    """The 99 queries by name, ``q01`` to ``q99``."""
    folder = _made("queries", "queries")
    return {path.stem: path.read_text().strip().rstrip(";") for path in sorted(folder.glob("q*.sql"))}


def _made(name: str, what: str) -> Path:
    root = Path(os.environ.get(DIRECTORY_VARIABLE) or Path(tempfile.gettempdir()) / "sabot-tpcds")
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        made = Path(scratch, name)
        made.mkdir()
        command = [str(_generator(root)), "-c", _GENERATE, what, str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, env=_clean_environment())
        made.replace(target)  # whole or not at all
    return target


def _generator(root: Path) -> Path:
    """The Python of the environment that has the generator."""
    python = root / "generator" / "bin" / "python"
    installed = root / "generator" / "installed"
    if not installed.is_file():
        venv.create(root / "generator", with_pip=True, clear=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *GENERATOR],
            check=True, capture_output=True, timeout=_SECONDS, env=_clean_environment(),
        )  # fmt: skip
        installed.touch()
    return python


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
