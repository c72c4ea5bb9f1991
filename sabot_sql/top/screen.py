"""A terminal that is drawn anew until somebody presses q."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from sabot_sql.top.lines import fit

Draw = Callable[[int], tuple[str, list[str]]]
"""The heading and the lines, for a terminal of that width."""

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_REVERSE, _PLAIN = "\x1b[7m", "\x1b[0m"
_TERMINATED = 128 + signal.SIGTERM


def watch(draw: Draw, interval_seconds: float) -> None:
    """Draw every ``interval_seconds`` until q or Ctrl-C; the terminal is then as it was."""
    with _screen():
        while True:
            _show(*draw(shutil.get_terminal_size().columns))
            if _quits(interval_seconds):
                return


def _show(heading: str, lines: list[str]) -> None:
    width, height = shutil.get_terminal_size()
    room = max(1, height - 1)
    shown = lines if len(lines) <= room else [*lines[: room - 1], f"… {len(lines) - room + 1} lines more"]
    head = fit(f" sabot-sql top · {heading} · q quits", width)
    frame = [f"{_REVERSE}{head.ljust(width)}{_PLAIN}", *(fit(line, width) + _TO_END_OF_LINE for line in shown)]
    sys.stdout.write(_HOME + "\r\n".join(frame) + _TO_END_OF_SCREEN)
    sys.stdout.flush()


def _quits(seconds: float) -> bool:
    """Whether q was pressed within that time; a terminal whose input has ended is waited for no more."""
    if not sys.stdin.isatty():
        select.select([], [], [], seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return False
    pressed = os.read(sys.stdin.fileno(), 64)
    return not pressed or b"q" in pressed.lower()


@contextmanager
def _screen() -> Iterator[None]:
    """The alternate screen, keys one by one; whatever ends this gives the terminal back."""

    def terminated(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, terminated)
    keyboard = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
    try:
        if keyboard is not None:
            tty.setcbreak(sys.stdin)
        sys.stdout.write(_ENTER)
        yield
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keyboard is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, keyboard)
        signal.signal(signal.SIGTERM, before)
