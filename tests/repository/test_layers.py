"""The layers hold, and the checks that hold them would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONTRACTS = (
    "magics -> sql -> (planner | native)",
    "the planner is pure",
    "the planner's rooms",
    "the session's rooms",
    "no circle of imports",
    "DuckDB is reached",
    "DBOS is in a room of its own",
    "IPython belongs",
)

ROOMS = ("job", "sql", "logical", "physical", "stats", "distribute", "fragments", "adapt")

ALLOWED = {
    "sabot_planner": "import sqlglot\n",
    "sabot_planner/errors": "",
    **{f"sabot_planner/{room}": "import sabot_planner.errors\n" for room in ROOMS},
    "sabot_planner/planner": "import sabot_planner.adapt\n",
    "sabot_native": "import pyarrow\n",
    "sabot_sql": "import sabot_native, sabot_planner\n",
    "sabot_sql/errors": "",
    "sabot_sql/protocol": "import sabot_sql.errors\n",
    "sabot_sql/transport": "import sabot_sql.protocol\n",
    "sabot_sql/duck": "import duckdb, sabot_sql.protocol\n",
    "sabot_sql/agent": "import duckdb, sabot_sql.duck\n",
    "sabot_sql/catalog": "import duckdb, sabot_sql.duck\n",
    "sabot_sql/coordinator": "import sabot_sql.agent, sabot_sql.catalog\n",
    "sabot_sql/cluster": "import sabot_sql.coordinator, sabot_sql.agent\n",
    "sabot_sql/service": "import sabot_sql.agent\n",
    "sabot_sql/top": "import sabot_sql.transport\n",
    "sabot_sql/call": "import sabot_sql.cluster, sabot_sql.coordinator\n",
    "sabot_sql/jobs": "import sabot_sql.call\n",
    "sabot_sql/detached": "import sabot_sql.catalog\n",
    "sabot_sql/session": "import sabot_sql.jobs, sabot_sql.detached\n",
    "sabot_sql/durable": "import dbos, sqlalchemy, sabot_sql.session\n",
    "sabot_magics": "import IPython, sabot_sql\n",
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_every_contract_is_kept(repository: Path) -> None:
    done = lint_imports(repository)
    assert done.returncode == 0, done.stdout
    for name in CONTRACTS:
        assert any(name in line and line.rstrip().endswith("KEPT") for line in done.stdout.splitlines()), done.stdout


def write_packages(repository: Path, folder: Path) -> None:
    """Packages of the same names that keep every contract."""
    for module, text in ALLOWED.items():
        (folder / module).mkdir()
        (folder / module / "__init__.py").touch()
        (folder / module / "part.py").write_text(text)
    (folder / "pyproject.toml").write_text((repository / "pyproject.toml").read_text())
    done = lint_imports(folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("package", "statement"),
    [
        ("sabot_planner", "import duckdb"),
        ("sabot_planner", "import sabot_native"),
        ("sabot_planner/job", "import sabot_planner.sql"),
        ("sabot_planner/logical", "import sabot_planner.physical"),
        ("sabot_planner/stats", "import sabot_planner.distribute"),
        ("sabot_planner/fragments", "import sabot_planner.adapt"),
        ("sabot_native", "import sabot_planner"),
        ("sabot_sql", "import sabot_magics"),
        ("sabot_sql", "import duckdb"),
        ("sabot_sql/agent", "import sabot_sql.catalog"),
        ("sabot_sql/protocol", "import sabot_sql.duck"),
        ("sabot_sql/catalog", "import sabot_sql.agent"),
        ("sabot_sql/coordinator", "import sabot_sql.call"),
        ("sabot_sql/call", "import sabot_sql.jobs"),
        ("sabot_sql", "import IPython"),
        ("sabot_sql", "import dbos"),
        ("sabot_sql/detached", "import sabot_sql.session"),
        ("sabot_sql/session", "import sabot_sql.durable"),
    ],
)
def test_a_forbidden_import_is_caught(repository: Path, tmp_path: Path, package: str, statement: str) -> None:
    write_packages(repository, tmp_path)
    (tmp_path / package / "intruder.py").write_text(f"{statement}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout, done.stdout + done.stderr
    assert f"{package.replace('/', '.')}.intruder" in done.stdout


def test_a_circle_is_caught(repository: Path, tmp_path: Path) -> None:
    write_packages(repository, tmp_path)
    (tmp_path / "sabot_sql" / "one.py").write_text("import sabot_sql.two\n")
    (tmp_path / "sabot_sql" / "two.py").write_text("import sabot_sql.one\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert "no circle of imports between the files of a room, or between rooms BROKEN" in done.stdout
