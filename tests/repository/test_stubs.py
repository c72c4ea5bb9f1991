"""Types: every package says that it is typed, and the stubs of the compiled modules say what is there."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable, Iterator
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


def described(stub: ast.Module) -> Iterator[tuple[str, str | None]]:
    """The public classes, functions and members of a stub that run, by their paths, with what the stub says of them."""
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, ast.get_docstring(node)
        elif isinstance(node, ast.ClassDef) and not any(
            isinstance(mark, ast.Name) and mark.id == "type_check_only" for mark in node.decorator_list
        ):
            yield node.name, ast.get_docstring(node)
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    yield f"{node.name}.{member.name}", ast.get_docstring(member)


@pytest.mark.parametrize("module", ["_native", "_flight"])
def test_help_says_of_native_classes_what_their_stub_says(module: str) -> None:
    stub = ast.parse(files("sabot_native").joinpath(f"{module}.pyi").read_text())
    compiled = importlib.import_module(f"sabot_native.{module}")
    found = dict(described(stub))
    assert len(found) > 20
    assert [path for path, words in found.items() if not words] == []
    for path, words in found.items():
        value = compiled
        for name in path.split("."):
            value = vars(value)[name]
        assert inspect.getdoc(getattr(value, "__func__", value)) == words, path
