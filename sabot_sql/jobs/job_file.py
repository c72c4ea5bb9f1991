"""A Python file that builds a job graph."""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path

from sabot_sql.errors import JobError, SourceError
from sabot_sql.jobs.job_graph import JobGraph


def load_job(path: str, name: str | None = None) -> JobGraph:
    """The job graph that the file makes as variable ``name``: as ``job``, or as the only one, where none is named.

    The file runs as any Python program does, under the name ``sabot_job`` and not as ``__main__``.

    Raises:
        SourceError: there is no such file.
        JobError: it fails, or makes no such job.
    """
    if not Path(path).is_file():
        raise SourceError(f"there is no file {path}", code="FILE_NOT_FOUND", file=path)
    try:
        variables = runpy.run_path(path, run_name="sabot_job")
    except (Exception, SystemExit) as error:
        if isinstance(error, JobError):
            raise
        place = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == path), None)
        where = f", line {place.lineno}" if place else ""
        reason = f"{path}{where}: {type(error).__name__}: {error}"
        raise JobError(reason, code="JOB_FILE") from error
    jobs = {key: value for key, value in variables.items() if isinstance(value, JobGraph)}
    if name is None:
        name = "job" if "job" in jobs or len(jobs) != 1 else next(iter(jobs))
    if name not in jobs:
        known = f"its jobs are {', '.join(jobs)}" if jobs else "it makes none"
        raise JobError(f"{path} makes no JobGraph named {name!r}; {known}", code="JOB_FILE")
    return jobs[name]
