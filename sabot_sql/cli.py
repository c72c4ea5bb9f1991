"""The console script ``sabot-sql``: it runs SQL and jobs, serves agents, and looks after durable queries."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import sabot_sql
from sabot_sql.errors import ConfigError, SabotSQLError, SourceError
from sabot_sql.printable import printable
from sabot_sql.top.command import add_options, top

_FAILED = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status: 0, 1 for an error, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding shows what it can
    options = _parser().parse_args(arguments)
    try:
        if options.command == "query":
            _query(options)
        elif options.command == "explain":
            _explain(options)
        elif options.command == "run":
            _run(options)
        elif options.command == "top":
            top(options)
        elif options.command == "agent":
            return _agent(options)
        else:
            _durable(options)
    except SabotSQLError as error:
        print(f"SabotSQLError {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the rows has seen enough
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))  # it repeats what was given


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sabot-sql", description="DuckDB SQL on several agents.")
    commands = parser.add_subparsers(dest="command", required=True)

    query = commands.add_parser("query", help="run SQL and print the rows of the last statement")
    _add_sql_options(query)
    _add_session_options(query)
    query.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    query.add_argument("--output", metavar="FILE", help="write the rows there; parquet needs it")
    query.add_argument("--plan", action="store_true", help="print the shuffle plan as well")
    query.add_argument("--timeout", type=float, metavar="SECONDS")

    explain = commands.add_parser("explain", help="print the plan of a query without running it")
    _add_sql_options(explain)
    _add_session_options(explain)
    explain.add_argument("--format", choices=["text", "json", "dot", "svg", "html"], default="text")

    run = commands.add_parser("run", help="run the job graph that a Python file builds")
    run.add_argument("job_file", metavar="FILE", help="a Python file with a JobGraph as the variable job")
    run.add_argument("--job", metavar="NAME", help="of the variable, where it is another")
    _add_session_options(run)
    run.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    run.add_argument("--output", metavar="FILE", help="write the rows there; parquet needs it")
    run.add_argument("--plan", action="store_true", help="print the shuffle plan as well")
    run.add_argument("--explain", action="store_true", help="print the plan and run nothing")
    run.add_argument("--timeout", type=float, metavar="SECONDS")

    add_options(commands.add_parser("top", help="show what runs: queries, jobs, edges, agents and their memory"))

    agent = commands.add_parser("agent", help="serve agents to sessions on other hosts, until SIGTERM")
    agent.add_argument("--listen", metavar="HOST:PORT", help="where; port 0 is any")
    agent.add_argument("--status", metavar="HOST:PORT", help="print what the agent there says of itself, and end")
    agent.add_argument("--advertise", metavar="NAME:PORT", help="how other agents reach this one; as it listens")
    agent.add_argument("--token-file", metavar="FILE", help="the secret of the cluster; readable by its owner alone")
    agent.add_argument("--tls-cert", metavar="FILE", help="the agent's certificate (PEM)")
    agent.add_argument("--tls-key", metavar="FILE", help="its key")
    agent.add_argument("--tls-ca", metavar="FILE", help="the authority that signed the certificates of the agents")
    agent.add_argument("--tls-client-ca", metavar="FILE", help="ask sessions and agents for certificates signed by it")
    agent.add_argument("--memory", default=None, metavar="SIZE", help="of all sessions together; 70 %% of the machine")
    agent.add_argument("--threads", type=int, default=None, metavar="N", help="of each session; all cores")
    agent.add_argument("--sessions", type=int, default=4, metavar="N", help="at a time; each has 1/N of the memory")
    agent.add_argument("--spill", default=tempfile.gettempdir(), metavar="DIR", help="for what memory cannot hold")
    agent.add_argument("--data", action="append", default=[], metavar="DIR", help="sessions may read files in it")
    agent.add_argument("--grace", type=float, default=300.0, metavar="SECONDS", help="of sessions, after SIGTERM")
    agent.add_argument("--idle", type=float, default=None, metavar="SECONDS", help="without a session: then end")
    agent.add_argument("--with-parent", action="store_true", help="end when standard input does")
    _add_durable_commands(commands)
    return parser


def _add_durable_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    submit = commands.add_parser("submit", help="hand a query to the durable host and print its id")
    _add_sql_options(submit)
    _add_session_options(submit)
    submit.add_argument("--timeout", type=float, metavar="SECONDS")
    submit.add_argument("--priority", type=int, default=0, metavar="N", help="the lowest, from 0, come first")

    queries = commands.add_parser("queries", help="list the durable queries, the latest first")
    queries.add_argument("--format", choices=["table", "json"], default="table")
    queries.add_argument("--limit", type=int, default=100, metavar="N")

    attach = commands.add_parser("attach", help="wait for a durable query and print its rows")
    attach.add_argument("query_id", metavar="ID")
    attach.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    attach.add_argument("--output", metavar="FILE", help="write the rows there; parquet needs it")
    attach.add_argument("--plan", action="store_true", help="print the shuffle plan as well")
    attach.add_argument("--timeout", type=float, metavar="SECONDS", help="wait so long; the query goes on")

    cancel = commands.add_parser("cancel", help="stop a durable query")
    cancel.add_argument("query_id", metavar="ID")

    doctor = commands.add_parser("doctor", help="show what durable queries have left on this machine")
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument("--clean", action="store_true", help="remove what nobody needs")
    doctor.add_argument("--stop", action="store_true", help="end the durable host; the next one goes on")


def _add_sql_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", nargs="?", help="the SQL; left out with --file")
    parser.add_argument("--file", metavar="FILE", help="read the SQL from FILE, or from standard input: -")


def _add_session_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--database", default=":memory:", metavar="FILE", help="a DuckDB database")
    parser.add_argument("--agents", type=_agents, default="auto", metavar="N|auto")
    parser.add_argument("--isolation", choices=["thread", "process"], default="thread")
    parser.add_argument("--memory-limit", metavar="SIZE", help='of all processes together, such as "4GiB"')


def _agents(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto")
    return int(text)


def _session(options: argparse.Namespace) -> sabot_sql.Session:
    return sabot_sql.connect(
        options.database,
        agents=options.agents,
        isolation=options.isolation,
        memory_limit=options.memory_limit,
    )


def _sql(options: argparse.Namespace) -> str:
    if (options.sql is None) == (options.file is None):
        raise ConfigError("give SQL, or --file")
    if options.file is None:
        return str(options.sql)
    try:
        return sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {options.file}: {error}") from None


def _query(options: argparse.Namespace) -> None:
    sql = _sql(options)
    if options.format == "parquet" and options.output is None:
        raise ConfigError("--format parquet needs --output")
    with _session(options) as session:
        _show(session.query(sql, timeout=options.timeout, scope={}), options)


def _run(options: argparse.Namespace) -> None:
    from sabot_sql.jobs.job_file import load_job  # native code, which the other commands may not need

    if options.format == "parquet" and options.output is None:
        raise ConfigError("--format parquet needs --output")
    job = load_job(options.job_file, options.job)
    with _session(options) as session:
        if options.explain:
            print(session.explain(job, scope={}).text())
        else:
            _show(session.run_job(job, timeout=options.timeout, scope={}), options)


def _show(result: sabot_sql.Result, options: argparse.Namespace) -> None:
    if options.plan:
        # Rows that a program reads stand alone on standard output.
        rows_alone = options.format != "table" and options.output is None
        print(result.plan.text(), end="\n\n", file=sys.stderr if rows_alone else sys.stdout)
    sys.stdout.flush()
    _write(result, options.format, options.output)


def _write(result: sabot_sql.Result, form: str, output: str | None) -> None:
    if form == "csv" and not result.columns:
        return
    if form == "parquet":
        result.to_parquet(str(output))
    elif form == "csv" and output is not None:
        result.to_csv(output)
    elif form == "csv":
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "rows.csv")
            result.to_csv(file)
            with file.open(newline="") as lines:
                shutil.copyfileobj(lines, sys.stdout)
    else:
        rows = [result.to_text()] if form == "table" else _json_lines(result)
        if output is None:
            for row in rows:
                print(row)
        else:
            _write_lines(output, rows)


def _write_lines(output: str, rows: Sequence[str]) -> None:
    try:
        Path(output).write_text("".join(f"{row}\n" for row in rows))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot write {output}: {error}", code="FILE_NOT_WRITTEN", file=output) from None


def _json_lines(result: sabot_sql.Result) -> list[str]:
    return [json.dumps(dict(zip(result.columns, row, strict=True)), default=str) for row in result]


def _explain(options: argparse.Namespace) -> None:
    with _session(options) as session:
        plan = session.explain(_sql(options), scope={})
    match options.format:
        case "json":
            print(json.dumps(plan.json(), indent=2))
        case "dot":
            print(plan.dot())
        case "svg":
            print(plan.svg())
        case "html":
            print(plan.html())
        case _:
            print(plan.text())


def _durable(options: argparse.Namespace) -> None:
    from sabot_sql import durable_commands as commands  # sockets and files, which the other commands do not need

    match options.command:
        case "submit":
            sql = _sql(options)
            with _session(options) as session:
                commands.print_submitted(session, sql, options)
        case "queries":
            commands.print_queries(options)
        case "attach":
            if options.format == "parquet" and options.output is None:
                raise ConfigError("--format parquet needs --output")
            _show(commands.attached(options), options)
        case "cancel":
            commands.print_cancelled(options)
        case _:
            commands.print_diagnosis(options)


def _agent(options: argparse.Namespace) -> int:
    # Native code, which the other commands may not need.
    from sabot_sql.service.command import print_status, serve

    if (options.listen is None) == (options.status is None):
        raise ConfigError("give --listen, or --status")
    if options.status is not None:
        return print_status(options)
    serve(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
