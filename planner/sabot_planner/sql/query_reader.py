"""Reader of DuckDB's exported SQL: queries and relations, by recursive descent; the tree is in ``dialect``."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.sql.expression_reader import QUERY_WORDS, ExpressionReader, Node
from sabot_planner.sql.tokens import END

_SET_OPERATIONS: dict[str, type[exp.Expression]] = {
    "UNION": exp.Union,
    "EXCEPT": exp.Except,
    "INTERSECT": exp.Intersect,
}
_JOIN_WORDS = frozenset({"JOIN", "INNER", "CROSS", "LEFT", "RIGHT", "FULL", "SEMI", "ANTI", "ASOF", "POSITIONAL"})


def read_exported(sql: str, check: Callable[[], None]) -> Node:
    """The tree of one exported query."""
    reader = _QueryReader(sql, check)
    try:
        query = reader.query()
    except IndexError:
        raise Undistributable("the exported plan ends too early") from None
    except RecursionError:
        raise Undistributable("the exported plan is nested too deeply") from None
    if reader.token != END:
        reader.fail("the end")
    return query


def read_rows(sql: str) -> list[list[Node]]:
    """The rows of expressions that are written as ``sql``, each in parentheses."""
    rows = _QueryReader(sql, lambda: None)
    return [row.args["expressions"] for row in rows.listed(rows.row)]


class _QueryReader(ExpressionReader):
    __slots__ = ()

    def query(self) -> Node:
        """A query with its WITH, set operations and modifiers."""
        with_ = self._with_clause() if self.token == "WITH" else None
        return self._query_tail(self._query_operand(), with_)

    def _query_operand(self) -> Node:
        if self.token == "SELECT":
            return self._select()
        if self.take("VALUES"):
            return exp.Values(expressions=self.listed(self.row))
        self.expect("(")
        inner = self.query()
        self.expect(")")
        return inner

    def _query_tail(self, query: Node, with_: Node) -> Node:
        chain: tuple[str, bool] | None = None
        while self.token in _SET_OPERATIONS:
            word = self.advance()
            link = (word, not self.take("ALL"))
            if chain not in (None, link):
                self.fail("parentheses around one of two set operations")
            query = _SET_OPERATIONS[word](this=query, distinct=link[1], chained=chain is not None)
            query.set("expression", self._query_operand())
            chain = link
        self._modifiers(query)
        if with_ is not None:
            if "with_" in query.args:
                self.fail("one WITH clause")
            query.set("with_", with_)
        return query

    def row(self) -> Node:
        """Expressions in parentheses."""
        return exp.Tuple(expressions=self.wrapped(self.expression))

    def _with_clause(self) -> Node:
        self.expect("WITH")
        recursive = self.take("RECURSIVE")
        return exp.With(expressions=self.listed(self._cte), recursive=recursive)

    def _cte(self) -> Node:
        alias = self._table_alias()
        key_expressions = None
        if self.take("USING"):
            self.expect("KEY")
            key_expressions = self.wrapped(self._projection)
        self.expect("AS")
        materialized = None
        if self.take("NOT"):
            self.expect("MATERIALIZED")
            materialized = False
        elif self.take("MATERIALIZED"):
            materialized = True
        self.expect("(")
        query = self.query()
        self.expect(")")
        cte = exp.CTE(this=query, alias=alias, materialized=materialized)
        if key_expressions is not None:
            cte.set("key_expressions", key_expressions)
        return cte

    def _select(self) -> Node:
        self.expect("SELECT")
        args: dict[str, Node] = {}
        if self.take("DISTINCT"):
            on = None
            if self.take("ON"):
                on = exp.Tuple(expressions=self.wrapped(self.expression))
            args["distinct"] = exp.Distinct(on=on)
        args["expressions"] = self.listed(self._projection)
        if self.take("FROM"):
            first, joins = self._join_tree()
            args["from_"] = exp.From(this=first)
            if joins:
                args["joins"] = joins
        if self.take("WHERE"):
            args["where"] = exp.Where(this=self.expression())
        if self.take("GROUP"):
            self.expect("BY")
            args["group"] = self._group()
        if self.take("HAVING"):
            args["having"] = exp.Having(this=self.expression())
        if self.take("QUALIFY"):
            args["qualify"] = exp.Qualify(this=self.expression())
        if self.token == "USING":
            args["sample"] = self._sample()
        return exp.Select(**args)

    def _group(self) -> Node:
        if self.token == "GROUPING" and self.tokens[self.position + 1] == "SETS":
            self.advance()
            self.advance()
            sets = self.wrapped(self.row)
            return exp.Group(expressions=[], grouping_sets=[exp.GroupingSets(expressions=sets)])
        return exp.Group(expressions=self.listed(self.expression))

    def _sample(self) -> Node:
        self.expect("USING")
        self.expect("SAMPLE")
        parts = [self.advance()]
        if self.take("%"):
            parts.append("%")
        if self.take("("):
            parts.append("(" + self.advance())
            while self.take(","):
                parts.append(", " + self.advance())
            self.expect(")")
            parts.append(")")
        return exp.TableSample(size="".join(parts))

    def _modifiers(self, query: Node) -> None:
        if self.token == "ORDER":
            query.set("order", self.order())
        if self.take("LIMIT"):
            limit = exp.Limit(expression=self.expression())
            if self.take("%"):
                limit.set("percent", True)
            query.set("limit", limit)
        if self.take("OFFSET"):
            query.set("offset", exp.Offset(expression=self.expression()))

    def _projection(self) -> Node:
        this = self.expression()
        if self.take("AS"):
            return exp.Alias(this=this, alias=self.identifier())
        return this

    # --- relations

    def _join_tree(self) -> tuple[Node, list[Node]]:
        """A relation and what is joined to it, left-deep."""
        first, joins = self._relation()
        while self.token in _JOIN_WORDS:
            joins.append(self._join())
        return first, joins

    def _relation(self) -> tuple[Node, list[Node]]:
        """One relation; a join in parentheses comes back as its first relation and its joins."""
        if self.token != "(":
            return self._named_relation(), []
        self.advance()
        if self.token in QUERY_WORDS:
            query = self.query()
            self.expect(")")
            return self._derived(query), []
        first, joins = self._join_tree()
        if not joins and self.token in _SET_OPERATIONS and type(first) is exp.Subquery and not first.args.get("alias"):
            query = self._query_tail(first.args["this"], None)
            self.expect(")")
            return self._derived(query), []
        self.expect(")")
        if self.token == "AS":
            if joins or first.args.get("alias"):
                self.fail("no alias on a join")
            first.set("alias", self._alias())
        return first, joins

    def _derived(self, query: Node) -> Node:
        return exp.Subquery(this=query, alias=self._alias())

    def _named_relation(self) -> Node:
        parts = [self.identifier()]
        while self.take("."):
            parts.append(self.identifier())
        if self.token == "(":
            this = self.arguments(parts)
            return exp.Table(this=this, alias=self._alias())
        args: dict[str, Node] = dict(zip(("this", "db", "catalog"), reversed(parts), strict=False))
        args["alias"] = self._alias()
        return exp.Table(**args)

    def _alias(self) -> Node:
        return self._table_alias() if self.take("AS") else None

    def _table_alias(self) -> Node:
        this = self.identifier()
        columns = self.wrapped(self.identifier) if self.token == "(" else []
        return exp.TableAlias(this=this, columns=columns)

    def _join(self) -> Node:
        args: dict[str, Node] = {}
        if self.token in ("ASOF", "POSITIONAL"):
            args["method"] = self.advance()
        if self.token in ("LEFT", "RIGHT", "FULL"):
            args["side"] = self.advance()
            self.take("OUTER")
        if self.token in ("INNER", "CROSS", "SEMI", "ANTI"):
            args["kind"] = self.advance()
        self.expect("JOIN")
        if self.take("BY"):
            self.expect("(")
            self.expect("TYPE")
            args["by_type"] = self.advance().upper()
            self.expect(")")
        first, joins = self._relation()
        args["this"] = exp.Subquery(this=first, joins=joins) if joins else first
        if self.take("ON"):
            args["on"] = self.expression()
        return exp.Join(**args)
