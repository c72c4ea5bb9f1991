"""Reader of exported SQL: scalar expressions; queries are in ``dialect_reader``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from sqlglot import exp

from sabot_planner.sql.tokens import Tokens
from sabot_planner.sql.type_names import data_type, read_type

Node: TypeAlias = Any
"""A sqlglot node; its classes are not precise enough to be worth naming at each step."""

QUERY_WORDS = frozenset({"SELECT", "WITH", "VALUES"})

_COMPARISONS: dict[str, type[exp.Expression]] = {
    "=": exp.EQ,
    "!=": exp.NEQ,
    "<>": exp.NEQ,
    "<": exp.LT,
    "<=": exp.LTE,
    ">": exp.GT,
    ">=": exp.GTE,
}
_CONNECTIVES = (exp.And, exp.Or)
_NAMES = (exp.Column, exp.Dot)
# DuckDB quotes a name that is one of these; a bare one in the place of an expression starts something else.
_RESERVED = frozenset(
    {
        *("AND", "AS", "BETWEEN", "DISTINCT", "ELSE", "END", "EXCEPT", "FROM", "GROUP", "HAVING", "IN", "INTERSECT"),
        *("IS", "JOIN", "LIMIT", "NOT", "OFFSET", "ON", "OR", "ORDER", "SELECT", "THEN", "UNION", "USING", "VALUES"),
        *("WHEN", "WHERE", "WITH"),
    }
)


class ExpressionReader(Tokens, ABC):
    """Reads an expression from a place in a list of tokens."""

    __slots__ = ()

    @abstractmethod
    def query(self) -> Node:
        """A query, as it stands in parentheses."""

    def expression(self) -> Node:
        """An expression of any kind; chains of one connective are left-deep."""
        left = self._conjunction()
        while self.take("OR"):
            left = exp.Or(this=left, expression=self._conjunction())
        return left

    def _conjunction(self) -> Node:
        left = self._negation()
        while self.take("AND"):
            left = exp.And(this=left, expression=self._negation())
        return left

    def _negation(self) -> Node:
        if self.take("NOT"):
            inner = self._negation()
            # NOT (a IS NULL) is another expression to DuckDB than a IS NOT NULL, which Not(Is(…)) stands for.
            return exp.Not(this=exp.Paren(this=inner) if type(inner) is exp.Is else inner)
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._operand()
        while True:
            token = self.token
            if token in _COMPARISONS:
                self.advance()
                left = _COMPARISONS[token](this=left, expression=self._operand())
            elif token == "IS":
                self.advance()
                left = self._is_tail(left)
            elif token == "IN":
                self.advance()
                left = exp.In(this=left, expressions=self.wrapped(self.expression))
            elif token == "BETWEEN":
                self.advance()
                low = self._operand()
                self.expect("AND")
                left = exp.Between(this=left, low=low, high=self._operand())
            elif token == ":=":
                self.advance()
                if type(left) is not exp.Column:
                    self.fail("a name before :=")
                left = exp.PropertyEQ(this=left.args["this"], expression=self.expression())
            else:
                return left

    def _is_tail(self, left: Node) -> Node:
        negated = self.take("NOT")
        if self.take("DISTINCT"):
            self.expect("FROM")
            return (exp.NullSafeEQ if negated else exp.NullSafeNEQ)(this=left, expression=self._operand())
        self.expect("NULL")
        test = exp.Is(this=left, expression=exp.Null())
        return exp.Not(this=test) if negated else test

    def _operand(self) -> Node:
        node = self._primary()
        while True:
            token = self.token
            if token == "[":
                node = self._subscript(node)
            elif token == ".":
                self.advance()
                node = exp.Dot(this=node, expression=self.identifier())
            elif token == "COLLATE":
                self.advance()
                node = exp.Collate(this=node, expression=self.identifier())
            else:
                return node

    def _primary(self) -> Node:
        token = self.token
        first = token[:1]
        if first == '"' or ((first.isalpha() or first == "_") and token[-1] != "'"):
            special = _SPECIAL.get(token)
            if special is not None:
                return special(self)
            if token in _RESERVED:
                self.fail("an expression")
            return self._named()
        if token == "(":
            return self._parenthesised()
        self.advance()
        if first == "'":
            return exp.Literal(this=token[1:-1].replace("''", "'"), is_string=True)
        if first.isdigit() or (first == "." and len(token) > 1):
            return exp.Literal(this=token, is_string=False)
        if token[-1:] == "'":
            return (exp.HexString if first in "xX" else exp.BitString)(this=token[2:-1])
        if token == "-":
            return exp.Neg(this=self._operand())
        self.position -= 1
        self.token = token
        self.fail("an expression")

    def _parenthesised(self) -> Node:
        self.expect("(")
        if self.token in QUERY_WORDS:
            query = self.query()
            self.expect(")")
            return exp.Subquery(this=query)
        if self.token == "lambda":
            node = self._lambda()
        else:
            node = self.expression()
            if self.token == ",":
                self.advance()
                node = exp.Tuple(expressions=[node, *([] if self.token == ")" else self.listed(self.expression))])
        self.expect(")")
        # (a AND b) AND c: the inner pair stays one operand; (r.c).f: a field of a value, not a name in three parts.
        kept = self.token in ("AND", "OR") if type(node) in _CONNECTIVES else self.token == "." and type(node) in _NAMES
        return exp.Paren(this=node) if kept else node

    def _lambda(self) -> Node:
        self.expect("lambda")
        names = self.listed(self.identifier)
        self.expect(":")
        return exp.Lambda(this=self.expression(), expressions=names)

    def _subscript(self, this: Node) -> Node:
        self.expect("[")
        index = None if self.token == ":" else self.expression()
        if self.take(":"):
            end = step = None
            if self.token == "-" and self.tokens[self.position + 1] == ":":
                self.advance()  # x[a:-:s] leaves the end open
            elif self.token not in (":", "]"):
                end = self.expression()
            if self.take(":"):
                step = self.expression()
            index = exp.Slice(this=index, expression=end, step=step)
        self.expect("]")
        return exp.Bracket(this=this, expressions=[index])

    def _named(self) -> Node:
        """A column or a call, qualified or not."""
        name = self.identifier()
        if self.token == "(":
            return self._call_tail(self._arguments([name]))
        if self.token != ".":
            return exp.Column(this=name)
        parts = [name]
        while self.take("."):
            parts.append(self.identifier())
        if self.token == "(":
            return self._call_tail(self._arguments(parts))
        node: Node = exp.Column(this=parts[1], table=parts[0])
        for field in parts[2:]:
            node = exp.Dot(this=node, expression=field)
        return node

    def _arguments(self, parts: list[Node]) -> Node:
        """The call ``parts(…)`` with everything inside its parentheses."""
        schema = ".".join(_spelled(part) for part in parts[:-1])
        args: dict[str, Node] = {"this": parts[-1].args["this"]}
        if schema:
            args["schema"] = schema
        if parts[-1].args["quoted"]:
            args["quoted"] = True
        self.expect("(")
        if self.take("DISTINCT"):
            args["distinct"] = True
        expressions: list[Node] = []
        if self.token not in (")", "ORDER", "IGNORE", "RESPECT"):
            expressions = self.listed(self._argument)
        args["expressions"] = expressions
        if self.token == "ORDER":
            args["order"] = self.order()
        if self.token in ("IGNORE", "RESPECT"):
            args["nulls"] = self.advance()
            self.expect("NULLS")
        self.expect(")")
        return exp.Anonymous(**args)

    def _argument(self) -> Node:
        return self._lambda() if self.token == "lambda" else self.expression()

    def _call_tail(self, node: Node) -> Node:
        if self.take("FILTER"):
            self.expect("(")
            self.expect("WHERE")
            node.set("filter", self.expression())
            self.expect(")")
        if self.take("EXPORT_STATE"):
            node.set("export_state", True)
        return self._window(node) if self.token == "OVER" else node

    def _window(self, this: Node) -> Node:
        self.expect("OVER")
        self.expect("(")
        args: dict[str, Node] = {"this": this}
        if self.take("PARTITION"):
            self.expect("BY")
            args["partition_by"] = self.listed(self.expression)
        if self.token == "ORDER":
            args["order"] = self.order()
        if self.token in ("ROWS", "RANGE", "GROUPS"):
            args["spec"] = self._frame()
        self.expect(")")
        return exp.Window(**args)

    def _frame(self) -> Node:
        args: dict[str, Node] = {"kind": self.advance()}
        if self.take("BETWEEN"):
            args["start"], args["start_side"] = self._bound()
            self.expect("AND")
            args["end"], args["end_side"] = self._bound()
        else:
            args["start"], args["start_side"] = self._bound()
        if self.take("EXCLUDE"):
            word = self.advance()
            if word in ("CURRENT", "NO"):
                word = f"{word} {self.advance()}"
            args["exclude"] = word
        return exp.WindowSpec(**args)

    def _bound(self) -> tuple[Node, str | None]:
        if self.take("CURRENT"):
            self.expect("ROW")
            return "CURRENT ROW", None
        value: Node = "UNBOUNDED" if self.take("UNBOUNDED") else self.expression()
        if self.token not in ("PRECEDING", "FOLLOWING"):
            self.fail("PRECEDING or FOLLOWING")
        return value, self.advance()

    def _cast(self) -> Node:
        kind = exp.Cast if self.advance() == "CAST" else exp.TryCast
        self.expect("(")
        this = self.expression()
        self.expect("AS")
        text, self.position = read_type(self.tokens, self.position)
        self.token = self.tokens[self.position]
        self.expect(")")
        return kind(this=this, to=data_type(text))

    def _case(self) -> Node:
        self.expect("CASE")
        this = None if self.token == "WHEN" else self.expression()
        ifs = []
        while self.take("WHEN"):
            condition = self.expression()
            self.expect("THEN")
            ifs.append(exp.If(this=condition, true=self.expression()))
        default = self.expression() if self.take("ELSE") else None
        self.expect("END")
        return exp.Case(this=this, ifs=ifs, default=default)

    def _coalesce(self) -> Node:
        self.advance()
        arguments = self.wrapped(self.expression)
        return exp.Coalesce(this=arguments[0], expressions=arguments[1:])

    def _null(self) -> Node:
        self.advance()
        return exp.Null()

    def _boolean(self) -> Node:
        return exp.Boolean(this=self.advance() == "TRUE")

    def order(self) -> Node:
        """An ORDER BY clause."""
        self.expect("ORDER")
        self.expect("BY")
        return exp.Order(expressions=self.listed(self._ordered))

    def _ordered(self) -> Node:
        this = self.expression()
        desc = self.take("DESC")
        if not desc:
            self.take("ASC")
        nulls_first = None
        if self.take("NULLS"):
            nulls_first = self.take("FIRST")
            if not nulls_first:
                self.expect("LAST")
        return exp.Ordered(this=this, desc=desc, nulls_first=nulls_first)


_SPECIAL: dict[str, Callable[[ExpressionReader], Node]] = {
    "CAST": ExpressionReader._cast,
    "TRY_CAST": ExpressionReader._cast,
    "CASE": ExpressionReader._case,
    "COALESCE": ExpressionReader._coalesce,
    "NULL": ExpressionReader._null,
    "TRUE": ExpressionReader._boolean,
    "FALSE": ExpressionReader._boolean,
}


def _spelled(identifier: Node) -> str:
    name: str = identifier.args["this"]
    return '"' + name.replace('"', '""') + '"' if identifier.args["quoted"] else name
