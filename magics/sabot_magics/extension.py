"""Loading into a shell, and out of it again without a trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from IPython.core.interactiveshell import InteractiveShell

from sabot_magics.completion import SQLCompleter
from sabot_magics.magic import SabotMagic
from sabot_magics.short_errors import ShortErrors
from sabot_sql import Result

_NAME = "sabot"
_SECTION = SabotMagic.__name__
# An attribute of the shell, not of this module: a process may have several shells.
_ATTRIBUTE = "_sabot_magics"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What loading put into the shell, and what it found there."""

    magic: SabotMagic
    matcher: Callable[..., Any]
    errors: ShortErrors
    found: dict[str, Any]
    config: Any


def load(shell: InteractiveShell) -> None:
    """Register the magics and the completer; loading twice changes nothing."""
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    magics = shell.magics_manager.magics
    found = {kind: magics[kind].get(_NAME) for kind in ("line", "cell")}
    magic = SabotMagic(shell)
    register = cast(Callable[..., None], shell.register_magic_function)
    register(magic.line, "line", _NAME)
    register(magic.cell, "cell", _NAME)
    _configurables(shell).append(magic)
    matcher = SQLCompleter(shell.user_ns, magic.catalog_query, lambda: magic.queries_run).matcher()
    shell.Completer.custom_matchers.insert(0, matcher)
    ipython_display, bundle = _formatters(shell)
    ipython_display.for_type(Result, magic.display_shown)
    bundle.for_type(Result, magic.bundle)
    errors = ShortErrors.install(shell, lambda: bool(magic.short_errors))
    setattr(shell, _ATTRIBUTE, _Loaded(magic, matcher, errors, found, copy.deepcopy(shell.config.get(_SECTION))))


def unload(shell: InteractiveShell) -> None:
    """Undo :func:`load`; the default session stays, for it is Python's as well."""
    loaded: _Loaded | None = getattr(shell, _ATTRIBUTE, None)
    if loaded is None:
        return
    for kind, function in loaded.found.items():
        if function is None:
            shell.magics_manager.magics[kind].pop(_NAME, None)
        else:
            shell.magics_manager.magics[kind][_NAME] = function
    if loaded.magic in _configurables(shell):
        _configurables(shell).remove(loaded.magic)
    for formatter in _formatters(shell):
        formatter.pop(Result, None)
    loaded.errors.remove()
    if loaded.matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(loaded.matcher)
    # %config writes into the shell's configuration too, from where the next load would read it.
    shell.config.pop(_SECTION, None)
    if loaded.config is not None:
        shell.config[_SECTION] = loaded.config
    delattr(shell, _ATTRIBUTE)


def _configurables(shell: InteractiveShell) -> list[Any]:
    """What %config may set."""
    return cast(list[Any], shell.configurables)


def _formatters(shell: InteractiveShell) -> tuple[Any, Any]:
    """What IPython asks how a value is displayed: whoever displays it by itself, then whoever gives a bundle."""
    formatter = cast(Any, shell.display_formatter)
    return formatter.ipython_display_formatter, formatter.mimebundle_formatter
