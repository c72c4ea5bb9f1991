"""The magics ``%%sabot`` and ``%sabot``."""

from __future__ import annotations

import difflib
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import needs_local_scope
from traitlets import Bool, Enum, Float, Int, Union
from traitlets.config import Configurable

import sabot_sql
from sabot_magics.completion import Query
from sabot_magics.display import CellOutput, Look, done_bundle, kept_bundle, result_bundle, show_plan
from sabot_magics.namespace import Parameters, bind_parameters
from sabot_magics.options import HELP, CellOptions, Progress, parse_options
from sabot_sql import (
    ConfigError,
    Observer,
    QueryCancelled,
    QueryHandle,
    QueryTimeout,
    Result,
    Session,
    SessionClosed,
)
from sabot_sql.plan_view import UnhappyEnd

_ACTIONS = ("--help", "--status", "--cancel", "--attach")


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
        self._looks: WeakKeyDictionary[Result, Look] = WeakKeyDictionary()
        self._shown: Result | None = None
        self.queries_run = 0

    @needs_local_scope
    def line(self, line: str, local_ns: dict[str, Any] | None = None) -> Result | QueryHandle | None:
        """Run one line of SQL and return its result, or do --help, --status, --cancel, --attach."""
        first = line.split(maxsplit=1)[0] if line.strip() else ""
        if first in _ACTIONS:
            return self._act(parse_options(line), at_once=False)
        elif first.startswith("-"):
            # SQL begins with no sign, and takes two of them for a comment: it would do nothing at all.
            raise ConfigError(
                f"%sabot takes one line of SQL and no options: {first}",
                hint="options stand in the first line of %%sabot, the SQL below it",
                candidates=difflib.get_close_matches(first, _ACTIONS),
            )
        elif not line.strip():
            print(HELP)
        else:
            namespace = ChainMap(local_ns or {}, self._ip.user_ns)
            return self._run(CellOptions(), line, namespace, at_once=False)
        return None

    def cell(self, line: str, cell: str) -> Result | QueryHandle | None:
        """Run the cell's SQL and return its result; ``%sabot --help`` lists the options of the first line."""
        options = parse_options(line)
        if options.action != "run":
            return self._act(options, at_once=True)
        if not cell.strip():
            raise ConfigError("the cell has no SQL below its first line")
        return self._run(options, cell, self._ip.user_ns, at_once=True)

    def display_shown(self, result: Result) -> None:
        """Display nothing for the result that its cell has displayed already; IPython asks for what cells return."""
        if self._shown is not result:
            raise NotImplementedError  # so that IPython goes on and asks for the bundle
        self._shown = None

    def bundle(self, result: Result) -> dict[str, Any]:
        """What is displayed of a result: as its cell said, otherwise by ``%config SabotMagic``."""
        try:
            bundle = result_bundle(result, self._looks.get(result) or Look(self.limit))
        except SessionClosed:
            return {"text/plain": repr(result)}
        return bundle if self._is_notebook else {"text/plain": bundle["text/plain"]}

    def catalog_query(self) -> Query | None:
        """What completion asks the session with; None as long as there is none."""
        session = self._session_used
        if session is None or session.closed:
            return None
        return lambda sql: session.query(sql, agents="auto").fetchall()

    @property
    def _is_notebook(self) -> bool:
        """Whether a page shows what is displayed: kernels have one for every cell, a terminal has not."""
        return hasattr(self._ip, "kernel")

    def _act(self, options: CellOptions, *, at_once: bool) -> Result | None:
        match options.action:
            case "help":
                print(HELP)
            case "status":
                print(self._status())
            case "attach":
                handle = sabot_sql.attach(str(options.query_id))
                return self._answered(options, None, handle.wait, at_once=at_once)
            case _:
                self._cancel(options.query_id)
        return None

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

    def _run(
        self, options: CellOptions, sql: str, namespace: Mapping[str, Any], *, at_once: bool
    ) -> Result | QueryHandle | None:
        """The result, for IPython to display; ``at_once``: nobody else takes it, so it may be displayed here."""
        session = self._session(options)
        self.queries_run += 1
        params = bind_parameters(sql, options.params, namespace, self._ip.ev)
        agents = options.agents if options.agents is not None else self.agents
        if options.explain is not None:
            show_plan(session.explain(sql, params, agents=agents), options.explain)
            return None
        if options.detach:
            return self._detached(session, options, sql, params, agents)
        wanted = agents if agents is not None else session.agents
        return self._answered(
            options,
            wanted,
            lambda observer: self._query(session, options, sql, params, agents, observer),
            at_once=at_once,
        )

    def _detached(
        self, session: Session, options: CellOptions, sql: str, params: Parameters, agents: Any
    ) -> QueryHandle | None:
        """The handle of a query that was handed over, for IPython to display where it is kept under no name."""
        handle = session.submit(sql, params, agents=agents, timeout=options.timeout_seconds or self.timeout_seconds)
        print(f"{handle.query_id} goes on by itself: %sabot --attach {handle.query_id}")
        if options.name is None:
            return handle
        self._ip.user_ns[options.name] = handle
        return None

    def _answered(
        self, options: CellOptions, wanted: Any, query: Callable[[Observer | None], Result], *, at_once: bool
    ) -> Result | None:
        """The result of ``query``, displayed or kept as the options say; ``wanted`` agents were asked for."""
        output = CellOutput(options.progress or cast(Progress, self.progress), notebook=self._is_notebook)
        try:
            result = query(output.draw if output.wants_snapshots else None)
        except BaseException as error:
            output.fail(_end(error))
            raise
        look = Look(options.limit or self.limit, options.profile, agents_wanted=wanted not in (None, 1, "auto"))
        self._looks[result] = look
        if options.name is not None:
            self._ip.user_ns[options.name] = result
        if options.display or (options.display is None and options.name is None):
            return self._displayed(result, look, output, at_once=at_once)
        kept = kept_bundle(str(options.name), result, profile=options.profile)
        output.finish(kept if options.display is None else None)
        cast(Any, self._ip.displayhook).update_user_ns(result)
        return None

    def _displayed(self, result: Result, look: Look, output: CellOutput, *, at_once: bool) -> Result:
        """``result``, which IPython displays unless that is done here: in a notebook, where progress may stand."""
        if at_once and self._is_notebook:
            output.finish(result_bundle(result, look))
            self._shown = result
        elif output.drawn:
            output.finish(done_bundle(result))
        else:
            output.clear()
        return result

    def _query(
        self,
        session: Session,
        options: CellOptions,
        sql: str,
        params: Parameters,
        agents: Any,
        observer: Observer | None,
    ) -> Result:
        try:
            return session.query(
                sql,
                params,
                agents=agents,
                timeout=options.timeout_seconds or self.timeout_seconds,
                max_rows=options.max_rows or self.max_rows,
                observer=observer,
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


def _end(error: BaseException) -> UnhappyEnd:
    match error:
        case QueryCancelled():
            return "cancelled"
        case QueryTimeout():
            return "timed_out"
        case _:
            return "failed"
