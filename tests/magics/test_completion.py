"""Completion through IPython's own completer."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter

from tests.magics.conftest import Notebook


def complete(notebook: Notebook, cell: str) -> list[str]:
    """What the Tab key offers where ``|`` stands."""
    offset = cell.index("|")
    text = cell.replace("|", "", 1)
    with provisionalcompleter():
        found = list(notebook.shell.Completer.completions(text, offset))
    return [text[:offset][: item.start].rpartition("\n")[2] + item.text for item in found]


@pytest.fixture
def filled(notebook: Notebook) -> Notebook:
    notebook.names.update(people=pd.DataFrame({"name": ["a"], "age": [1]}), limit_year=1995, _hidden=1)
    notebook.sabot(
        "CREATE TABLE orders AS SELECT 1 AS o_orderkey, 2 AS o_custkey; CREATE TABLE customer AS SELECT 1 AS c_custkey"
    )
    return notebook


@pytest.mark.parametrize(
    ("cell", "offered"),
    [
        ("%%sabot --ag|", ["%%sabot --agents"]),
        ("%%sabot top << --max|", ["%%sabot top << --max-rows"]),
        ("%%sabot\nSELECT * FROM or|", ["SELECT * FROM orders"]),
        ("%%sabot\nSELECT * FROM cust|", ["SELECT * FROM customer"]),
        ("%%sabot\nSELECT * FROM orders JOIN peo|", ["SELECT * FROM orders JOIN people"]),
        ("%%sabot\nSELECT o.o_| FROM orders AS o", ["SELECT o.o_orderkey", "SELECT o.o_custkey"]),
        ("%%sabot\nSELECT x.c| FROM orders o, customer x", ["SELECT x.c_custkey"]),
        ("%%sabot\nSELECT p.ag|\nFROM people p WHERE true", ["SELECT p.age"]),
        ("%%sabot\nSELECT orders.o_c| FROM orders", ["SELECT orders.o_custkey"]),
        ("%%sabot\nSELECT o_cust| FROM orders", ["SELECT o_custkey"]),
        ("%%sabot\nSELECT approx_q|", ["SELECT approx_quantile"]),
        ("%%sabot\nSELECT 1 QUALI|", ["SELECT 1 QUALIFY"]),
        ("%%sabot\nSELECT $limit|", ["SELECT $limit_year"]),
        ("%%sabot\nSELECT * FROM orders\nWHERE o_orderk|", ["WHERE o_orderkey"]),
        ("%sabot SELECT * FROM or|", ["%sabot SELECT * FROM orders"]),
        ("x = 1\n%sabot FROM peo|", ["%sabot FROM people"]),
    ],
)
def test_offers(filled: Notebook, cell: str, offered: list[str]) -> None:
    assert complete(filled, cell) == offered


def test_columns_come_before_functions(filled: Notebook) -> None:
    assert complete(filled, "%%sabot\nSELECT a| FROM people")[0] == "SELECT age"


def test_python_is_left_to_python(filled: Notebook) -> None:
    assert "orders" not in " ".join(complete(filled, "or|"))
    assert complete(filled, "peop|") == ["people"]


def test_a_new_table_is_known_soon(filled: Notebook) -> None:
    complete(filled, "%%sabot\nFROM or|")
    filled.sabot("CREATE TABLE ordinary AS SELECT 1 AS a")
    assert complete(filled, "%%sabot\nFROM or|") == ["FROM orders", "FROM ordinary"]


def test_the_tab_key_starts_no_session(notebook: Notebook) -> None:
    assert complete(notebook, "%%sabot\nSELECT approx_q|") == []
    assert notebook.run("%sabot --status").out == "no session yet: the first query starts one\n"


def test_it_answers_at_once(filled: Notebook) -> None:
    complete(filled, "%%sabot\nSELECT a| FROM people")
    start = time.perf_counter()
    complete(filled, "%%sabot\nSELECT a| FROM people")
    assert time.perf_counter() - start < 0.2
