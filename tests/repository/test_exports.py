"""What the packages export: every name resolves, is documented, and nothing is exported by accident."""

from __future__ import annotations

import importlib
import inspect

import pytest

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
