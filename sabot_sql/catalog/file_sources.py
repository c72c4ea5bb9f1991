"""Files as sources: Parquet cut at row groups, CSV and JSON at files.

A slice reads the *same* relation as the whole, narrowed by file name and row number, so that column types, hive
partitions, sniffed dialects and the order of files are the whole's by construction. Narrowing by file name takes files
off DuckDB's list and with that renumbers ``file_index``, which is put right again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sabot_planner import Column, RangeSplit, SourceInfo, Zone
from sabot_sql.catalog.connection import quote_text
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.file_places import GLOB, PlacedCall, ShownNames, is_remote
from sabot_sql.catalog.parquet_footers import FooterFacts, footer, local_path
from sabot_sql.catalog.relation_text import FunctionCall, text_literal
from sabot_sql.catalog.sources import WHOLE, SliceBinding, nothing, select
from sabot_sql.protocol.task_spec import Span

if TYPE_CHECKING:
    import duckdb

PARQUET_FUNCTIONS = frozenset({"parquet_scan", "read_parquet"})
FILE_FUNCTIONS = PARQUET_FUNCTIONS | frozenset(
    {"read_csv", "read_csv_auto", "read_json", "read_json_auto", "read_ndjson", "read_ndjson_auto"}
    | {"read_json_objects", "read_json_objects_auto", "read_ndjson_objects"}
)

_FILE_COLUMN = "__sabot_file"
_MAX_FOOTERS = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [``first_row``, ``last_row``) of one file; whole files have no end."""

    file: int
    first_row: int = 0
    last_row: int | None = None


@dataclass(frozen=True, slots=True)
class FileSet:
    """What a relation reads. ``files`` is None where that is not known: it is then read as one piece."""

    files: tuple[str, ...] | None
    facts: tuple[FooterFacts, ...] | None
    rows: int | None
    size_bytes: int | None
    readable_paths: tuple[str, ...]


def file_set(placed: PlacedCall, main: duckdb.DuckDBPyConnection, search_path: str = "") -> FileSet:
    """The files of a call in the order in which DuckDB reads them; ``search_path`` is ``file_search_path``."""
    patterns = placed.patterns
    is_parquet = placed.call.name in PARQUET_FUNCTIONS
    files: list[str] | None = []
    for pattern in patterns:
        listed = _listed(pattern, main, is_parquet=is_parquet)
        files = None if files is None or listed is None else files + listed
    paths = tuple(path for pattern in patterns for path in _readable_paths(pattern, search_path))
    if files is None or not files or len(set(files)) < len(files):
        return FileSet(None, None, None, None, paths)
    if not is_parquet:
        sizes = [_file_bytes(file) for file in files]
        return FileSet(tuple(files), None, None, sum(sizes) or None, paths)
    read = [footer(file) for file in files[:_MAX_FOOTERS]]
    facts = tuple(fact for fact in read if fact is not None)
    if len(facts) < len(read):
        return FileSet(tuple(files), None, None, None, paths)
    rows, size = sum(fact.rows for fact in facts), sum(fact.size_bytes for fact in facts)
    if len(files) > _MAX_FOOTERS:
        # Footers of thousands of files cost seconds: these many files are cut between files, and counted by sample.
        scale = len(files) / _MAX_FOOTERS
        return FileSet(tuple(files), None, int(rows * scale), int(size * scale), paths)
    return FileSet(tuple(files), facts, rows, size, paths)


@dataclass(frozen=True, slots=True)
class FileSource:
    """Files read by one call; ``units`` are the smallest pieces with their rows (1 where unknown), in source order."""

    info: SourceInfo
    call: FunctionCall
    relation: str
    files: tuple[str, ...]
    units: tuple[tuple[Piece, int], ...]
    file_column: str | None
    """The name under which the user asked for the file name, if so."""
    virtual: frozenset[str]
    """Which of the columns are DuckDB's virtual ones; a file may have columns of the same names."""
    facts: tuple[FooterFacts, ...] | None = None
    names: ShownNames = field(default_factory=ShownNames)

    def slice(self, index: int, count: int) -> SliceBinding:
        """Pieces go to the slice in which their middle row falls, so slices are contiguous and nearly even."""
        if count == 1:
            return SliceBinding(self._plain(None), WHOLE)
        units = self._units(count)
        total = sum(weight for _, weight in units) or 1
        pieces, before = [], 0
        for piece, weight in units:
            if min(count - 1, (2 * before + weight) * count // (2 * total)) == index:
                pieces.append(piece)
            before += weight
        if not pieces:
            return nothing(self.info.columns, self.relation)
        runs = self._runs(pieces)
        spans = tuple(self._span(piece) for run in runs for piece in run)
        return SliceBinding(" UNION ALL ".join(map(self._select, runs)), spans)

    def range(self, split: RangeSplit, first: int, last: int) -> SliceBinding:
        """The rows of a range of values; DuckDB skips the row groups outside of it."""
        bounds = split.between(first, last)
        if bounds is None:
            return nothing(self.info.columns, self.relation)
        compared = zip((">=", "<"), bounds, strict=True)
        name = quote_name(split.column)
        conditions = " AND ".join(f"{name} {sign} {value}" for sign, value in compared if value is not None)
        return SliceBinding(self._plain(conditions or None), (Span(*bounds),))

    def zones(self, column: str) -> tuple[Zone, ...] | None:
        """Least and greatest values of a column by row group; not of one that hive paths or DuckDB itself provide."""
        if self.facts is None or column in self.virtual or any(f"/{column}=" in file for file in self.files):
            return None
        zones: list[Zone] = []
        for fact in self.facts:
            found = fact.zones(column)
            if found is None:
                return None
            zones += found
        return tuple(zones)

    def _units(self, count: int) -> Sequence[tuple[Piece, int]]:
        """The smallest pieces for ``count`` slices: row groups, and parts of them where those are too few."""
        if count <= len(self.units):
            return self.units
        total = sum(weight for _, weight in self.units)
        cuts = [total * index // count for index in range(1, count)]
        units: list[tuple[Piece, int]] = []
        before = 0
        for piece, weight in self.units:
            if piece.last_row is None:
                units.append((piece, weight))
            else:
                inner = [piece.first_row + cut - before for cut in cuts if before < cut < before + weight]
                edges = sorted({piece.first_row, *inner, piece.last_row})
                units += [(Piece(piece.file, a, b), b - a) for a, b in itertools.pairwise(edges)]
            before += weight
        return units

    def _select(self, run: Sequence[Piece]) -> str:
        first = run[0]
        conditions = []
        if first.last_row is not None:
            # Each comparison is made for every row: the ends of the file need none.
            if first.first_row > 0:
                conditions.append(f"file_row_number >= {first.first_row}")
            if first.last_row < self._file_rows(first.file):
                conditions.append(f"file_row_number < {first.last_row}")
        if len(self.files) == 1:
            return self._plain(" AND ".join(conditions))
        column = self.file_column or _FILE_COLUMN
        names = ", ".join(quote_text(self.files[piece.file]) for piece in run)
        conditions.insert(0, f"{quote_name(column)} IN ({names})")
        wanted = ", ".join(self._expression(c, column, first.file) for c in self.info.columns) or "1"
        return f"SELECT {wanted} FROM {self._named_relation()} WHERE {' AND '.join(conditions)}"

    def _runs(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        """Pieces joined: neighbours in one file become one range, and whole files stand together."""
        joined: list[Piece] = []
        for piece in pieces:
            last = joined[-1] if joined else None
            if last is not None and last.file == piece.file and last.last_row == piece.first_row:
                joined[-1] = Piece(piece.file, last.first_row, piece.last_row)
            else:
                joined.append(piece)
        runs: list[list[Piece]] = []
        for piece in joined:
            whole = piece.last_row is None or (piece.first_row == 0 and piece.last_row == self._file_rows(piece.file))
            if whole and runs and runs[-1][0].last_row is None:
                runs[-1].append(Piece(piece.file))
            else:
                runs.append([Piece(piece.file) if whole else piece])
        return runs

    def _span(self, piece: Piece) -> Span:
        """Places are rows of files, but the end of a file is the beginning of the next one."""
        low: str | None = f"{piece.file}:{piece.first_row}"
        high: str | None = f"{piece.file}:{piece.last_row}"
        if piece.file == piece.first_row == 0:
            low = None
        if piece.last_row is None or piece.last_row == self._file_rows(piece.file):
            high = f"{piece.file + 1}:0" if piece.file + 1 < len(self.files) else None
        return Span(low, high)

    def _file_rows(self, file: int) -> int:
        return sum(weight for piece, weight in self.units if piece.file == file)

    def _plain(self, condition: str | None) -> str:
        shown = {} if self._named is None else {self._named: self.names.sql(quote_name(self._named))}
        return select(self.info.columns, self.relation, condition, shown)

    @property
    def _named(self) -> str | None:
        """The column that holds file names, if there is one."""
        return self.file_column or ("filename" if "filename" in self.virtual else None)

    def _expression(self, column: Column, file_column: str, first_file: int) -> str:
        name = quote_name(column.name)
        if column.name == self._named:
            return f"{self.names.sql(quote_name(file_column))} AS {name}"
        if column.name not in self.virtual:
            return name
        if column.name == "file_index":
            return f"CAST(file_index + {first_file} AS {column.type}) AS file_index"
        return name

    def _named_relation(self) -> str:
        if self.file_column is not None:
            return self.relation
        options = [(name, value) for name, value in self.call.options if name != "filename"]
        options.append(("filename", quote_text(_FILE_COLUMN)))
        return replace(self.call, options=tuple(options)).sql()


def file_units(call: FunctionCall, columns: Sequence[Column], found: FileSet) -> tuple[tuple[Piece, int], ...]:
    """The smallest pieces that the files of ``found`` can be read in, with their weights."""
    assert found.files is not None
    has_row_numbers = call.option("file_row_number") is not None
    row_numbers_hidden = not has_row_numbers and any(c.name.lower() == "file_row_number" for c in columns)
    if found.facts is None or row_numbers_hidden:
        weights = [_file_bytes(file) or 1 for file in found.files]
        return tuple((Piece(i), weight) for i, weight in enumerate(weights))
    units: list[tuple[Piece, int]] = []
    for number, fact in enumerate(found.facts):
        first = 0
        for rows in filter(None, fact.group_rows):
            units.append((Piece(number, first, first + rows), rows))
            first += rows
        if not first:
            units.append((Piece(number), 0))
    return tuple(units)


def max_slices(units: Sequence[tuple[Piece, int]]) -> int:
    """How many slices ``units`` can make: row groups can be cut to single rows, files without an index cannot."""
    if any(piece.last_row is not None for piece, _ in units):
        return max(2, len(units), sum(weight for piece, weight in units if piece.last_row is not None))
    return max(1, len(units))


def file_name_column(call: FunctionCall, main: duckdb.DuckDBPyConnection) -> str | None:
    """The column that the option ``filename`` adds, or None."""
    option = call.option("filename")
    if option is None:
        return None
    value: Any = main.execute(f"SELECT {option}").fetchall()[0][0]
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        return value
    return "filename" if str(value).lower() == "true" else None


def file_versions(files: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
    """Modification times and sizes of local files; None where one has none."""
    versions = []
    for file in files:
        try:
            status = local_path(file).stat()
        except OSError:
            return None
        versions.append((status.st_mtime_ns, status.st_size))
    return tuple(versions)


def file_patterns(argument: str, main: duckdb.DuckDBPyConnection) -> list[str]:
    """The names and globs in the first argument of a call."""
    literal = text_literal(argument)
    if literal is not None:
        return [literal]
    ((value,),) = main.execute(f"SELECT {argument}").fetchall()
    return [str(pattern) for pattern in value] if isinstance(value, list) else [str(value)]


def _listed(pattern: str, main: duckdb.DuckDBPyConnection, *, is_parquet: bool) -> list[str] | None:
    if GLOB.search(pattern):
        return [row[0] for row in main.execute("SELECT file FROM system.main.glob(?)", [pattern]).fetchall()]
    if not is_remote(pattern) and local_path(pattern).is_dir():
        if not is_parquet:
            return None
        rows = main.execute("SELECT file_name FROM system.main.parquet_file_metadata(?)", [pattern]).fetchall()
        return [row[0] for row in rows]
    return [pattern]


def _readable_paths(pattern: str, search_path: str) -> list[str]:
    """What an agent must be allowed to read: the directory of a glob, or the file under every name it may get."""
    directories = [directory.strip() for directory in search_path.split(",") if directory.strip()]
    if is_remote(pattern):
        return [pattern]
    local = local_path(pattern)
    names = [pattern, str(local), str(local.absolute())]
    names += [f"{local_path(directory) / local}" for directory in directories]
    if local.is_dir():
        names.append(str(local.absolute()).rstrip("/") + "/")
    fixed = GLOB.split(pattern)[0]
    if fixed != pattern:
        prefix = local_path(fixed[: fixed.rfind("/") + 1] or ".")
        roots = [prefix, *(local_path(directory) / prefix for directory in directories)]
        names = [str(root.absolute()).rstrip("/") + "/" for root in roots]
    return list(dict.fromkeys(names))


def _file_bytes(file: str) -> int:
    try:
        return local_path(file).stat().st_size
    except OSError:
        return 0  # a remote file
