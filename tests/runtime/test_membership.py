"""One owner of membership: a lost agent is replaced once, with retries that have a bound; never more than asked for."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from sabot_sql.agent import membership
from sabot_sql.agent.agent import Agent
from sabot_sql.agent.membership import START_ATTEMPTS, Membership
from sabot_sql.errors import AgentError, SessionClosed
from sabot_sql.protocol.members import AgentJoined, AgentLost, AgentNotReplaced, MemberEvent


class FakeAgent:
    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id
        self.alive = True
        self.readable = True
        self.ended = False

    def kill(self) -> None:
        self.alive = False
        self.ended = True

    end = close = kill


class Starter:
    """Starts agents; ``dies`` says which of them, by number, do not come up."""

    def __init__(self, dies: Callable[[int], bool] = lambda _: False) -> None:
        self.numbers = itertools.count(1)
        self.dies = dies
        self.started: list[FakeAgent] = []
        self.most_alive = 0

    def __call__(self, check: Callable[[], None]) -> Agent:
        check()
        number = next(self.numbers)
        if self.dies(number):
            raise AgentError(f"agent-{number} did not start", remote_message="no memory")
        agent = FakeAgent(f"agent-{number}")
        self.started.append(agent)
        self.most_alive = max(self.most_alive, sum(other.alive for other in self.started))
        return cast(Agent, agent)


class Pool:
    def __init__(self, places: int, starter: Starter) -> None:
        self.starter = starter
        self.members = Membership(places, starter, lambda _: None)
        self.members.found([starter(lambda: None) for _ in range(places)])
        self.events: list[MemberEvent] = []
        time.sleep(0.05)  # older than the young of these tests

    def ids(self) -> list[str]:
        return [agent.agent_id for agent in self.members.members]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(membership, "_YOUNG_SECONDS", 0.03)


@pytest.fixture
def make() -> Iterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def build(places: int, starter: Starter | None = None) -> Pool:
        pools.append(Pool(places, starter or Starter()))
        return pools[-1]

    yield build
    for pool in pools:
        pool.members.close()


def comes_true(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_an_agent_that_many_report_lost_is_replaced_once(make: Callable[..., Pool]) -> None:
    pool = make(2)
    for query in range(5):
        pool.members.enter(f"q{query}", pool.events.append if query == 0 else lambda _: None)
    reports = [threading.Thread(target=pool.members.lost, args=("agent-1",)) for _ in range(20)]
    for report in reports:
        report.start()
    pool.members.heal()
    for report in reports:
        report.join()
    pool.members.lost("agent-1")
    assert pool.ids() == ["agent-3", "agent-2"]
    assert pool.events == [AgentLost("agent-1"), AgentJoined("agent-3", "agent-1")]
    assert len(pool.starter.started) == 3


def test_a_replacement_that_dies_while_it_starts_is_tried_again(make: Callable[..., Pool]) -> None:
    pool = make(2, Starter(dies=lambda number: number in (3, 4)))
    pool.members.enter("q", pool.events.append)
    pool.members.lost("agent-2")
    assert comes_true(lambda: len(pool.events) == 2)
    assert pool.events == [AgentLost("agent-2"), AgentJoined("agent-5", "agent-2")]


def test_trying_again_has_an_end_and_the_others_go_on(make: Callable[..., Pool]) -> None:
    pool = make(2, Starter(dies=lambda number: number > 2))
    pool.members.enter("q", pool.events.append)
    pool.members.lost("agent-2")
    assert comes_true(lambda: len(pool.events) == 2)
    given_up = pool.events[1]
    assert isinstance(given_up, AgentNotReplaced)
    assert given_up.agent_id == "agent-2"
    assert isinstance(given_up.error, AgentError)
    assert given_up.error.remote_message == "no memory"
    assert next(pool.starter.numbers) == 3 + START_ATTEMPTS
    assert pool.ids() == ["agent-1"]
    pool.starter.dies = lambda _: False
    pool.members.heal()  # the next query asks again
    assert len(pool.ids()) == 2


def test_when_nobody_is_left_whoever_waits_gets_an_error(make: Callable[..., Pool]) -> None:
    pool = make(2, Starter(dies=lambda number: number > 2))
    pool.members.enter("q", pool.events.append)
    pool.members.lost("agent-1")
    pool.members.lost("agent-2")
    assert comes_true(lambda: sum(isinstance(event, AgentNotReplaced) for event in pool.events) == 2)
    with pytest.raises(AgentError, match="no agent starts in the place of agent-"):
        pool.members.heal()


def test_an_agent_that_is_lost_while_a_query_waits_for_others_is_replaced_too(make: Callable[..., Pool]) -> None:
    """It was lost between queries, when nobody fills places but who waits: that one waited for ever."""
    pool = make(2, Starter(dies=lambda number: number in (3, 5, 6)))
    pool.members.lost("agent-1")
    pool.members.lost("agent-2")
    killed: list[str] = []

    def kill_the_first(*_: object) -> None:
        if not killed and pool.ids():
            killed.extend(pool.ids())
            pool.members.lost(killed[0])

    pool.members.heal(kill_the_first)
    assert killed or len(pool.ids()) == 2
    assert comes_true(lambda: len(pool.ids()) == 2)


def test_agents_that_die_as_soon_as_they_have_joined_are_not_started_for_ever(make: Callable[..., Pool]) -> None:
    pool = make(1)

    def kill_at_once(event: MemberEvent) -> None:
        pool.events.append(event)
        if isinstance(event, AgentJoined):
            pool.starter.started[-1].alive = False

    pool.members.enter("q", kill_at_once)
    pool.members.lost("agent-1")
    assert comes_true(lambda: any(isinstance(event, AgentNotReplaced) for event in pool.events))
    assert len(pool.starter.started) <= 1 + START_ATTEMPTS


def test_a_start_that_hangs_has_an_end(make: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "REPLACE_SECONDS", 0.1)
    pool = make(1)

    def hang(check: Callable[[], None]) -> Agent:
        while True:
            time.sleep(0.01)
            check()

    monkeypatch.setattr(pool.members, "_start", hang)
    pool.members.enter("q", pool.events.append)
    pool.members.lost("agent-1")
    assert comes_true(lambda: isinstance(pool.events[-1], AgentNotReplaced))


def test_an_unforeseen_failure_of_a_start_is_an_answer_too(make: Callable[..., Pool]) -> None:
    pool = make(1)

    def broken(_: int) -> bool:
        raise ZeroDivisionError("a defect")

    pool.starter.dies = broken
    pool.members.enter("q", pool.events.append)
    pool.members.lost("agent-1")
    assert comes_true(lambda: isinstance(pool.events[-1], AgentNotReplaced))
    assert "a defect" in str(pool.events[-1])


def test_between_queries_nobody_is_started(make: Callable[..., Pool]) -> None:
    pool = make(2)
    pool.members.lost("agent-1")
    time.sleep(0.05)
    assert len(pool.starter.started) == 2
    assert [agent.agent_id for agent in pool.members.enter("q", pool.events.append)] == ["agent-2"]
    assert comes_true(lambda: pool.events == [AgentJoined("agent-3", "agent-1")])


def test_a_storm_of_losses_never_makes_more_agents_than_asked_for(make: Callable[..., Pool]) -> None:
    pool = make(3, Starter(dies=lambda number: number % 7 == 0))
    pool.members.enter("q", lambda _: None)
    end = time.monotonic() + 1

    def storm() -> None:
        while time.monotonic() < end:
            for agent in pool.members.members:
                pool.members.lost(agent.agent_id)
            pool.members.heal()
            time.sleep(0.04)

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.members.heal()
    assert len(pool.ids()) == 3
    assert pool.starter.most_alive <= 3
    assert len(pool.starter.started) > 6


def test_a_closed_pool_starts_nobody(make: Callable[..., Pool]) -> None:
    pool = make(2)
    pool.members.enter("q", pool.events.append)
    assert len(pool.members.close()) == 2
    pool.members.lost("agent-1")
    time.sleep(0.02)
    assert len(pool.starter.started) == 2
    with pytest.raises(SessionClosed):
        pool.members.heal()
