"""Asking several servers the same at once, where one good answer is nearly enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def ask_all(
    asks: Iterable[Coroutine[Any, Any, T]],
    *,
    is_good: Callable[[T], bool],
    grace_s: float,
    is_best: Callable[[T], bool] = lambda _: False,
    drop: Callable[[T], None] = lambda _: None,
) -> list[T]:
    """The answers of all; once one is good, of those that come within `grace_s` seconds of it.

    A server that is stopped must not cost everyone the whole time-out, and one that objects must be
    heard. An ask puts its failure into its answer and raises nothing.

    Args:
        is_best: whether a good answer is one for which no other is waited.
        drop: disposes of an answer that nobody gets, since this was cancelled.
    """
    asking: list[asyncio.Task[T]] = []

    def answers() -> list[T]:
        return [task.result() for task in asking if task.done() and not task.cancelled()]

    try:
        async with asyncio.TaskGroup() as group:
            asking += [group.create_task(ask) for ask in asks]
            waiting = set(asking)
            while waiting and not any(is_good(a) and is_best(a) for a in answers()):
                finished, waiting = await asyncio.wait(
                    waiting,
                    timeout=grace_s if any(map(is_good, answers())) else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not finished:
                    break
            for task in asking:  # in order; to those that have ended it is nothing
                task.cancel()
    except BaseException:
        for answer in answers():
            drop(answer)
        raise
    return answers()
