"""The first line of a ``%%sabot`` cell: ``[name <<] [options]``, and nothing of the SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from sabot_sql import ConfigError

ExplainForm = Literal["html", "text", "json", "svg"]
Progress = Literal["auto", "text", "off"]
Action = Literal["run", "help", "status", "cancel", "attach"]

HELP = """\
%%sabot [name <<] [options]      the body is SQL for DuckDB, untouched; name << may also stand last
%sabot <SQL>                     one line of SQL, no options
%sabot --help | --status | --cancel [id] | --attach ID

  name <<, -o, --out NAME        keep the Result under NAME; its rows are then not displayed
  --show                         display the rows all the same
  -q, --no-display               display nothing
  -n, --limit N                  number of rows displayed; the query is not changed
  --max-rows N                   fetch at most N rows, and say so when there were more
  -p, --params VARIABLE          a dict (for $name) or a list (for ? and $1) with the values to bind
  -p, --params NAME=EXPRESSION   bind $NAME to the value of a Python expression; may be repeated
  -c, --conn VARIABLE            the Session to use instead of the default one
  --explain [text|json|svg]      show the plan and its estimates, run nothing
  --profile                      show the plan with all its details
  --agents N|auto                number of agents
  --timeout SECONDS              give up after that time
  --progress auto|text|off       how a long query tells how far it is
  --detach                       hand the query to the durable host and go on; %sabot --attach ID has its rows

A $x that is not given is looked up in the notebook (numbers, text, dates, None). Values are always bound, never pasted.
DataFrames and Arrow tables of the notebook are tables. Defaults: %config SabotMagic
"""

_MAX_DIGITS = 18
_ARROW = "<<"
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What the first line asks for; None leaves it to ``%config SabotMagic``."""

    action: Action = "run"
    name: str | None = None
    display: bool | None = None
    limit: int | None = None
    max_rows: int | None = None
    params: tuple[str, ...] = ()
    connection: str | None = None
    explain: ExplainForm | None = None
    profile: bool = False
    agents: int | Literal["auto"] | None = None
    timeout_seconds: float | None = None
    progress: Progress | None = None
    query_id: str | None = None
    detach: bool = False


class _Words:
    """Reads the words of the line one after the other."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._words)

    def take(self) -> str:
        word = self._words[self._next]
        self._next += 1
        return word

    def peek(self) -> str | None:
        return self._words[self._next] if self else None

    def push(self, word: str) -> None:
        self._words.insert(self._next, word)

    def value(self, option: str, what: str) -> str:
        if not self or (self._words[self._next].startswith("-") and len(self._words[self._next]) > 1):
            raise ConfigError(f"{option} needs {what}")
        return _unquote(self.take())


def parse_options(line: str) -> CellOptions:
    """The options of a cell's first line.

    Raises:
        ConfigError: an unknown option, a wrong value, or something that is no option.
    """
    options = CellOptions()
    words = _Words(_with_target(split_words(line)))
    while words:
        word = words.take()
        head, equals, value = word.partition("=")
        if equals and head.startswith("--"):
            words.push(value)
            word = head
        elif word[:2] in _ATTACHED and len(word) > 2:
            words.push(word[2:].removeprefix("="))
            word = word[:2]
        read = _READERS.get(word)
        if read is None:
            raise _unknown(word)
        options = read(options, words, word)
    return options


def _with_target(words: list[str]) -> list[str]:
    """``words`` with ``name <<``, wherever it stands, as the option that it stands for."""
    spread: list[str] = []
    for word in words:
        glued = word.removesuffix(_ARROW)
        spread += [glued, _ARROW] if word.endswith(_ARROW) and glued.isidentifier() else [word]
    out: list[str] = []
    for word in spread:
        if word != _ARROW:
            out.append(word)
        elif not out or not out[-1].isidentifier():
            raise ConfigError(
                f"<< needs the name of a variable before it{f', not {out[-1]}' if out else ''}",
                hint="%%sabot name << --agents 4, or --out name",
            )
        else:
            out[-1] = f"--out={out[-1]}"
    return out


def split_words(line: str) -> list[str]:
    """``line`` cut at the spaces outside of quotes and brackets; quotes stay where they are.

    Raises:
        ConfigError: a quote or bracket is not closed.
    """
    words: list[str] = []
    word = ""
    closing: list[str] = []
    for character in line:
        if closing and closing[-1] in "\"'":
            if character == closing[-1]:
                closing.pop()
        elif character in "\"'":
            closing.append(character)
        elif character in _BRACKETS:
            closing.append(_BRACKETS[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character.isspace() and not closing:
            if word:
                words.append(word)
            word = ""
            continue
        word += character
    if closing:
        raise ConfigError(f"the first line lacks a closing {closing[-1]}")
    return [*words, word] if word else words


def _unquote(word: str) -> str:
    quoted = len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'"
    return word[1:-1] if quoted else word


def _unknown(word: str) -> ConfigError:
    if word.startswith("-"):
        near = get_close_matches(word, _READERS, n=2)
        return ConfigError(f"no option {word}", candidates=near, hint="%sabot --help lists all options")
    return ConfigError(
        f"{word!r} is no option",
        hint="the first line of %%sabot takes options only, the SQL begins on the second; %sabot takes one line of SQL",
    )


def _positive(option: str, text: str) -> int:
    # No number of rows or agents has more digits, and Python refuses to read thousands of them.
    if text.isdecimal() and len(text) <= _MAX_DIGITS and int(text) > 0:
        return int(text)
    raise ConfigError(f"{option} {text[:80]!r} must be a whole number of at least 1")


def _name(options: CellOptions, words: _Words, option: str) -> CellOptions:
    name = words.value(option, "the name of a variable")
    if not name.isidentifier():
        raise ConfigError(f"{option} {name!r} is not the name of a variable")
    if options.name not in (None, name):
        raise ConfigError(f"two names for one result: {options.name} and {name}")
    return replace(options, name=name)


def _connection(options: CellOptions, words: _Words, option: str) -> CellOptions:
    return replace(options, connection=words.value(option, "a variable that holds a Session"))


def _limit(options: CellOptions, words: _Words, option: str) -> CellOptions:
    return replace(options, limit=_positive(option, words.value(option, "a number of rows")))


def _max_rows(options: CellOptions, words: _Words, option: str) -> CellOptions:
    return replace(options, max_rows=_positive(option, words.value(option, "a number of rows")))


def _params(options: CellOptions, words: _Words, option: str) -> CellOptions:
    if not words:
        raise ConfigError(f"{option} needs a variable, or NAME=EXPRESSION")
    return replace(options, params=(*options.params, words.take()))


def _explain(options: CellOptions, words: _Words, option: str) -> CellOptions:
    match words.peek():
        case "text" | "json" | "svg" as form:
            words.take()
            return replace(options, explain=form)
        case None:
            pass
        case word if not word.startswith("-"):
            raise ConfigError(f"{option} {word!r} must be text, json or svg, or be left out")
    return replace(options, explain="html")


def _agents(options: CellOptions, words: _Words, option: str) -> CellOptions:
    text = words.value(option, "a number, or auto")
    return replace(options, agents="auto" if text == "auto" else _positive(option, text))


def _timeout(options: CellOptions, words: _Words, option: str) -> CellOptions:
    text = words.value(option, "a number of seconds")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{option} {text!r} must be a number of seconds above 0")
    return replace(options, timeout_seconds=seconds)


def _progress(options: CellOptions, words: _Words, option: str) -> CellOptions:
    match words.value(option, "auto, text or off"):
        case "auto" | "text" | "off" as mode:
            return replace(options, progress=mode)
        case other:
            raise ConfigError(f"{option} {other!r} must be auto, text or off")


def _cancel(options: CellOptions, words: _Words, option: str) -> CellOptions:
    query_id = words.value(option, "a query id") if words else None
    return replace(options, action="cancel", query_id=query_id)


def _attach(options: CellOptions, words: _Words, option: str) -> CellOptions:
    return replace(options, action="attach", query_id=words.value(option, "the id of a durable query"))


_READERS: dict[str, Callable[[CellOptions, _Words, str], CellOptions]] = {
    "-o": _name,
    "--out": _name,
    "--show": lambda options, _, __: replace(options, display=True),
    "-q": lambda options, _, __: replace(options, display=False),
    "--no-display": lambda options, _, __: replace(options, display=False),
    "-n": _limit,
    "--limit": _limit,
    "--max-rows": _max_rows,
    "-p": _params,
    "--params": _params,
    "-c": _connection,
    "--conn": _connection,
    "--explain": _explain,
    "--profile": lambda options, _, __: replace(options, profile=True),
    "--agents": _agents,
    "--timeout": _timeout,
    "--progress": _progress,
    "--help": lambda options, _, __: replace(options, action="help"),
    "--status": lambda options, _, __: replace(options, action="status"),
    "--cancel": _cancel,
    "--attach": _attach,
    "--detach": lambda options, _, __: replace(options, detach=True),
}

_ATTACHED = ("-n", "-o", "-c", "-p")
"""Options of one letter whose value may follow without a space: ``-n5``."""

OPTION_NAMES = tuple(name for name in _READERS if name.startswith("--"))
"""All options in their long form, for completion."""
