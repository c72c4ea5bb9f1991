"""Types: every package says that it is typed, and the stubs of the compiled modules say what is there."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable
from importlib.resources import files

import pytest


@pytest.mark.parametrize("package", ["sabot_planner", "sabot_native", "sabot_sql", "sabot_magics"])
def test_a_package_is_marked_as_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


def public(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_stub_of_the_compiled_module_names_what_it_holds() -> None:
    stub = ast.parse(files("sabot_native").joinpath("_native.pyi").read_text())
    in_stub = public(node.name for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef))
    compiled = importlib.import_module("sabot_native._native")
    defined = public(
        name for name, value in vars(compiled).items() if getattr(value, "__module__", "") == compiled.__name__
    )
    assert defined
    assert defined <= in_stub
