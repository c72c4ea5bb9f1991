"""Types: every package says that it is typed, and the stubs of the compiled modules say what is there."""

from __future__ import annotations

import ast
import importlib
from importlib.resources import files

import pytest


@pytest.mark.parametrize("package", ["sabot_planner", "sabot_native", "sabot_sql", "sabot_magics"])
def test_a_package_is_marked_as_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()


def test_the_stub_of_sabot_native_names_exactly_what_is_exported() -> None:
    stub = ast.parse(files("sabot_native").joinpath("__init__.pyi").read_text())
    in_stub = {
        node.name
        for node in stub.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    }
    exported = set(importlib.import_module("sabot_native").__all__)
    assert exported <= in_stub
    assert {name for name in in_stub if hasattr(importlib.import_module("sabot_native"), name)} == in_stub


def test_every_class_and_function_in_the_stub_is_documented() -> None:
    native = importlib.import_module("sabot_native")
    undocumented = [
        name for name in native.__all__ if callable(getattr(native, name)) and not getattr(native, name).__doc__
    ]
    assert undocumented == []
