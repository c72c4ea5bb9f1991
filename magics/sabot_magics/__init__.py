"""The notebook face of sabot_sql: ``%load_ext sabot_sql`` gives ``%%sabot`` and ``%sabot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and their completion with ``shell``."""
    from sabot_magics.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Put back what loading found."""
    from sabot_magics.extension import unload

    unload(shell)
