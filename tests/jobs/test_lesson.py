"""docs/job-graphs.md runs as it stands, and prints what it says."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "job-graphs.md"


def test_the_lesson_runs_from_top_to_bottom() -> None:
    blocks = re.findall(r"```(python|text)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    variables: dict[str, Any] = {"__name__": "lesson"}
    printed = ""
    for kind, block in blocks:
        if kind == "text":
            assert "".join(block) in printed
            continue
        out = StringIO()
        with redirect_stdout(out):
            exec(compile(block, PAGE.name, "exec"), variables)  # noqa: S102  the page is ours
        printed = out.getvalue()
    assert printed.endswith("1440\n"), "every row was shuffled once"
