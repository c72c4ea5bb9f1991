"""How wide text is drawn: no font is at hand where the picture is made, and none is sent along.

The table holds, for each character, the wider of DejaVu Sans, which is what ``sans-serif`` is on Debian and the widest
of the usual ones, and Liberation Sans, which is as wide as Arial and Helvetica: what fits here fits there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_FIRST = 32
# Advance widths in thousandths of the font size, from the space on, as a browser measured them.
_REGULAR_TEXT = (
    "318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 636 "
    "337 337 838 838 838 556 1015 684 686 722 770 667 611 778 752 295 500 667 557 863 748 787 667 787 722 667 "
    "611 732 684 989 685 667 685 390 337 390 838 556 500 613 635 550 635 615 352 635 634 278 278 579 278 974 "
    "634 612 635 635 411 521 392 634 592 818 592 592 525 636 337 636 838 "
)
_BOLD_TEXT = (
    "348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696 696 "
    "400 400 838 838 838 611 1000 774 762 734 830 683 683 821 837 372 556 775 637 995 837 850 733 850 770 720 "
    "682 812 774 1103 771 724 725 457 365 457 838 556 500 675 716 593 716 678 435 716 712 343 343 665 343 "
    "1042 712 687 716 716 493 595 478 712 652 924 645 652 582 712 365 712 838 "
)
_REGULAR, _BOLD = (tuple(map(int, text.split())) for text in (_REGULAR_TEXT, _BOLD_TEXT))
_OTHERS = {"·": 380, "×": 838, "–": 556, "’": 380, "\N{NO-BREAK SPACE}": 348, "µ": 736}
_WIDEST = 1050
"""Of letters that are in no table."""

# A line breaks at a space, and within a long name after what joins its parts.
_PIECES = re.compile(r"[^ _.,/()\[\]-]*[_.,/()\[\]-]+|[^ _.,/()\[\]-]+")


def text_pixels(text: str, size_px: float, *, bold: bool = False) -> float:
    """The width of ``text`` at a font size, at most."""
    table = _BOLD if bold else _REGULAR
    return sum(_width(character, table) for character in text) * size_px / 1000


def _width(character: str, table: Sequence[int]) -> int:
    place = ord(character) - _FIRST
    if 0 <= place < len(table):
        return table[place]
    known = _OTHERS.get(character)
    if known is not None:
        return known
    if unicodedata.combining(character):
        return 0
    base = unicodedata.normalize("NFD", character)[0]
    return table[ord(base) - _FIRST] if _FIRST <= ord(base) < _FIRST + len(table) else _WIDEST


def clip_pixels(text: str, width_px: float, size_px: float, *, bold: bool = False) -> str:
    """``text``, or as much of its beginning as fits with an ellipsis."""
    if text_pixels(text, size_px, bold=bold) <= width_px:
        return text
    kept = text
    while kept and text_pixels(kept + "…", size_px, bold=bold) > width_px:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrap_pixels(text: str, width_px: float, size_px: float, most_lines: int, *, bold: bool = False) -> list[str]:
    """``text`` in lines that fit; only where ``most_lines`` are too few is its end cut off."""

    def fits(line: str) -> bool:
        return text_pixels(line, size_px, bold=bold) <= width_px

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if fits(longer):
            lines[-1] = longer
            continue
        if fits(word):
            lines.append(word)
            continue
        gap = " " if lines[-1] else ""
        for piece in _PIECES.findall(word):
            if fits(f"{lines[-1]}{gap}{piece}"):
                lines[-1] += gap + piece
            else:
                lines.append(piece)
            gap = ""
    lines = [line for line in lines if line]
    if len(lines) > most_lines:
        rest = " ".join(lines[most_lines - 1 :])
        lines = [*lines[: most_lines - 1], rest if not fits(rest) else f"{rest}…"]
    return [clip_pixels(line, width_px, size_px, bold=bold) for line in lines]
