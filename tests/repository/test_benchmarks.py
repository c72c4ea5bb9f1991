"""The benchmarks run, and report what they say they report; figures are read on a quiet machine, not here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run(repository: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=repository, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tpch_prints_both_ratios_and_the_memory_of_the_process_tree(repository: Path, tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    small = ("--scale", "0.01", "--queries", "1,6", "--rounds", "1", "--json", report)
    out = run(repository, "benchmarks/tpch.py", *small)
    assert re.findall(r"^ total .* bar (1\.05|2): (?:met|missed)$", out, re.MULTILINE) == ["1.05", "2"]
    figures = json.loads(report.read_text())
    for name, processes in (("auto", 1), ("processes", 3)):
        timing, memory = figures[name], figures["memory"][name]
        assert set(timing["sabot_sql_ms"]) == set(timing["duckdb_ms"]) == {"1", "6"}
        assert timing["total_ratio"] == pytest.approx(timing["total_sabot_sql_ms"] / timing["total_duckdb_ms"])
        assert memory["processes"] >= processes
        assert 0 < memory["pss_bytes"] <= memory["budget_bytes"] == 2 << 30


def test_hot_key_prints_ratios_and_how_even_the_tasks_are(repository: Path, tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    small = ("--rows", "60000", "--rounds", "1", "--isolation", "thread", "--json", report)
    out = run(repository, "benchmarks/hot_key.py", *small)
    figures = json.loads(report.read_text())["thread"]
    assert re.findall(r"^ *([a-z ]+?) +[\d.]+ +[\d.]+ .* bar 1.3: (?:met|missed)$", out, re.MULTILINE) == list(figures)
    for one in figures.values():
        assert one["ratio"] == pytest.approx(one["hot_ms"] / one["even_ms"])
        assert one["even_balance"] >= 1
        assert min(one["tasks"]) >= 1


def test_fraud_prints_rates_and_memory(repository: Path, tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    small = ("--rows", "20000", "--rounds", "1", "--agents", "2", "--isolation", "thread", "--peak", "--json", report)
    done = subprocess.run(
        [sys.executable, "benchmarks/fraud.py", *small],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert "all found and nothing else in every run" in done.stdout, done.stderr
    assert re.search(r"^memory: [\d,]+ MB at most, of 2,147 \(bar 1.15\)$", done.stdout, re.MULTILINE)
    figures = json.loads(report.read_text())
    assert figures["rows_per_second"] == pytest.approx(20_000 / figures["job_ms"] * 1e3)
    assert figures["ratio"] == pytest.approx(figures["job_ms"] / figures["duckdb_ms"])


@pytest.mark.bench
def test_the_first_row_of_a_small_query_comes_within_the_bar(repository: Path) -> None:
    out = run(repository, "benchmarks/first_row.py", "--rounds", "7")
    processors = re.search(r"sabot_sql [\d.]+ s, processors ([\d.]+) s   bar 0.6 s: ", out)
    assert processors is not None, out
    assert float(processors.group(1)) <= 0.6, out
