"""The clock of the shells. Cores get `now` as an argument.

CLOCK_BOOTTIME, since leases must not outlast a suspended machine's sleep; where there is none (macOS, which
runs clients only), CLOCK_MONOTONIC. Read anew at each call: an event loop's own time is cached for the
whole turn and, in uvloop, whole milliseconds, which is too coarse for phases of a takeover.

What is due at some time (a deadline, a hint's end, a replacement) is told by the `Clock` that its part was
made with, so that a test can move it by hand (mesh.testing.clock). What only paces sockets and retries
sleeps on the loop: no test would want to decide when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

COUNTS_SLEEP = hasattr(time, "CLOCK_BOOTTIME")
"""Whether `now` goes on while the machine is suspended."""

now: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if COUNTS_SLEEP else time.monotonic
)
"""Seconds; differences only. The same for all processes of one machine."""

wall = time.time
"""Unix seconds, for people to read; never for durations."""


def asleep() -> float:
    """Seconds that this machine was suspended and that `now` does not count; differences only.

    Where `now` does not count them, steps of the wall clock are in it, too.
    """
    return 0.0 if COUNTS_SLEEP else time.time() - time.monotonic()


def ahead() -> float:
    """Seconds by which `now` is ahead of `time.monotonic()`: those that this machine was ever suspended."""
    return now() - time.monotonic() if COUNTS_SLEEP else 0.0


class Timer(Protocol):
    """Something that is due."""

    def cancel(self) -> None:
        """It is not wanted any more."""
        ...


class Clock(Protocol):
    """Who tells a handler, a supervisor or a client what time it is."""

    def now(self) -> float:
        """Seconds; differences only."""
        ...

    def wall(self) -> float:
        """Unix seconds, for people to read."""
        ...

    def call_later(self, delay_s: float, work: Callable[[], object]) -> Timer:
        """Have the running loop call this once that much time has passed."""
        ...


class SystemClock:
    """The machine's own time."""

    __slots__ = ()
    now = staticmethod(now)
    wall = staticmethod(time.time)

    def __repr__(self) -> str:
        return "SystemClock()"

    def call_later(self, delay_s: float, work: Callable[[], object]) -> Timer:
        """See Clock."""
        return asyncio.get_running_loop().call_later(delay_s, work)


SYSTEM = SystemClock()
