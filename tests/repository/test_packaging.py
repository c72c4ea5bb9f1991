"""The source distribution builds a wheel that holds the four packages, and the wheel works where nothing else is."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

PACKAGES = {"sabot_planner", "sabot_native", "sabot_sql", "sabot_magics"}

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=800
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, repository, cwd=folder)
    return folder


def test_the_sdist_holds_what_a_build_and_a_test_run_need(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "setup.py",
        "tasks.py",
        "README.md",
        "LICENSE",
        "native/tests/run.sh",
        "tests/conftest.py",
    }
    assert needed <= names
    for pattern in (r"native/include/.+\.hpp", r"native/src/.+\.cpp", r"native/sabot_native/.+\.pyx"):
        assert any(re.fullmatch(pattern, name) for name in names), pattern
    assert [name for name in names if name.endswith(".so") or ".venv" in name or name.startswith("data/")] == []


def test_the_wheel_holds_the_four_packages_and_nothing_generic(distributions: Path) -> None:
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    assert {name.removesuffix("/py.typed") for name in names if name.endswith("/py.typed")} >= PACKAGES
    assert [name for name in names if name.startswith("sabot_native/") and name.endswith(".so")]
    assert "sabot_native/_native.pyi" in names
    assert [name for name in names if name.endswith((".cpp", ".pyx", ".hpp"))] == []


def test_the_wheel_answers_a_query_in_an_environment_of_its_own(distributions: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    wheel = next(distributions.glob("*.whl"))
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    csv = tmp_path / "t.csv"
    csv.write_text("k,v\n" + "".join(f"{i % 3},{i}\n" for i in range(300)))
    sql = f"SELECT k, sum(v) AS total FROM '{csv}' GROUP BY k ORDER BY k"
    out = run(environment / "bin" / "sabot-sql", "query", "--agents", "2", sql, cwd=tmp_path)
    assert [row in out for row in ("14850", "14950", "15050")] == [True, True, True]
    loaded = "import sabot_sql, sabot_magics, sabot_planner, sabot_native; print(sabot_sql.__file__)"
    assert str(environment) in run(environment / "bin" / "python", "-c", loaded, cwd=tmp_path)
