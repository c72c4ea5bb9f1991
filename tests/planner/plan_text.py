"""A plan as text for people and for diffs: its stages with their SQL, and its edges."""

from __future__ import annotations

import re
from pathlib import Path

from sabot_planner import QueryPlan
from sabot_planner.job.operators import ScanInput

_FOLDER = Path(__file__).resolve().parent / "plan_snapshots"
_COLUMN = re.compile(r"\b(?![es]\d+\b)[a-z]\d+[a-z_\d]*\b")
_QUOTED = re.compile(r"('(?:[^']|'')*')")
_CLAUSE = re.compile(
    r" (?=(?:WHERE|GROUP BY|HAVING|ORDER BY|WINDOW|UNION|EXCEPT|INTERSECT) )|(?<!DISTINCT) (?=FROM )"
    r"| (?=(?:ASOF )?(?:INNER|LEFT|RIGHT|FULL|CROSS|SEMI|ANTI|ASOF|POSITIONAL|MARK|SINGLE) (?:OUTER )?JOIN )"
    r"| (?=JOIN BY )"
)


def snapshot(suite: str, name: str) -> Path:
    """The file in which the plan of a suite's query is kept."""
    folder = _FOLDER / suite
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.txt"


def plan_text(plan: QueryPlan) -> str:
    """The plan; columns and relations are numbered in the order in which they appear, whatever they are called."""
    lines = [f"{plan.mode}: {plan.reason}", f"output {', '.join(f'{c.name} {c.type}' for c in plan.output)}"]
    graph = plan.operator_graph
    for node in graph.operators:
        after = f" after {', '.join(node.start_after)}" if node.start_after else ""
        lines += ["", f"{node.operator_id} ×{node.parallelism} {node.operator_type}{after}: {node.label}"]
        lines += [
            f"    {scan.name}({_read(scan, node.sql)}) = {scan.source_id}{'' if scan.sliced else ', whole'}"
            f"{f', cut by {scan.split.column}' if scan.split else ''}"
            for scan in node.scans
        ]
        lines += _clauses(node.sql)
    lines.append("")
    for edge in graph.edges:
        written = f", written as {edge.written_as}" if edge.written_as else ""
        rereads = f", reads {edge.rereads}" if edge.rereads else ""
        split = ", may be split" if edge.splittable else ""
        lines.append(
            f"{edge.edge_id}: {edge.source} → {edge.target} {edge.edge_type.upper()}({', '.join(edge.keys)})"
            f" ×{edge.partitions}{written}{rereads}{split} ({', '.join(edge.columns)})"
            f" ~{edge.rows_estimated} rows: {edge.reason}"
        )
    return renumbered("\n".join(lines)) + "\n"


def _read(scan: ScanInput, sql: str) -> str:
    """The columns of a source that a fragment reads, by position."""
    read = set(_COLUMN.findall(sql))
    return ", ".join(f"{i}: {name}" for i, name in enumerate(scan.columns) if name in read)


def _clauses(sql: str) -> list[str]:
    """One line for each clause of a SELECT, further in for each bracket that is open."""
    lines = [""]
    for piece in _QUOTED.split(sql):
        first, *more = [piece] if piece.startswith("'") else _CLAUSE.sub("\n", piece).split("\n")
        lines[-1] += first
        lines += more
    depth, indented = 0, []
    for line in lines:
        indented.append("    " + "  " * depth + line)
        text = _QUOTED.sub("", line)
        depth += text.count("(") - text.count(")")
    return indented


def renumbered(text: str) -> str:
    """The text with its columns numbered in the order in which they appear."""
    numbers: dict[str, str] = {}
    lines = []
    for line in text.split("\n"):  # a label may be cut off within quotes
        pieces = _QUOTED.split(line)
        for i in range(0, len(pieces), 2):
            pieces[i] = _COLUMN.sub(lambda match: numbers.setdefault(match[0], f"c{len(numbers)}"), pieces[i])
        lines.append("".join(pieces))
    return "\n".join(lines)
