"""What the packages export: every name resolves, is documented, and nothing is exported by accident."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import importlib
import inspect
import os
import textwrap
import typing

import pytest

import sabot_sql

IPYTHON_HOOKS = {"load_ipython_extension", "unload_ipython_extension"}
PACKAGES = ("sabot_planner", "sabot_native", "sabot_sql", "sabot_magics")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_resolves_once(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__, f"{package} exports nothing"
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_class_and_function_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__, f"{package} has no docstring"
    exported = {name: getattr(module, name) for name in module.__all__}
    undocumented = [
        name
        for name, value in exported.items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value)
    ]
    assert undocumented == []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_of_a_package_are_exported(package: str) -> None:
    module = importlib.import_module(package)
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and getattr(value, "__module__", "").split(".")[0] == package
    }
    assert defined - IPYTHON_HOOKS <= set(module.__all__)


@pytest.mark.parametrize("name", ["Session", "Result", "Plan", "connect", "default_session", "query"])
def test_the_types_of_public_signatures_are_exported(name: str) -> None:
    (outermost,) = ast.parse(textwrap.dedent(inspect.getsource(getattr(sabot_sql, name)))).body
    inside = outermost.body if isinstance(outermost, ast.ClassDef) else [outermost]
    public = [node for node in inside if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert public
    known = {*vars(builtins), *vars(typing), *collections.abc.__all__, *vars(os), "os", "pa", "pd", "pl", "distributed"}
    used = {
        part.id
        for function in public
        for annotation in [
            *(arg.annotation for arg in ast.walk(function.args) if isinstance(arg, ast.arg)),
            function.returns,
        ]
        if annotation is not None
        for part in ast.walk(annotation)
        if isinstance(part, ast.Name)
    }
    assert used - known <= set(sabot_sql.__all__)
