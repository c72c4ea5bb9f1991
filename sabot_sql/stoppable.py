"""Calls into code that may never return, such as a user's stream: they are waited for, and can be left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

_T = TypeVar("_T")

_CHECK_SECONDS = 0.05

# Belongs to the thread that runs a query: what blocks lies many calls below whoever knows how it is stopped.
_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def stopped_by(check: Callable[[], None]) -> Iterator[None]:
    """While it is open, ``check`` raises in this thread's :func:`left_when_stopped` when that should not go on."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def left_when_stopped(work: Callable[[], _T], name: str) -> _T:
    """The value of ``work``, which runs in a thread of its own; when the query is stopped that thread is left alone.

    Raises:
        QueryCancelled: the query was stopped before the value was there.
    """
    check = _check.get()
    if check is None:
        return work()
    outcome: list[_T] = []
    failure: list[BaseException] = []
    ended = threading.Event()

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001  it is raised again in the thread that waits
            failure.append(error)
        finally:
            ended.set()

    threading.Thread(target=target, name=f"sabot-{name}", daemon=True).start()
    while not ended.wait(_CHECK_SECONDS):
        check()
    if failure:
        raise failure.pop()
    return outcome.pop()


def within(seconds: float, work: Callable[[], None], name: str) -> bool:
    """Whether ``work`` ended in time; otherwise it goes on in a thread that nobody waits for."""
    thread = threading.Thread(target=work, name=f"sabot-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter ends and starts none
        work()
        return True
    thread.join(seconds)
    return not thread.is_alive()
