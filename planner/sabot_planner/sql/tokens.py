"""The tokens of exported SQL and a place among them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from sqlglot import exp

from sabot_planner.errors import Undistributable

END = ""
_STEPS_UNASKED = 1_000
_TOKEN = re.compile(
    r"""\s*(
        [^\W\d][\w$]*+(?!')                     # word, possessive: never a part of one
      | "(?:[^"]|"")*"                          # quoted identifier
      | [xXbB]?'(?:[^']|'')*'                   # string, hexadecimal or bit string
      | (?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?
      | \$\w+                                  # what stands for a list that was set aside
      | :=|<=|>=|!=|<>
      | [^\s]
    )""",
    re.VERBOSE,
)


def tokens_of(sql: str) -> list[str]:
    """The tokens of a text."""
    found: list[str] = _TOKEN.findall(sql)
    return found


class Tokens:
    """A place in a list of tokens; ``token`` is the current one, ``END`` after the last.

    ``check`` is called now and then and may raise.
    """

    __slots__ = ("_check", "_steps", "position", "token", "tokens")

    def __init__(self, sql: str, check: Callable[[], None]) -> None:
        self._check = check
        self._steps = 0
        self.tokens = tokens_of(sql)
        self.tokens += [END, END]  # one may always look one token ahead
        self.position = 0
        self.token = self.tokens[0]

    def step(self) -> None:
        """Count a step of reading; now and then it is asked whether to go on."""
        self._steps += 1
        if not self._steps % _STEPS_UNASKED:
            self._check()

    def advance(self) -> str:
        """Step over the current token and return it."""
        token = self.token
        self.position += 1
        self.token = self.tokens[self.position]
        return token

    def take(self, token: str) -> bool:
        """Step over the current token if it is ``token``, and say so."""
        if self.token == token:
            self.position += 1
            self.token = self.tokens[self.position]
            return True
        return False

    def expect(self, token: str) -> None:
        """Step over ``token``, which must come now."""
        if self.token != token:
            self.fail(repr(token))
        self.position += 1
        self.token = self.tokens[self.position]

    def fail(self, wanted: str) -> NoReturn:
        """Refuse the text: something other than ``wanted`` stands here."""
        around = " ".join(self.tokens[max(0, self.position - 6) : self.position + 6])
        raise Undistributable(f"the exported plan has a form that is not read: wanted {wanted} at {around!r}")

    def listed(self, item: Callable[[], Any]) -> list[Any]:
        """One or more items, separated by commas."""
        items = [item()]
        while self.token == ",":
            self.advance()
            items.append(item())
        return items

    def wrapped(self, item: Callable[[], Any]) -> list[Any]:
        """Items in parentheses, none at all included."""
        self.expect("(")
        if self.take(")"):
            return []
        items = self.listed(item)
        self.expect(")")
        return items

    def identifier(self) -> exp.Identifier:
        """A name, quoted or bare."""
        token = self.token
        first = token[:1]
        if not (first == '"' or first.isalpha() or first == "_"):
            self.fail("a name")
        self.advance()
        return identifier(token)


def identifier(token: str) -> exp.Identifier:
    """The name that ``token`` spells."""
    if token[0] == '"':
        return exp.Identifier(this=token[1:-1].replace('""', '"'), quoted=True)
    return exp.Identifier(this=token, quoted=False)
