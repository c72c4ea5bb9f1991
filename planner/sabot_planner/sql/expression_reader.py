"""Reader of exported SQL: scalar expressions; queries are in ``query_reader``.

Expressions nest as deep as a user writes a sum, so the reader keeps what is unfinished on a list of its own and not on
Python's stack: a rule that needs a nested expression yields, and is sent that expression.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from sqlglot import exp

from sabot_planner.sql.duck_type import data_type, read_type
from sabot_planner.sql.tokens import Tokens, identifier

Node: TypeAlias = Any
"""A sqlglot node; its classes are not precise enough to be worth naming at each step."""

Reading: TypeAlias = Generator[None, Node, Node]
"""A rule that is being read: it yields where a nested expression stands, is sent it, and returns its own node."""

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
_NAMES = (exp.Column, exp.Dot)
_CONSTANTS = frozenset({"NULL", "TRUE", "FALSE"})
_AFTER_OPERAND = frozenset({"[", ".", "COLLATE"})
_AFTER_EXPRESSION = frozenset({",", ")"})
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
        """An expression of any kind; a chain of one connective is a balanced tree (:func:`chained`)."""
        return self._read(self._expression())

    def order(self) -> Node:
        """An ORDER BY clause."""
        return self._read(self._order())

    def arguments(self, parts: list[Node]) -> Node:
        """The call ``parts(…)`` with everything inside its parentheses."""
        return self._read(self._arguments(parts))

    def _read(self, outermost: Reading) -> Node:
        unfinished = [outermost]
        value: Node = None
        while True:
            self.step()
            try:
                unfinished[-1].send(value)
            except StopIteration as finished:
                unfinished.pop()
                value = finished.value
                if not unfinished:
                    return value
            else:
                unfinished.append(self._expression())
                value = None

    def _expression(self) -> Reading:
        alternatives: list[Node] = []
        terms: list[Node] = []
        while True:
            negations = 0
            while self.take("NOT"):
                negations += 1
            term = yield from self._comparison()
            for _ in range(negations):
                # NOT (a IS NULL) is another expression to DuckDB than a IS NOT NULL, which Not(Is(…)) stands for.
                term = exp.Not(this=exp.Paren(this=term) if type(term) is exp.Is else term)
            terms.append(term)
            if self.take("AND"):
                continue
            alternatives.append(chained(exp.And, terms))
            if not self.take("OR"):
                return chained(exp.Or, alternatives)
            terms = []

    def _comparison(self) -> Reading:
        left = self._leaf() or (yield from self._operand())
        while True:
            token = self.token
            if token in _COMPARISONS:
                self.advance()
                left = _COMPARISONS[token](this=left, expression=self._leaf() or (yield from self._operand()))
            elif token == "IS":
                self.advance()
                left = yield from self._is_tail(left)
            elif token == "IN":
                self.advance()
                left = exp.In(this=left, expressions=(yield from self._wrapped()))
            elif token == "BETWEEN":
                self.advance()
                low = yield from self._operand()
                self.expect("AND")
                left = exp.Between(this=left, low=low, high=(yield from self._operand()))
            elif token == ":=":
                self.advance()
                if type(left) is not exp.Column:
                    self.fail("a name before :=")
                left = exp.PropertyEQ(this=left.args["this"], expression=(yield))
            else:
                return left

    def _is_tail(self, left: Node) -> Reading:
        negated = self.take("NOT")
        if self.take("DISTINCT"):
            self.expect("FROM")
            return (exp.NullSafeEQ if negated else exp.NullSafeNEQ)(this=left, expression=(yield from self._operand()))
        self.expect("NULL")
        test = exp.Is(this=left, expression=exp.Null())
        return exp.Not(this=test) if negated else test

    def _listed(self) -> Generator[None, Node, list[Node]]:
        """One or more expressions, separated by commas."""
        items = [self._leaf(_AFTER_EXPRESSION) or (yield)]
        while self.token == ",":
            self.advance()
            items.append(self._leaf(_AFTER_EXPRESSION) or (yield))
        return items

    def _wrapped(self) -> Generator[None, Node, list[Node]]:
        """Expressions in parentheses, none at all included."""
        self.expect("(")
        if self.take(")"):
            return []
        items = yield from self._listed()
        self.expect(")")
        return items

    def _leaf(self, followed_by: frozenset[str] | None = None) -> Node:
        """A constant or a column that is a whole operand, or that one of ``followed_by`` follows; else None.

        Most operands are one of these.
        """
        tokens, position = self.tokens, self.position
        token = self.token
        first = token[:1]
        after = position + 1
        node: Node
        if first == "'":
            node = exp.Literal(this=token[1:-1].replace("''", "'"), is_string=True)
        elif first.isdigit():
            node = exp.Literal(this=token, is_string=False)
        elif token == "NULL":
            node = exp.Null()
        elif token == "CAST":
            inner = tokens[position + 2]
            if tokens[position + 3] != "AS" or not (inner[:1] == "'" or inner[:1].isdigit()):
                return None
            text = inner[1:-1].replace("''", "'") if inner[0] == "'" else inner
            kind, after = read_type(tokens, position + 4)
            if tokens[after] != ")":
                return None
            node = exp.Cast(this=exp.Literal(this=text, is_string=inner[0] == "'"), to=data_type(kind.text))
            after += 1
        elif tokens[after] == "." and tokens[position + 3] not in (".", "(") and _is_name(token):
            column = tokens[position + 2]
            if not _is_name(column):
                return None
            node = exp.Column(this=identifier(column), table=identifier(token))
            after = position + 3
        else:
            return None
        end = tokens[after]
        if end in _AFTER_OPERAND or (followed_by is not None and end not in followed_by):
            return None
        self.position, self.token = after, end
        return node

    def _operand(self) -> Reading:
        signs = 0
        while self.take("-"):
            signs += 1
        node = self._leaf() or (yield from self._primary())
        while True:
            token = self.token
            if token == "[":
                node = yield from self._subscript(node)
            elif token == ".":
                self.advance()
                node = exp.Dot(this=node, expression=self.identifier())
            elif token == "COLLATE":
                self.advance()
                node = exp.Collate(this=node, expression=self.identifier())
            else:
                break
        for _ in range(signs):
            node = exp.Neg(this=node)
        return node

    def _primary(self) -> Reading:
        token = self.token
        first = token[:1]
        if first == '"' or ((first.isalpha() or first == "_") and token[-1] != "'"):
            special = _SPECIAL.get(token)
            if special is not None:
                return (yield from special(self))
            if token in _RESERVED:
                self.fail("an expression")
            if token in _CONSTANTS:
                self.advance()
                return exp.Null() if token == "NULL" else exp.Boolean(this=token == "TRUE")
            return (yield from self._named())
        if token == "(":
            return (yield from self._parenthesised())
        self.advance()
        if first == "'":
            return exp.Literal(this=token[1:-1].replace("''", "'"), is_string=True)
        if first.isdigit() or (first == "." and len(token) > 1):
            return exp.Literal(this=token, is_string=False)
        if token[-1:] == "'":
            return (exp.HexString if first in "xX" else exp.BitString)(this=token[2:-1])
        if first == "$":
            return exp.Var(this=token)
        self.position -= 1
        self.token = token
        self.fail("an expression")

    def _parenthesised(self) -> Reading:
        self.expect("(")
        if self.token in QUERY_WORDS:
            query = self.query()
            self.expect(")")
            return exp.Subquery(this=query)
        if self.token == "lambda":
            node = yield from self._lambda()
        else:
            node = yield
            if self.token == ",":
                self.advance()
                node = exp.Tuple(expressions=[node, *([] if self.token == ")" else (yield from self._listed()))])
        self.expect(")")
        # (r.c).f: a field of a value, not a name in three parts.
        return exp.Paren(this=node) if self.token == "." and type(node) in _NAMES else node

    def _lambda(self) -> Reading:
        self.expect("lambda")
        names = self.listed(self.identifier)
        self.expect(":")
        return exp.Lambda(this=(yield), expressions=names)

    def _subscript(self, this: Node) -> Reading:
        self.expect("[")
        index = None if self.token == ":" else (yield)
        if self.take(":"):
            end = step = None
            if self.token == "-" and self.tokens[self.position + 1] == ":":
                self.advance()  # x[a:-:s] leaves the end open
            elif self.token not in (":", "]"):
                end = yield
            if self.take(":"):
                step = yield
            index = exp.Slice(this=index, expression=end, step=step)
        self.expect("]")
        return exp.Bracket(this=this, expressions=[index])

    def _named(self) -> Reading:
        """A column or a call, qualified or not."""
        name = self.identifier()
        if self.token == "(":
            return (yield from self._call_tail((yield from self._arguments([name]))))
        if self.token != ".":
            return exp.Column(this=name)
        parts = [name]
        while self.take("."):
            parts.append(self.identifier())
        if self.token == "(":
            return (yield from self._call_tail((yield from self._arguments(parts))))
        node: Node = exp.Column(this=parts[1], table=parts[0])
        for field in parts[2:]:
            node = exp.Dot(this=node, expression=field)
        return node

    def _arguments(self, parts: list[Node]) -> Reading:
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
        more = self.token not in (")", "ORDER", "IGNORE", "RESPECT")
        while more:
            if self.token == "lambda":
                expressions.append((yield from self._lambda()))
            else:
                expressions.append(self._leaf(_AFTER_EXPRESSION) or (yield))
            more = self.take(",")
        args["expressions"] = expressions
        if self.token == "ORDER":
            args["order"] = yield from self._order()
        if self.token in ("IGNORE", "RESPECT"):
            args["nulls"] = self.advance()
            self.expect("NULLS")
        self.expect(")")
        return exp.Anonymous(**args)

    def _call_tail(self, node: Node) -> Reading:
        if self.take("FILTER"):
            self.expect("(")
            self.expect("WHERE")
            node.set("filter", (yield))
            self.expect(")")
        if self.take("EXPORT_STATE"):
            node.set("export_state", True)
        return (yield from self._window(node)) if self.token == "OVER" else node

    def _window(self, this: Node) -> Reading:
        self.expect("OVER")
        self.expect("(")
        args: dict[str, Node] = {"this": this}
        if self.take("PARTITION"):
            self.expect("BY")
            args["partition_by"] = yield from self._listed()
        if self.token == "ORDER":
            args["order"] = yield from self._order()
        if self.token in ("ROWS", "RANGE", "GROUPS"):
            args["spec"] = yield from self._frame()
        self.expect(")")
        return exp.Window(**args)

    def _frame(self) -> Reading:
        args: dict[str, Node] = {"kind": self.advance()}
        if self.take("BETWEEN"):
            args["start"], args["start_side"] = yield from self._bound()
            self.expect("AND")
            args["end"], args["end_side"] = yield from self._bound()
        else:
            args["start"], args["start_side"] = yield from self._bound()
        if self.take("EXCLUDE"):
            word = self.advance()
            if word in ("CURRENT", "NO"):
                word = f"{word} {self.advance()}"
            args["exclude"] = word
        return exp.WindowSpec(**args)

    def _bound(self) -> Generator[None, Node, tuple[Node, str | None]]:
        if self.take("CURRENT"):
            self.expect("ROW")
            return "CURRENT ROW", None
        value: Node = "UNBOUNDED" if self.take("UNBOUNDED") else (yield)
        if self.token not in ("PRECEDING", "FOLLOWING"):
            self.fail("PRECEDING or FOLLOWING")
        return value, self.advance()

    def _cast(self) -> Reading:
        kind = exp.Cast if self.advance() == "CAST" else exp.TryCast
        self.expect("(")
        this = yield
        self.expect("AS")
        found, self.position = read_type(self.tokens, self.position)
        self.token = self.tokens[self.position]
        self.expect(")")
        return kind(this=this, to=data_type(found.text))

    def _case(self) -> Reading:
        self.expect("CASE")
        this = None if self.token == "WHEN" else (yield)
        ifs = []
        while self.take("WHEN"):
            condition = yield
            self.expect("THEN")
            ifs.append(exp.If(this=condition, true=(yield)))
        default = (yield) if self.take("ELSE") else None
        self.expect("END")
        return exp.Case(this=this, ifs=ifs, default=default)

    def _coalesce(self) -> Reading:
        self.advance()
        arguments = yield from self._wrapped()
        return exp.Coalesce(this=arguments[0], expressions=arguments[1:])

    def _order(self) -> Reading:
        self.expect("ORDER")
        self.expect("BY")
        keys = [(yield from self._ordered())]
        while self.take(","):
            keys.append((yield from self._ordered()))
        return exp.Order(expressions=keys)

    def _ordered(self) -> Reading:
        this = yield
        desc = self.take("DESC")
        if not desc:
            self.take("ASC")
        nulls_first = None
        if self.take("NULLS"):
            nulls_first = self.take("FIRST")
            if not nulls_first:
                self.expect("LAST")
        return exp.Ordered(this=this, desc=desc, nulls_first=nulls_first)


_SPECIAL: dict[str, Callable[[ExpressionReader], Reading]] = {
    "CAST": ExpressionReader._cast,
    "TRY_CAST": ExpressionReader._cast,
    "CASE": ExpressionReader._case,
    "COALESCE": ExpressionReader._coalesce,
}


def chained(kind: type[exp.Expression], operands: list[Node]) -> Node:
    """The chain of ``operands`` under one connective: a tree as deep as the logarithm of their number.

    It is printed as one flat chain; an operand that is itself a chain of that kind stays in parentheses.
    """
    if len(operands) == 1:
        return operands[0]
    level = [exp.Paren(this=operand) if type(operand) is kind else operand for operand in operands]
    while len(level) > 1:
        pairs = [kind(this=a, expression=b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs if len(level) % 2 == 0 else [*pairs, level[-1]]
    return level[0]


def _spelled(identifier: Node) -> str:
    name: str = identifier.args["this"]
    return '"' + name.replace('"', '""') + '"' if identifier.args["quoted"] else name


def _is_name(token: str) -> bool:
    first = token[:1]
    return first == '"' or ((first.isalpha() or first == "_") and token[-1] != "'" and token not in _RESERVED)
