"""Job graphs, built by hand: operators, and which of them reads which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from sabot_planner.job.execution_graph import ExecutionGraph
from sabot_planner.job.operators import OperatorType
from sabot_sql import arguments
from sabot_sql.errors import JobError
from sabot_sql.jobs.operators import StreamOperatorNode
from sabot_sql.jobs.shuffle_detection import execution_graph
from sabot_sql.jobs.sink_targets import target_name

if TYPE_CHECKING:
    from sabot_sql.result import Result
    from sabot_sql.session import Session

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_INPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class Connection:
    """``target`` reads ``source``, in its SQL under ``name`` where there is one.

    ``broadcast``: every task of ``target`` reads all rows, because they are few.
    """

    source: str
    target: str
    name: str = ""
    broadcast: bool = False


class JobGraph:
    """Operators, and which of them reads which; it may be changed until it is run.

    ``to_execution_graph()`` finds out how rows have to move. Bounded inputs only: a job ends when its sources have.
    """

    def __init__(self, job_id: str = "job") -> None:
        if not isinstance(job_id, str) or not _ID.match(job_id):
            raise JobError(f"job_id={arguments.shown(job_id)} must match [A-Za-z0-9_-]{{1,64}}", code="JOB_ID")
        self.job_id = job_id
        self._operators: dict[str, StreamOperatorNode] = {}
        self._connections: list[Connection] = []

    @property
    def operators(self) -> tuple[StreamOperatorNode, ...]:
        """In the order in which they were added."""
        return tuple(self._operators.values())

    @property
    def connections(self) -> tuple[Connection, ...]:
        """In the order in which they were made."""
        return tuple(self._connections)

    def operator(self, operator_id: str) -> StreamOperatorNode:
        """The operator of that id.

        Raises:
            JobError: there is none.
        """
        found = self._operators.get(operator_id) if isinstance(operator_id, str) else None
        if found is None:
            known, given = ", ".join(self._operators) or "none", arguments.shown(operator_id)
            raise JobError(f"job {self.job_id!r} has no operator {given}; it has {known}", code="UNKNOWN_OPERATOR")
        return found

    def add_operator(self, node: StreamOperatorNode) -> str:
        """Add an operator; gives its id.

        Raises:
            JobError: there is one of that id.
        """
        if not isinstance(node, StreamOperatorNode):
            raise JobError(f"a StreamOperatorNode is added, not a {type(node).__name__}", code="NOT_AN_OPERATOR")
        if node.operator_id in self._operators:
            reason = f"job {self.job_id!r} has an operator {node.operator_id!r} already"
            raise JobError(reason, code="DUPLICATE_OPERATOR", operator=node.operator_id)
        self._operators[node.operator_id] = node
        return node.operator_id

    def connect(self, source: str, target: str, *, name: str = "", broadcast: bool = False) -> None:
        """Let ``target`` read the rows of ``source``; ``name`` is what its SQL calls them.

        ``broadcast`` says that they are few, so that each task of ``target`` has all of them.

        Raises:
            JobError: there is no operator of such an id, or the name is taken.
        """
        for operator_id in (source, target):
            self.operator(operator_id)
        arguments.flag("broadcast", broadcast)
        if not isinstance(name, str) or (name and not _INPUT_NAME.match(name)):
            raise JobError(f"name={arguments.shown(name)} must be a plain SQL name", code="INPUT_NAME", operator=target)
        if name and any(c.name == name for c in self.inputs_of(target)):
            raise JobError(f"operator {target!r} has an input {name!r} already", code="INPUT_NAME", operator=target)
        self._connections.append(Connection(source, target, name, broadcast))

    def inputs_of(self, operator_id: str) -> tuple[Connection, ...]:
        """What an operator reads, in the order in which it was connected.

        Raises:
            JobError: there is none of that id.
        """
        wanted = self.operator(operator_id).operator_id
        return tuple(c for c in self._connections if c.target == wanted)

    def outputs_of(self, operator_id: str) -> tuple[Connection, ...]:
        """Who reads an operator.

        Raises:
            JobError: there is none of that id.
        """
        wanted = self.operator(operator_id).operator_id
        return tuple(c for c in self._connections if c.source == wanted)

    def topological_sort(self) -> list[str]:
        """Ids of the operators, each after all that it reads, and otherwise as they were added.

        Raises:
            JobError: there is a cycle.
        """
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for operator_id in self._operators:
            sorter.add(operator_id, *(c.source for c in self.inputs_of(operator_id)))
        try:
            return list(sorter.static_order())
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise JobError(f"job {self.job_id!r} has a cycle: {path}", code="CYCLE") from None

    def validate(self) -> None:
        """Check everything that can be known without the data: shape, keys where they are needed, names of sinks.

        Raises:
            JobError: the first thing that is wrong.
        """
        if not self._operators:
            raise JobError(f"job {self.job_id!r} has no operators", code="EMPTY_JOB")
        self.topological_sort()
        for node in self.operators:
            self._check_shape(node)
            self._check_keys(node)
        targets: dict[str, str] = {}
        for node in self.operators:
            target = target_name(node.sink) if node.operator_type is OperatorType.SINK else None
            if target is not None and target in targets:
                reason = f"sinks {targets[target]!r} and {node.operator_id!r} both write {target}"
                raise JobError(reason, code="DUPLICATE_SINK", operator=node.operator_id)
            if target is not None:
                targets[target] = node.operator_id

    def to_execution_graph(self) -> ExecutionGraph:
        """Tasks, and the shuffle edges between operators, found by rule; each edge says why.

        Raises:
            JobError: the job is not valid.
        """
        self.validate()
        return execution_graph(self)

    def run(self, session: Session, **options: Any) -> Result:
        """Run the job on a session; see :meth:`sabot_sql.Session.run_job`."""
        if not hasattr(session, "run_job"):
            hint = "sabot_sql.connect() makes one"
            raise JobError(f"{arguments.shown(session)} is no session", code="NOT_A_SESSION", hint=hint)
        return session.run_job(self, **options)

    def __repr__(self) -> str:
        return f"<JobGraph {self.job_id}: {len(self._operators)} operators, {len(self._connections)} connections>"

    def _check_shape(self, node: StreamOperatorNode) -> None:
        inputs = self.inputs_of(node.operator_id)
        streamed = [c for c in inputs if not c.broadcast]
        match node.base_type:
            case OperatorType.SOURCE if inputs:
                raise _shape(node, f"a SOURCE reads no operator, but it is connected to {_sources(inputs)}")
            case OperatorType.SOURCE:
                return
            case OperatorType.JOIN if len(inputs) != 2:
                raise _shape(node, f"{node.operator_type.name} joins two inputs, but it has {len(inputs)}")
            case OperatorType.UNION if len(inputs) < 2:
                raise _shape(node, f"UNION needs two inputs or more, but it has {len(inputs)}")
            case OperatorType.JOIN | OperatorType.UNION:
                pass
            case _ if len(streamed) != 1:
                hint = "; connect small ones with broadcast=True" if len(streamed) > 1 else ""
                reason = f"{node.operator_type.name} reads one input, but it has {len(streamed)}{hint}"
                raise _shape(node, reason)
        if node.base_type is OperatorType.WINDOW and len(inputs) > 1:
            raise _shape(node, f"{node.operator_type.name} reads one input and nothing else")
        if node.base_type is OperatorType.UNION and len(streamed) != len(inputs):
            raise _shape(node, "a UNION with a broadcast input would have its rows once for each task")
        if not streamed and node.parallelism > 1:
            raise _shape(node, f"all inputs are broadcast: each of {node.parallelism} tasks would give the same rows")
        if node.operator_type is OperatorType.SINK and self.outputs_of(node.operator_id):
            raise _shape(node, "nothing can read a SINK")

    def _check_keys(self, node: StreamOperatorNode) -> None:
        if node.parallelism == 1 or node.key_by:
            return
        kind = node.operator_type
        why = ""
        if node.base_type is OperatorType.GROUP_BY and kind is not OperatorType.DISTINCT:
            why = "rows of one group would meet different tasks"
        elif node.base_type is OperatorType.WINDOW:
            why = "rows of one window would meet different tasks"
        elif node.base_type is OperatorType.JOIN and not any(c.broadcast for c in self.inputs_of(node.operator_id)):
            why = "rows that belong together would meet different tasks"
        elif node.stateful:
            why = "its state would be of whatever rows a task happens to get"
        elif node.base_type is OperatorType.SORT and not node.order_by:
            raise JobError(
                f"operator {node.operator_id!r}: SORT needs order_by", code="KEYS", operator=node.operator_id
            )
        if why:
            reason = (
                f"operator {node.operator_id!r}: {kind.name} without key_by at parallelism {node.parallelism}: {why}"
            )
            hint = "give key_by, or parallelism=1" + (
                ", or connect a small input with broadcast=True" if node.base_type is OperatorType.JOIN else ""
            )
            raise JobError(reason, code="KEYS", hint=hint, operator=node.operator_id)


def _sources(connections: Sequence[Connection]) -> str:
    return ", ".join(c.source for c in connections)


def _shape(node: StreamOperatorNode, reason: str) -> JobError:
    return JobError(f"operator {node.operator_id!r}: {reason}", code="SHAPE", operator=node.operator_id)
