"""The magics ``%%sabot`` and ``%sabot``."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, cast

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import needs_local_scope
from traitlets import Bool, Enum, Float, Int, Union
from traitlets.config import Configurable

import sabot_sql
from sabot_magics.completion import Query
from sabot_magics.display import CellOutput, kept_bundle, result_bundle, show_plan
from sabot_magics.namespace import Parameters, bind_parameters
from sabot_magics.options import HELP, CellOptions, Progress, parse_options
from sabot_sql import ConfigError, QueryCancelled, Result, SabotSQLError, Session


class SabotMagic(Configurable):
    """Runs SQL cells on the default session of sabot_sql, which the first cell that needs it makes."""

    agents = Union(
        [Int(min=1), Enum(["auto"])],
        default_value=None,
        allow_none=True,
        help="Number of agents of a cell without --agents; None: as the session says.",
    ).tag(config=True)
    limit = Int(20, min=1, help="Rows displayed of a result.").tag(config=True)
    max_rows = Int(None, min=1, allow_none=True, help="Rows fetched at most; None: all.").tag(config=True)
    timeout_seconds = Float(None, allow_none=True, help="Seconds after which a query gives up; None: never.").tag(
        config=True
    )
    progress = Enum(["auto", "text", "off"], "auto", help="How a long query tells how far it is.").tag(config=True)
    short_errors = Bool(True, help="Show an error of a query without the Python traceback.").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(parent=shell)
        self._ip = shell
        self._session_used: Session | None = None
        self.queries_run = 0

    @needs_local_scope
    def line(self, line: str, local_ns: dict[str, Any] | None = None) -> None:
        """Run one line of SQL, or --help, --status, --cancel."""
        if line.lstrip().startswith("--") and line.split()[0] in ("--help", "--status", "--cancel"):
            self._guarded(lambda: self._act(parse_options(line)))
        elif not line.strip():
            print(HELP)
        else:
            namespace = ChainMap(local_ns or {}, self._ip.user_ns)
            self._guarded(lambda: self._run(CellOptions(), line, namespace))

    def cell(self, line: str, cell: str) -> None:
        """Run the cell's SQL; ``%sabot --help`` lists the options of the first line."""

        def run() -> None:
            options = parse_options(line)
            if options.action != "run":
                self._act(options)
            elif not cell.strip():
                raise ConfigError("the cell has no SQL below its first line")
            else:
                self._run(options, cell, self._ip.user_ns)

        self._guarded(run)

    def catalog_query(self) -> Query | None:
        """What completion asks the session with; None as long as there is none."""
        session = self._session_used
        if session is None or session.closed:
            return None
        return lambda sql: session.query(sql, agents="auto").fetchall()

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except SabotSQLError as error:
            if not self.short_errors:
                self._restore_traceback(error)
            raise

    def _restore_traceback(self, error: SabotSQLError) -> None:
        shell = self._ip

        def full() -> list[str]:
            lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
            return lines

        error._render_traceback_ = full  # type: ignore[method-assign]

    def _act(self, options: CellOptions) -> None:
        match options.action:
            case "help":
                print(HELP)
            case "status":
                print(self._status())
            case _:
                self._cancel(options.query_id)

    def _cancel(self, query_id: str | None) -> None:
        running = self._session_used.running() if self._session_used is not None else ()
        chosen = [known for known in running if query_id in (None, known)]
        if query_id is not None and not chosen:
            raise ConfigError(f"no query {query_id} is running", candidates=running)
        if self._session_used is not None:
            self._session_used.cancel(query_id)
        print(f"cancelled: {', '.join(chosen) or 'nothing, no query is running'}")

    def _status(self) -> str:
        session = self._session_used
        if session is None or session.closed:
            return "no session yet: the first query starts one"
        running = ", ".join(session.running()) or "nothing"
        return f"agents: {session.agents} · isolation: {session.isolation} · running: {running}"

    def _run(self, options: CellOptions, sql: str, namespace: Mapping[str, Any]) -> None:
        session = self._session(options)
        self.queries_run += 1
        params = bind_parameters(sql, options.params, namespace, self._ip.ev)
        agents = options.agents if options.agents is not None else self.agents
        if options.explain is not None:
            show_plan(session.explain(sql, params, agents=agents), options.explain)
            return
        # Kernels have a display for every cell; a terminal has not.
        mode = options.progress or cast(Progress, self.progress)
        output = CellOutput(mode, notebook=hasattr(self._ip, "kernel"))
        try:
            result = self._query(session, options, sql, params, agents, output)
        except BaseException as error:
            output.fail("cancelled" if isinstance(error, QueryCancelled) else "failed")
            raise
        if options.name is not None:
            self._ip.user_ns[options.name] = result
        if options.display or (options.display is None and options.name is None):
            output.finish(result_bundle(result, options.limit or self.limit, profile=options.profile))
        elif options.display is None and options.name is not None:
            output.finish(kept_bundle(options.name, result, profile=options.profile))
        else:
            output.finish(None)

    def _query(
        self, session: Session, options: CellOptions, sql: str, params: Parameters, agents: Any, output: CellOutput
    ) -> Result:
        try:
            return session.query(
                sql,
                params,
                agents=agents,
                timeout=options.timeout_seconds or self.timeout_seconds,
                max_rows=options.max_rows or self.max_rows,
                observer=output.draw if output.wants_snapshots else None,
            )
        except KeyboardInterrupt:
            raise QueryCancelled("interrupted; nothing of the query is left running") from None

    def _session(self, options: CellOptions) -> Session:
        if options.connection is not None:
            session = self._ip.user_ns.get(options.connection)
            if not isinstance(session, Session):
                raise ConfigError(
                    f"--conn {options.connection}: no Session of that name in the notebook",
                    hint=f"make one: {options.connection} = sabot_sql.connect(agents=4)",
                )
            return session
        self._session_used = sabot_sql.default_session()
        return self._session_used
