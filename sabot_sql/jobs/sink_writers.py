"""Hands the rows of sinks over: nothing appears before all of it has succeeded, and what fails leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sabot_planner.sql.text import quote
from sabot_sql.call.staged_files import is_replaceable, remove, reveal, staged
from sabot_sql.coordinator.exchange_rules import RESULT_EDGE
from sabot_sql.errors import InternalError, JobError, OperatorError, QueryError, SourceError
from sabot_sql.jobs.compiler import SINK_EDGE, Sink
from sabot_sql.jobs.sink_targets import Callback, ParquetFile, ParquetFiles, SessionTable

if TYPE_CHECKING:
    from sabot_sql.result import Result

RunSql = Callable[[str, Mapping[str, object]], "Result"]
"""Runs a statement on the session, with objects of the program by name."""

ROWS = "sabot_rows"


def check_targets(sinks: Sequence[Sink], run: RunSql) -> None:
    """Look whether what sinks are to write can be written, as far as that is known before anything runs.

    Raises:
        JobError: a table is there that is to be made, or is not there that is to be added to.
        SourceError: the directory of a file is not there.
    """
    for sink in sinks:
        match sink.target:
            case SessionTable(name, append):
                there = _table_columns(name, run)
                if append and there is None:
                    raise _refused(sink, f"there is no table {name!r} to append to")
                if not append and there is not None:
                    raise _refused(
                        sink, f"table {name!r} is there already; SessionTable({name!r}, append=True) adds to it"
                    )
            case ParquetFile(path) | ParquetFiles(path):
                _check_place(path)
                if path.is_dir() and not is_replaceable(path):
                    reason = f"{path} is a directory with files of others"
                    raise SourceError(reason, code="FILE_NOT_WRITTEN", file=str(path), hint="give another path")
            case _:
                pass
    _try_tables(sinks, run)


def _try_tables(sinks: Sequence[Sink], run: RunSql) -> None:
    """Write no rows to each table, and take that back: what DuckDB has against it, it says before anything runs."""
    tables = [(sink, sink.target) for sink in sinks if isinstance(sink.target, SessionTable)]
    with _transaction(run, wanted=bool(tables), kept=False):
        for sink, target in tables:
            none = ", ".join(f"CAST(NULL AS {c.type}) AS {quote(c.name)}" for c in sink.columns)
            try:
                run(f"{_begin_writing(target)} SELECT {none} LIMIT 0", {})
            except QueryError as error:
                error.message = f"operator {sink.operator_id!r} cannot write table {target.name}: {error.message}"
                raise


def _begin_writing(target: SessionTable) -> str:
    return f"INSERT INTO {target.name} BY NAME" if target.append else f"CREATE TABLE {target.name} AS"


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise SourceError(f"there is no directory {path.parent}", code="FILE_NOT_WRITTEN", file=str(path))


def write_sinks(
    sinks: Sequence[Sink], rows: Result, stats: Mapping[str, Any], run: RunSql
) -> list[tuple[str, str, int]]:
    """Write the rows of every sink that has a target; gives operator, target and rows of each.

    Files and tables come first, all of them or none; functions are called when these are there. ``stats`` tell which
    task's a row is.
    """
    parts = {sink.operator_id: _part(sink, place, len(sinks), rows, run) for place, sink in enumerate(sinks)}
    written = [(sink.operator_id, shown(sink), len(parts[sink.operator_id])) for sink in sinks if sink.target]
    files: list[_File] = []
    for place, sink in enumerate(sinks):
        if isinstance(sink.target, ParquetFile):
            files.append(_File(sink.target.path, parts[sink.operator_id]))
        elif isinstance(sink.target, ParquetFiles):
            edge = RESULT_EDGE if len(sinks) == 1 else f"{SINK_EDGE}{place}"
            tasks = stats["edges"][edge]["tasks"].values()
            files.append(_File(sink.target.path, parts[sink.operator_id], tuple(task["rows"] for task in tasks)))
    tables = [sink for sink in sinks if isinstance(sink.target, SessionTable)]
    with _complete_files(files) as appear, _transaction(run, wanted=bool(tables)):
        for sink in tables:
            assert isinstance(sink.target, SessionTable)
            items = ", ".join(f"CAST({quote(c.name)} AS {c.type}) AS {quote(c.name)}" for c in sink.columns)
            run(f"{_begin_writing(sink.target)} SELECT {items} FROM {ROWS}", {ROWS: parts[sink.operator_id]})
        appear()
    for sink in sinks:
        if isinstance(sink.target, Callback):
            _call(sink, sink.target, parts[sink.operator_id])
    return written


def result_sink(sinks: Sequence[Sink]) -> int | None:
    """The place of the sink whose rows are the result of the job; None where each has a target."""
    return next((place for place, sink in enumerate(sinks) if sink.target is None), None)


def part_of(sinks: Sequence[Sink], place: int, rows: Result, run: RunSql) -> Result:
    """The rows of the sink at ``place``."""
    return _part(sinks[place], place, len(sinks), rows, run)


def _part(sink: Sink, place: int, count: int, rows: Result, run: RunSql) -> Result:
    if count == 1:
        return rows
    # What Arrow has no type for comes as another one: HUGEINT as DECIMAL, which would be what a file says.
    items = ", ".join(
        f"CAST(struct_extract(s{place}, {_text(c.name)}) AS {c.type}) AS {quote(c.name)}" for c in sink.columns
    )
    return run(f"SELECT {items} FROM {ROWS} WHERE sink = {place}", {ROWS: rows})


def _call(sink: Sink, target: Callback, rows: Result) -> None:
    for number, batch in enumerate(rows.to_arrow_reader()):
        try:
            target.function(batch)
        except Exception as error:
            reason = f"operator {sink.operator_id!r}: its function raised {type(error).__name__}: {error}"
            raise OperatorError(
                f"{reason}, at batch {number} of its rows", operator=sink.operator_id, batch=number
            ) from error


@dataclass(frozen=True, slots=True)
class _File:
    """Rows to be written to ``path``: to one file, or to a directory of files with so many rows each."""

    path: Path
    rows: Result
    by_task: tuple[int, ...] | None = None

    def write(self, made: Path) -> None:
        if self.by_task is None:
            self.rows.to_parquet(made)
            return
        if sum(self.by_task) != len(self.rows):
            raise InternalError(f"{len(self.rows)} rows for {self.path}, and tasks gave {sum(self.by_task)}")
        made.mkdir()
        ends = accumulate(self.by_task)
        for task, (end, count) in enumerate(zip(ends, self.by_task, strict=True)):
            self.rows.write_part(made / f"part-{task:05d}.parquet", end - count, count)


@contextmanager
def _complete_files(files: Sequence[_File]) -> Iterator[Callable[[], None]]:
    """Write files under names of their own; what this gives lets all of them appear."""
    hidden = [(staged(file.path), file) for file in files]

    def appear() -> None:
        for made, file in hidden:
            try:
                reveal(made, file.path)
            except OSError as error:
                reason = f"cannot write {file.path}: {error.strerror}"
                raise SourceError(reason, code="FILE_NOT_WRITTEN", file=str(file.path)) from None

    try:
        for made, file in hidden:
            file.write(made)
        yield appear
    finally:
        for made, _ in hidden:
            remove(made)


@contextmanager
def _transaction(run: RunSql, *, wanted: bool, kept: bool = True) -> Iterator[None]:
    if not wanted:
        yield
        return
    run("BEGIN TRANSACTION", {})
    try:
        yield
    except BaseException:
        run("ROLLBACK", {})
        raise
    run("COMMIT" if kept else "ROLLBACK", {})


def _table_columns(name: str, run: RunSql) -> Any:
    try:
        return run(f"SELECT * FROM {name} LIMIT 0", {})
    except QueryError:
        return None


def shown(sink: Sink) -> str:
    """What a sink writes, for people."""
    match sink.target:
        case SessionTable(name):
            return f"table {name}"
        case ParquetFile(path) | ParquetFiles(path):
            return str(path)
        case Callback(function):
            return f"function {getattr(function, '__qualname__', type(function).__name__)}"
        case _:
            return ""


def _refused(sink: Sink, reason: str) -> JobError:
    return JobError(f"operator {sink.operator_id!r}: {reason}", code="SINK", operator=sink.operator_id)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
