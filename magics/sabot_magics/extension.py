"""Loading into a shell, and out of it again without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from sabot_magics.completion import SQLCompleter
from sabot_magics.magic import SabotMagic

_NAME = "sabot"
# An attribute of the shell, not of this module: a process may have several shells.
_ATTRIBUTE = "_sabot_magics"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What loading put into the shell, and what it found there."""

    magic: SabotMagic
    matcher: Callable[..., Any]
    found: dict[str, Any]


def load(shell: InteractiveShell) -> None:
    """Register the magics and the completer; loading twice changes nothing."""
    if getattr(shell, _ATTRIBUTE, None) is not None:
        return
    magics = shell.magics_manager.magics
    found = {kind: magics[kind].get(_NAME) for kind in ("line", "cell")}
    magic = SabotMagic(shell)
    shell.register_magics(magic)
    matcher = SQLCompleter(shell.user_ns, magic.catalog_query).matcher()
    shell.Completer.custom_matchers.insert(0, matcher)
    setattr(shell, _ATTRIBUTE, _Loaded(magic, matcher, found))


def unload(shell: InteractiveShell) -> None:
    """Undo :func:`load`."""
    loaded: _Loaded | None = getattr(shell, _ATTRIBUTE, None)
    if loaded is None:
        return
    loaded.magic.close()
    for kind, function in loaded.found.items():
        if function is None:
            shell.magics_manager.magics[kind].pop(_NAME, None)
        else:
            shell.magics_manager.magics[kind][_NAME] = function
    shell.magics_manager.registry.pop(SabotMagic.__name__, None)
    if loaded.matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(loaded.matcher)
    delattr(shell, _ATTRIBUTE)
