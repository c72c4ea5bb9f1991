"""Which heavy hitters of a measured edge are worth a name: those that make a hash partition far larger than others."""

from __future__ import annotations

from statistics import median_low

from sabot_planner.job.operators import ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.edge_book import EdgeShuffle
from sabot_sql.coordinator.exchange_rules import Read, edge_input
from sabot_sql.protocol.task_spec import KeyQuestion

_LARGE = 2
"""A partition is skewed when it has more than so many times the rows of the median one."""
_PART = 4
"""A key is hot when it holds at least one row in so many of its partition."""
_MOST_KEYS = 3
_FEW_ROWS = 4096
"""A partition of fewer rows keeps nobody waiting, and looking a key up takes a millisecond or two."""


def key_questions(query_id: str, edge: ShuffleEdge, shuffle: EdgeShuffle) -> tuple[KeyQuestion, ...]:
    """What to ask about a measured edge whose outputs are all there, heaviest key first."""
    facts = shuffle.measured
    native = edge.partition_by is None and bool(edge.keys)
    if edge.write_type is not ShuffleEdgeType.HASH or facts is None or not (edge.key_sql or native):
        return ()
    if len(facts.partition_rows) < 2 or (edge.key_sql and len(edge.key_sql) != len(edge.keys)):
        return ()
    limit = max(_LARGE * median_low(facts.partition_rows), _FEW_ROWS)
    questions = []
    for key_hash, rows, _ in facts.heavy:
        partition = partition_of(key_hash, len(facts.partition_rows))
        held = facts.partition_rows[partition]
        if held > limit and rows * _PART >= held:
            read = Read(tuple(range(shuffle.producers)), partition, partition + 1)
            edge_read = edge_input(edge, shuffle, read)
            questions.append(KeyQuestion(query_id, edge_read, edge.keys, edge.key_sql, key_hash))
    return tuple(questions[:_MOST_KEYS])


def partition_of(key_hash: int, partitions: int) -> int:
    """The hash partition of a row, as the partitioner chooses it."""
    return ((key_hash >> 32) * partitions) >> 32
