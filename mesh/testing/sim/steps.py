"""Steps: what a simulated process does at once, and whom it belongs to.

A handle belongs to the process of its context; one made in a context of nobody (a fresh
`contextvars.Context()`) belongs to the process that made it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

RUNNING, HELD, DEAD = 0, 1, 2
"""States of a process."""


class Clocked(Protocol):
    """What a process's time goes by, where it is not the loop's own."""

    def local(self, virtual: float) -> float:
        """What it shows at a virtual time."""
        ...

    def virtual(self, local: float) -> float:
        """When it will show that."""
        ...


class Runs(Protocol):
    """Whom a handle belongs to; see mesh.testing.sim.process."""

    state: int
    skewed: bool

    @property
    def clock(self) -> Clocked:
        """Its clock, of interest where it is skewed."""
        ...

    def hold(self, handle: SimHandle) -> None:
        """It is not free to take this step now."""
        ...


current: contextvars.ContextVar[Runs | None] = contextvars.ContextVar("process", default=None)
"""The process that a context belongs to."""


class _Outside:
    """Whoever watches a simulation, and is never killed."""

    state = RUNNING
    skewed = False

    def __repr__(self) -> str:
        return "<outside of all processes>"

    @property
    def clock(self) -> NoReturn:
        raise NotImplementedError

    def hold(self, handle: SimHandle) -> None:
        raise NotImplementedError


OUTSIDE = _Outside()


class SimHandle(asyncio.TimerHandle):
    """One step of a process, now or later."""

    __slots__ = ("process",)

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        process: Runs | None,
        when: float,
    ) -> None:
        # Not the parent's, which asks the loop for its debug mode and fills in what only that reads.
        self._callback: Any = callback
        self._args: Any = args
        self._context = context
        self._cancelled = False
        self._when = when
        self.process = process

    def __repr__(self) -> str:
        what = "cancelled" if self._cancelled else repr(self._callback)
        return f"<SimHandle of {self.process!r}: {what}>"

    def cancel(self) -> None:
        """It is not wanted any more."""
        self._cancelled = True
        self._callback = self._args = None

    def cancelled(self) -> bool:
        """Whether it was."""
        return self._cancelled
