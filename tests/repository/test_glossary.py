"""The glossary's words are those of the code, and those that it gives up are in no name of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
PACKAGES = ("sabot_sql", "planner/sabot_planner", "native/sabot_native", "magics/sabot_magics")
TERMS = re.findall(r"^\| \*\*(.+?)\*\* \|", GLOSSARY, re.MULTILINE)
GIVEN_UP = dict(re.findall(r"^\| ~~(.+?)~~ \| (.+?) \|", GLOSSARY, re.MULTILINE))


def words(name: str) -> tuple[str, ...]:
    """The words of a name, however they are joined: ``EdgeOutput`` and ``edge_output`` are two."""
    return tuple(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower().split())


def names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name
            case _:
                pass


@cache
def used() -> dict[tuple[str, ...], str]:
    """Words of every name in the packages → a file that has it."""
    found: dict[tuple[str, ...], str] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = str(file.relative_to(ROOT))
            for name in (file.stem, file.parent.name, *names(ast.parse(file.read_text()))):
                found.setdefault(words(name), path)
    return found


def holds(name: tuple[str, ...], term: tuple[str, ...]) -> bool:
    """Whether ``term`` is said by consecutive words of a name, the last one in either number."""
    singular = (*term[:-1], term[-1].removesuffix("s"))
    wanted = {singular, (*singular[:-1], f"{singular[-1]}s"), (*singular[:-1], f"{singular[-1]}es")}
    size = len(term)
    return any(name[i : i + size] in wanted for i in range(len(name) - size + 1))


def test_the_glossary_has_both_of_its_tables() -> None:
    assert len(TERMS) > 30
    assert len(GIVEN_UP) >= 5
    assert len(set(TERMS)) == len(TERMS)


@cache
def said() -> str:
    """What the docstrings of the packages say."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    trees = (ast.parse(file.read_text()) for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, kinds))
    return " ".join(" ".join((ast.get_docstring(node) or "").split()) for node in nodes).lower()


@pytest.mark.parametrize(
    ("name", "term", "found"),
    [
        ("EdgeOutput", "edge", True),
        ("split_heavy_hitters", "heavy hitter", True),
        ("_gate", "gate", True),
        ("Gates", "gate", True),
        ("aggregate", "gate", False),
        ("edge", "ledge", False),
        ("hitter_heavy", "heavy hitter", False),
    ],
)
def test_a_name_holds_a_word_or_does_not(name: str, term: str, found: bool) -> None:
    assert holds(words(name), words(term)) is found


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_a_word_of_the_code(term: str) -> None:
    named = any(holds(name, words(term)) for name in used())
    assert named or re.search(rf"\b{re.escape(term)}s?\b", said()), f"nothing in the code is called {term!r}"


@pytest.mark.parametrize("word", GIVEN_UP)
def test_a_word_that_was_given_up_is_in_no_name(word: str) -> None:
    found = {" ".join(name): file for name, file in used().items() if holds(name, words(word))}
    assert found == {}, f"the word is {GIVEN_UP[word]}"
