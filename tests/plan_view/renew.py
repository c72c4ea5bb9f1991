"""The stored views: ``python -m tests.plan_view.renew`` writes them anew after a change that is meant."""

from __future__ import annotations

from pathlib import Path

from sabot_sql.plan_view import Plan
from tests.plan_view import plans

FOLDER = Path(__file__).resolve().parent / "snapshots"
_NAMES = [
    f"{name}.{form}" for name in ("q3", "planned", "single", "shared_stage") for form in ("svg", "html", "txt", "dot")
]


def snapshots() -> list[Path]:
    """All stored views."""
    return [FOLDER / name for name in _NAMES]


def render(name: str) -> str:
    """The view that ``name`` (document, dot, form) stands for, as text that ends in a newline."""
    document, _, form = name.partition(".")
    plan = Plan(getattr(plans, document)())
    text = {"svg": plan.svg, "html": plan.html, "txt": plan.text, "dot": plan.dot}[form]()
    # One tag a line: a change then shows as the lines that it touches.
    return (text.replace("><", ">\n<") if form in ("svg", "html") else text).rstrip("\n") + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path in snapshots():
        path.write_text(render(path.name))
