"""Each message is handled once and in order, however often connections break and whatever was lost with them."""

from __future__ import annotations

import random
from collections import deque

import pytest

from sabot_sql.protocol.codec import MalformedMessage
from sabot_sql.protocol.ledger import Ledger

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("seed", range(200))
def test_every_message_arrives_once_and_in_order_over_connections_that_break(seed: int) -> None:
    chance = random.Random(seed)
    ends = {"session": Ledger(), "agent": Ledger()}
    others = {"session": "agent", "agent": "session"}
    sent: dict[str, list[bytes]] = {"session": [], "agent": []}
    handled: dict[str, list[bytes]] = {"session": [], "agent": []}
    wires: dict[str, deque[bytes]] = {"session": deque(), "agent": deque()}

    def deliver(to: str) -> None:
        data = ends[to].accept(wires[to].popleft())
        if data is not None:
            handled[to].append(data)
        acknowledgement = ends[to].acknowledgement()
        if acknowledgement is not None:
            wires[others[to]].append(acknowledgement)

    for step in range(400):
        end = chance.choice(["session", "agent"])
        match chance.choices(["send", "deliver", "break"], [5, 5, 1])[0]:
            case "send":
                data = f"{end} {step}".encode()
                sent[end].append(data)
                wires[others[end]].append(ends[end].number(data))
            case "deliver" if wires[end]:
                deliver(end)
            case "break":  # what is on the way is lost, and both ends say what they have
                for to, wire in wires.items():
                    wire.clear()
                    wire.extend(ends[others[to]].resume(ends[to].received))
    while any(wires.values()):
        for to, wire in wires.items():
            if wire:
                deliver(to)
    assert handled["agent"] == sent["session"]
    assert handled["session"] == sent["agent"]


def test_what_arrived_is_not_kept() -> None:
    ours, theirs = Ledger(), Ledger()
    for number in range(40):
        theirs.accept(ours.number(b"x" * number))
    assert len(ours.resume(0)) == 40
    acknowledgement = theirs.acknowledgement()
    assert acknowledgement is not None
    assert ours.accept(acknowledgement) is None
    assert ours.resume(40) == []
    assert theirs.acknowledgement() is None


def test_messages_that_cannot_be_are_refused() -> None:
    ours, theirs = Ledger(), Ledger()
    first, second = ours.number(b"first"), ours.number(b"second")
    with pytest.raises(MalformedMessage, match="message 2 came after message 0"):
        theirs.accept(second)
    assert theirs.accept(first) == b"first"
    assert theirs.accept(first) is None
    with pytest.raises(MalformedMessage, match="without its numbers"):
        theirs.accept(b"short")
    with pytest.raises(MalformedMessage, match="message 3 is said to have arrived, of 2"):
        ours.resume(3)
