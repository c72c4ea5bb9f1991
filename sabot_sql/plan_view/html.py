"""The plan as static HTML: a picture on top of a table tree that is readable without it.

An untrusted notebook drops the style and the tags of the SVG, but neither the words of the SVG nor ``hidden``: so the
picture is hidden, and it is the style that shows it. What is then left is a table with meters and details, in the
order of the tree. Everything is escaped, nothing is loaded from anywhere, no script is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from sabot_sql.plan_view.fold import folded
from sabot_sql.plan_view.model import RESULT, EdgeView, PlanModel, StageView
from sabot_sql.plan_view.operators import operator_lines
from sabot_sql.plan_view.plain_text import NO_MATH, capped, faint, printable
from sabot_sql.plan_view.svg import CSS, clean, svg
from sabot_sql.plan_view.timeline import CSS as TIMELINE_CSS
from sabot_sql.plan_view.timeline import timeline
from sabot_sql.plan_view.tree import TreeRow, tree_rows
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text, plural
from sabot_sql.plan_view.words import (
    clip,
    columns_text,
    decision_text,
    edge_head,
    edge_name,
    findings,
    natural,
    reason_text,
    rows_text,
    status_text,
    tasks_text,
    times_text,
)

MAX_BYTES = 60_000
_COLUMNS_CHARACTERS = 400
_TREE_BYTES = 20_000
# Reached by the keyboard, since it may scroll; a group and no landmark, since a page has many of them.
_GROUP = ' tabindex="0" role="group"'
# Notebooks align cells to the right. Unlike the style sheet, this survives where the notebook is not trusted.
_LEFT = ' style="text-align:left"'

_STYLE = (
    "<style>"
    ".sabot-plan{font-size:var(--jp-ui-font-size1,13px);line-height:1.45;margin:6px 0}"
    ".sabot-plan .pic[hidden]{display:block!important;overflow-x:auto;margin:8px 0}"
    ".sabot-plan .pic svg{max-width:100%;height:auto}"
    ".sabot-plan .mode{font-weight:600;border:1px solid currentColor;border-radius:9px;padding:0 8px;margin-right:8px}"
    ".sabot-plan p{margin:3px 0}"
    f".sabot-plan .why{{{faint(82)}}}"
    ".sabot-plan .warn{color:inherit;border-left:3px solid #D55E00;padding-left:8px}"
    ".sabot-plan .tree{white-space:pre;line-height:1.25;max-width:none}"
    ".sabot-plan pre{font-family:var(--jp-code-font-family,monospace)}"
    f".sabot-plan .sum{{{faint(82)};"
    "font-size:.92em;font-variant-numeric:tabular-nums}"
    ".sabot-plan summary{cursor:pointer}"
    ".sabot-plan .scroll{overflow-x:auto}"
    ".sabot-plan table{border-collapse:collapse;border:0;margin:4px 0;font-variant-numeric:tabular-nums}"
    ".sabot-plan th,.sabot-plan td{vertical-align:top;padding:2px 10px!important;"
    "border:0!important;white-space:nowrap}"
    ".sabot-plan .w{white-space:normal!important;min-width:15em;max-width:34em}"
    ".sabot-plan th{font-weight:600;border-bottom:1px solid currentColor!important}"
    ".sabot-plan tr{background:transparent!important}"
    ".sabot-plan .all>td{white-space:normal;padding:0 10px 3px 26px!important}"
    f".sabot-plan .all summary{{{faint(80)};font-size:.88em;line-height:1.2}}"
    ".sabot-plan pre{margin:2px 0 6px;white-space:pre-wrap;overflow-wrap:break-word;font-size:.92em;"
    "max-width:110ch;overflow-x:auto;"
    "background:rgba(128,128,128,.1);padding:6px 8px;border-radius:4px}"
    ".sabot-plan meter{width:90px;height:11px;vertical-align:-1px}"
    ".sabot-plan .t{display:inline-block;width:16px;margin-right:6px;border-top:4px solid #8a8a8a}"
    ".sabot-plan .t{vertical-align:middle}"
    ".sabot-plan .t-hash{border-color:#0072B2}"
    ".sabot-plan .t-broadcast{border-top:6px double #E69F00}"
    ".sabot-plan .t-range{border-top:4px dashed #009E73}"
    ".sabot-plan .t-rebalance{border-top:4px dotted #CC79A7}"
    ".sabot-plan .t-forward{border-top-width:1px}" + CSS + TIMELINE_CSS + "</style>"
)


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much is told; less and less until the whole fits the budget."""

    sql_characters: int
    tasks: bool
    partitions: bool
    reasons: bool = True
    picture: bool = True

    @property
    def tooltips(self) -> bool:
        return self.partitions


_DETAILS = (
    _Detail(4000, True, True),
    _Detail(1500, True, True),
    _Detail(600, False, True),
    _Detail(160, False, False),
    _Detail(0, False, False, reasons=False),
    _Detail(0, False, False, reasons=False, picture=False),
)


def html(plan: PlanModel, *, opened: bool = False) -> str:
    """The plan as one piece of HTML of at most ``MAX_BYTES``; ``opened`` shows the table of stages from the start.

    A plan too large for the budget loses detail that the JSON still has: tasks first, then SQL, the picture last.
    """
    pictures: dict[bool, str] = {}
    for detail in _DETAILS:
        if detail.picture and plan.mode != "single" and detail.tooltips not in pictures:
            pictures[detail.tooltips] = svg(plan, standalone=False, tooltips=detail.tooltips)
        text = _html(plan, detail, pictures.get(detail.tooltips, "") if detail.picture else "", opened)
        if len(text.encode(errors="replace")) <= MAX_BYTES:
            return text
    return (
        f'<div class="sabot-plan {NO_MATH}">{_status(plan)}<p>The plan of {plural(len(plan.stages), "stage")} is too '
        "large to be shown here; <code>.plan.json()</code> and <code>.plan.text()</code> have it.</p></div>"
    )


def _html(plan: PlanModel, detail: _Detail, picture: str, opened: bool) -> str:
    parts = [f'<div class="sabot-plan {NO_MATH}">{_STYLE}', _status(plan)]
    parts += [f'<p class="warn">{escape(clip(text, 260))}</p>' for text in findings(plan)]
    if plan.mode == "single":
        parts += [_statement(stage, detail) for stage in plan.stages if opened]
    elif plan.stages:
        if picture:
            parts.append(f'<div class="pic" hidden="hidden"{_GROUP} aria-label="Picture of the plan">{picture}</div>')
        more = "stage as a table" if len(plan.stages) == 1 else "stages and their edges as a table"
        summary = f"{len(plan.stages):,} {more}, with SQL and reasons"
        parts.append(f"<details{' open' if opened else ''}><summary>{summary}</summary>")
        parts.append(f'<div class="scroll"{_GROUP} aria-label="Stages and edges">{_table(folded(plan), detail)}</div>')
        times = clean(timeline(plan)) if detail.tasks else ""
        if times:
            parts.append(f'<div class="pic" hidden="hidden"{_GROUP} aria-label="Tasks over time">{times}</div>')
        parts.append("</details>")
    return "".join([*parts, "</div>"])


def _statement(stage: StageView, detail: _Detail) -> str:
    """A statement of one agent: DuckDB's operators where they are known, and the text."""
    tree = "\n".join(printable(line) for line in operator_lines(stage.operators))
    tree = capped(tree, _TREE_BYTES)
    parts = [f'<pre class="tree"{_GROUP} aria-label="Operators of DuckDB">{escape(tree)}</pre>'] if tree else []
    if detail.sql_characters and stage.sql:
        parts.append(f"<pre>{escape(_cut(stage.sql, detail.sql_characters))}</pre>")
    return clean("".join(parts))


def _status(plan: PlanModel) -> str:
    why = reason_text(plan)
    reason = f'<p class="why">{escape(clip(why, 400))}</p>' if why else ""
    times = times_text(plan)
    sums = f'<p class="sum">{escape(times)}</p>' if times else ""
    mode = "" if plan.mode == "single" else f'<b class="mode">{escape(clip(plan.mode, 40))}</b> '
    return f"<p>{mode}{escape(clip(status_text(plan), 300))}</p>{sums}{reason}"


def _table(plan: PlanModel, detail: _Detail) -> str:
    longest = max((stage.elapsed_ms or 0.0 for stage in plan.stages), default=0.0)
    body = "".join(_row(row, plan, longest, detail) for row in tree_rows(plan))
    head = "".join(
        f'<th scope="col"{cls}>{name}</th>'
        for name, cls in (
            ("Stage", _LEFT),
            ("Sends its rows by", _LEFT),
            ("~estimated → rows", ' style="text-align:right"'),
            ("Bytes", ' style="text-align:right"'),
            ("Tasks", ' style="text-align:right"'),
            ("Time", _LEFT),
        )
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: TreeRow, plan: PlanModel, longest_ms: float, detail: _Detail) -> str:
    stage, edge = row.stage, row.edge
    branch = "\N{NO-BREAK SPACE}" * 3 * (row.depth - 1) + ("└ " if row.depth else "")
    name = f"{escape(branch)}<b>{escape(clip(stage.name, 40))}</b> {escape(clip(stage.title, 200))}"
    if row.repeated:
        return (
            f"<tr><td{_LEFT}>{name} (above)</td><td{_LEFT}>{_edge(edge)}</td>"
            f'<td style="text-align:right">{_rows(edge, stage)}</td></tr>'
        )
    cells = [
        f'<td class="w"{_LEFT}>{name}</td><td class="w"{_LEFT}>{_edge(edge)}</td>',
        f'<td style="text-align:right">{_rows(edge, stage)}</td>',
        f'<td style="text-align:right">{bytes_text(edge.bytes) if edge and edge.bytes is not None else ""}</td>',
        f'<td style="text-align:right">{"" if stage.runs_in else tasks_text(stage).split(" ")[0]}</td>',
        f"<td{_LEFT}>{_time(stage, plan, longest_ms)}</td>",
    ]
    more = _more(plan, row, detail)
    return f"<tr>{''.join(cells)}</tr>" + (f'<tr class="all"><td colspan="6"{_LEFT}>{more}</td></tr>' if more else "")


def _rows(edge: EdgeView | None, stage: StageView) -> str:
    rows = edge.rows if edge and edge.rows is not None else stage.rows
    text = rows_text(rows, edge.rows_estimated if edge else None)
    return text.removesuffix(" rows").removesuffix(" row")


def _edge(edge: EdgeView | None) -> str:
    if edge is None:
        return ""
    kind = edge.shown_type.lower() if edge.shown_type in ("HASH", "BROADCAST", "RANGE", "REBALANCE") else "forward"
    to = " → result" if edge.target == RESULT else ""
    skew = f"<br><b>▲ {escape(clip(edge.skew.text(), 120))}</b>" if edge.skew else ""
    return f'<span class="t t-{kind}"></span>{escape(clip(edge_head(edge), 120))}{to}{skew}'


def _time(stage: StageView, plan: PlanModel, longest_ms: float) -> str:
    state = escape(clip(plan.stage_state(stage), 20))
    if stage.runs_in:
        return f"in {escape(clip(stage.runs_in, 20))}"
    if stage.elapsed_ms is None:
        return state
    share = stage.elapsed_ms / longest_ms if longest_ms else 0.0
    text = duration_text(stage.elapsed_ms)
    beside = "" if state == "finished" else f" {state}"
    return f'<meter value="{share:.2f}" aria-label="share of the longest stage">{text}</meter> {text}{beside}'


def _more(plan: PlanModel, row: TreeRow, detail: _Detail) -> str:
    """What a reader may open below a stage."""
    parts = []
    edge = row.edge
    for out in (edge,) if edge else ():
        why = decision_text(out)
        if why and detail.reasons:
            parts.append(f"<p>{escape(edge_name(out))}: {escape(clip(why, 400))}</p>")
        if detail.partitions and len(out.partition_bytes) > 1:
            parts.append(_partitions(out))
    columns = columns_text(row.stage, _COLUMNS_CHARACTERS) if detail.reasons else ""
    if columns:
        parts.append(f"<p>{escape(row.stage.name)} {escape(columns)}</p>")
    if detail.tasks and len(row.stage.tasks) > 1:
        parts.append(_tasks(row.stage))
    if detail.sql_characters and row.stage.sql:
        parts.append(f"<pre>{escape(_cut(row.stage.sql, detail.sql_characters))}</pre>")
    if not parts:
        return ""
    has = ["why" if edge and decision_text(edge) and detail.reasons else "", "columns" if columns else ""]
    has += ["tasks" if detail.tasks and len(row.stage.tasks) > 1 else "", "SQL" if detail.sql_characters else ""]
    label = ", ".join(word for word in has if word) or "more"
    return f"<details><summary>{label}</summary>{''.join(parts)}</details>"


def _partitions(edge: EdgeView) -> str:
    ordered = sorted(edge.partition_bytes)
    middle = ordered[len(ordered) // 2]
    text = f"Partitions: min {bytes_text(ordered[0])}, median {bytes_text(middle)}, max {bytes_text(ordered[-1])}"
    if edge.distinct_keys is not None:
        text += f". Distinct keys: {count_text(edge.distinct_keys)}"
    if edge.heavy:
        hot = "; ".join(f"{clip(key, 40)}: {count_text(rows)} rows" for key, rows in edge.heavy[:3])
        text += f". Heaviest keys: {hot}"
    return f"<p>{escape(text)}</p>"


def _tasks(stage: StageView) -> str:
    """One line per agent: how many tasks, how long they took, what they wrote."""
    agents: dict[str, list[float]] = {}
    rows: dict[str, int] = {}
    spilled: dict[str, int] = {}
    for task in stage.tasks:
        agents.setdefault(task.agent, []).append(task.elapsed_ms or 0.0)
        rows[task.agent] = rows.get(task.agent, 0) + (task.rows or 0)
        spilled[task.agent] = spilled.get(task.agent, 0) + task.spilled_bytes
    lines = []
    for agent in sorted(agents, key=natural):
        times = agents[agent]
        spill = f", {bytes_text(spilled[agent])} spilled" if spilled[agent] else ""
        lines.append(
            f"<tr><td{_LEFT}>{escape(clip(agent, 40))}</td><td{_LEFT}>{plural(len(times), 'task')}, "
            f"{duration_text(max(times))} at most, {count_text(rows[agent])} rows{spill}</td></tr>"
        )
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def _cut(sql: str, limit: int) -> str:
    if len(sql) <= limit:
        return sql
    return f"{sql[:limit]}… ({len(sql):,} characters in all; .plan.json() has them)"
