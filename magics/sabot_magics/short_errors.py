"""Errors of sabot_sql in a shell: what was wrong and where. A Python traceback would tell an analyst nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, cast

from IPython.core.interactiveshell import InteractiveShell

from sabot_sql import SabotSQLError

_Handler = Callable[..., list[str] | None]


@dataclass(frozen=True, slots=True)
class ShortErrors:
    """What a shell showed errors with before, which :meth:`remove` puts back."""

    shell: InteractiveShell
    found: tuple[tuple[type[BaseException], ...], _Handler]
    ours: _Handler

    @classmethod
    def install(cls, shell: InteractiveShell, wanted: Callable[[], bool]) -> ShortErrors:
        """Show errors of sabot_sql in short from now on, as long as ``wanted`` says so; others as before."""
        kinds, before = cast(Any, shell).custom_exceptions, cast(_Handler, shell.CustomTB)

        def show(
            _: InteractiveShell,
            kind: type[BaseException],
            error: BaseException,
            traceback: TracebackType | None,
            tb_offset: int | None = None,
        ) -> list[str] | None:
            if not isinstance(error, SabotSQLError):
                return before(kind, error, traceback, tb_offset=tb_offset)
            lines = f"SabotSQLError {error}".splitlines()
            if wanted():
                # IPython asks an exception for this before it makes a traceback of its own.
                cast(Any, error)._render_traceback_ = lambda: lines
            shell.showtraceback((kind, error, traceback), tb_offset=tb_offset)
            return lines

        cast(Any, shell).set_custom_exc((*kinds, SabotSQLError), show)
        return cls(shell, (kinds, before), cast(_Handler, shell.CustomTB))

    def remove(self) -> None:
        """Put back what was there, unless somebody else has taken its place since."""
        shell = cast(Any, self.shell)
        if shell.CustomTB == self.ours:
            shell.custom_exceptions, shell.CustomTB = self.found
