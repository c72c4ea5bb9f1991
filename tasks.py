#!/usr/bin/env python3
"""Set up the repository and run its jobs; ``python3 tasks.py --help`` lists them.

Needs Python 3.11 and a C++20 compiler, and only the standard library, because it is what a fresh machine runs first.
Everything is installed into ``.venv`` beside this file; generated data lies in ``data/``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
DEMO_SCALE = 0.1
DEMO_AGENTS = 4
FUZZ_MINUTES = 10
DEMO_SQL = """
SELECT n_name AS nation, count(*) AS items, sum(l_extendedprice * (1 - l_discount)) AS revenue
FROM '{data}/lineitem.parquet' JOIN '{data}/orders.parquet' ON l_orderkey = o_orderkey
     JOIN '{data}/customer.parquet' ON o_custkey = c_custkey JOIN '{data}/nation.parquet' ON c_nationkey = n_nationkey
WHERE o_orderdate >= DATE '1995-01-01' GROUP BY n_name ORDER BY revenue DESC
"""
# stubtest imports every module by itself, also the one that needs the libraries that pyarrow has loaded by then.
STUBTEST = "import sys, pyarrow.flight, mypy.stubtest; sys.exit(mypy.stubtest.main())"
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "import-linter": ["lint-imports"],
    "mypy": ["mypy"],
    "stubtest": ["python", "-c", STUBTEST, "sabot_native", "--mypy-config-file", "pyproject.toml"],
    "C++ tests": ["bash", "native/tests/run.sh"],
}

QUICK_CHECKS = ("ruff check", "ruff format", "import-linter")
FAST_FOLDERS = [f"tests/{name}" for name in ("planner", "plan_view", "runtime", "magics", "native")]
"""Where tests are marked ``fast``: the others need not be collected."""


def main(arguments: Sequence[str]) -> int:
    """Run one job; the exit code is the process's."""
    parser = argparse.ArgumentParser(prog="tasks.py", description="Set up sabot_sql and run its jobs.")
    jobs = parser.add_subparsers(dest="job", required=True)
    jobs.add_parser("setup", help="create .venv with the package (editable) and every tool")
    jobs.add_parser("demo", help=f"generate TPC-H data and run a query on {DEMO_AGENTS} local agents")
    jobs.add_parser("check", help="what to run while working: style, layers and the fast tests, within a minute")
    jobs.add_parser("lint", help="style, layers, types, stubs and C++ tests")
    test = jobs.add_parser(
        "test", help="everything in lint, then pytest but for what takes minutes; further arguments go to it"
    )
    test.add_argument("pytest", nargs=argparse.REMAINDER, help="arguments for pytest")
    full = jobs.add_parser("full", help=f"lint, all of pytest, then {FUZZ_MINUTES} minutes of the fuzzer")
    full.add_argument("--seed", type=int, default=1, help="of the fuzzer (1)")
    bench = jobs.add_parser("bench", help="run benchmarks/tpch.py; further arguments go to it")
    bench.add_argument("tpch", nargs=argparse.REMAINDER, help="arguments for benchmarks/tpch.py")
    options = parser.parse_args(arguments)

    set_up()
    if options.job == "demo":
        return demo()
    if options.job == "check":
        failed = failed_checks(QUICK_CHECKS)
        return run_pytest(["-q", "-m", "fast", *FAST_FOLDERS]) or len(failed)
    if options.job == "lint":
        return len(failed_checks(CHECKS))
    if options.job == "test":
        return run_tests(["-m", "not full", *options.pytest])
    if options.job == "full":
        return run_tests([]) + run_fuzzer(options.seed)
    if options.job == "bench":
        return run(["python", "benchmarks/tpch.py", *options.tpch])
    return 0


def set_up() -> None:
    """Create ``.venv`` and install the package into it, unless what it was built from is unchanged."""
    check_tools()
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted([ROOT / "pyproject.toml", ROOT / "setup.py", *native_sources()]):
        digest.update(path.read_bytes())
    stamp = VENV / "sabot-sql-built-from"
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    if not (BIN / "python").exists():
        say("creating .venv")
        venv.create(VENV, with_pip=True)
    say("building and installing sabot-sql (a minute or two)")
    pip = ["python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if run([*pip, "--editable", ".[dev]"]):
        raise SystemExit("tasks.py: the installation failed; its messages are above")
    stamp.write_text(digest.hexdigest())


def native_sources() -> list[Path]:
    """The files that the extension modules are compiled from."""
    suffixes = {".cpp", ".hpp", ".pyx", ".pxd"}
    found = [path for path in (ROOT / "native").rglob("*") if path.suffix in suffixes]
    return [path for path in found if path.relative_to(ROOT).parts[1] not in ("build", "tests")]


def check_tools() -> None:
    """Say what is missing before a long installation fails on it."""
    if sys.version_info < (3, 11):  # noqa: UP036  # the one file that an older Python may meet
        raise SystemExit(f"tasks.py: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    if not shutil.which(os.environ.get("CXX", "g++").split()[0]):
        raise SystemExit("tasks.py: a C++20 compiler is needed (Debian: apt-get install g++), or set CXX")
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        raise SystemExit("tasks.py: Python's headers are needed (Debian: apt-get install python3-dev python3-venv)")


def demo() -> int:
    """Generate TPC-H at a small scale, run one query on local agents, print the shuffle plan and the rows."""
    data = Path("data", "tpch", f"sf{DEMO_SCALE:g}")
    if not (ROOT / data / "lineitem.parquet").is_file():
        say(f"generating TPC-H, scale factor {DEMO_SCALE:g}")
        if code := run(["tpchgen-cli", "parquet", "-s", f"{DEMO_SCALE:g}", "--output-dir", str(data)]):
            return code
    sql = DEMO_SQL.strip().format(data=data)
    return run(["sabot-sql", "query", "--agents", str(DEMO_AGENTS), "--plan", sql])


def failed_checks(names: Iterable[str]) -> list[str]:
    """Run checks, also after one failed, and name those that did."""
    failed = []
    for name in names:
        say(name)
        if run(CHECKS[name]):
            failed.append(name)
    return failed


def run_tests(arguments: Sequence[str]) -> int:
    """Run every check, then pytest; how many did not pass."""
    failed = failed_checks(CHECKS)
    if failed:
        say(f"failed: {', '.join(failed)}")
    return run_pytest(arguments) or len(failed)


def run_fuzzer(seed: int) -> int:
    """Compare random queries with plain DuckDB for a while; 1 where one went wrong."""
    say(f"fuzzer, {FUZZ_MINUTES} minutes")
    return run(["python", "-m", "tests.fuzz", "--seed", str(seed), "--minutes", str(FUZZ_MINUTES)])


def run(command: Sequence[str]) -> int:
    """Run a command of ``.venv`` in the repository, shown as it can be repeated by hand; its exit code."""
    program = f".venv/bin/{command[0]}" if (BIN / command[0]).exists() else command[0]
    print("$", " ".join(map(quoted, [program, *command[1:]])))
    sys.stdout.flush()
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(VENV)}
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def quoted(word: str) -> str:
    """``word`` as a shell reads it: SQL stays readable, with its own quotes inside the other ones."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def run_pytest(arguments: Sequence[str]) -> int:
    """Run pytest and close on its own last line: libraries still print when the interpreter has ended."""
    command = ["python", "-m", "pytest", *arguments]
    print("$", shlex.join([".venv/bin/python", *command[1:]]), flush=True)
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(VENV)}
    last = ""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(line, end="", flush=True)
            if line.startswith("=") and " in " in line:
                last = line
    print(last, end="", flush=True)
    return pytest.returncode


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
