"""A clock that stands still until a test moves it.

Deadlines, hint waits, pauses before a replacement come when the test says so, and never because a machine was
slow. Only waits of up to `PACE_S` pass by themselves, and take the clock along: they pace what is sent
again, and a test that had to move the clock for those would hang at random.

It may be moved from any thread; what is due is called in the loop that asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import threading
from collections.abc import Callable, Generator

from mesh.net.clock import SYSTEM, Timer

PACE_S = 0.1


class ManualClock:
    """See Clock. It starts at the machine's time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self._started = SYSTEM.now()
        self._wall = SYSTEM.wall()
        self._due: list[_Due] = []
        self.before: list[Callable[[], object]] = []
        """Called before it is moved: what other threads were told to begin is to begin before."""
        self.after: list[Callable[[], object]] = []
        """Called once it has been moved, for those who look at it now and then."""

    def __repr__(self) -> str:
        return f"<ManualClock, {self.passed_s:g} s after its start>"

    def now(self) -> float:
        """See Clock."""
        return self._now

    def wall(self) -> float:
        """See Clock."""
        return self._wall + self.passed_s

    @property
    def passed_s(self) -> float:
        """Seconds by which it has been moved."""
        return self._now - self._started

    def call_later(self, delay_s: float, work: Callable[[], object]) -> Timer:
        """See Clock."""
        loop = asyncio.get_running_loop()
        with self._lock:
            due = _Due(self._now + delay_s, loop, work)
            if delay_s > PACE_S:
                heapq.heappush(self._due, due)
                return due
        due.pacing = loop.call_later(delay_s, self._pass, due)
        return due

    def advance(self, seconds: float) -> Turns:
        """Move it forward.

        Awaited, this returns once what became due has been called: `await m.clock.advance(10)`. A task
        that was only just created has not called anything yet: await something before.

        Args:
            seconds: 0 or more. They pass in one leap, as for a machine that was asleep.

        Raises:
            ValueError: time would go back.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock goes forward: advance by 0 seconds or more, not {seconds!r}")
        for begin in self.before:
            begin()
        self._reach(self._now + seconds)
        for look in self.after:
            look()
        return Turns()

    def _pass(self, due: _Due) -> None:
        self._reach(due.at)
        due.run()

    def _reach(self, now: float) -> None:
        with self._lock:
            self._now = max(self._now, now)
            called = []
            while self._due and self._due[0].at <= self._now:
                called.append(heapq.heappop(self._due))
        for due in called:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
                due.loop.call_soon_threadsafe(due.run)


class Turns:
    """Some turns of the loop, for whoever awaits them."""

    def __await__(self) -> Generator[None, None, None]:
        for _ in range(3):
            yield


class _Due:
    """One timer."""

    __slots__ = ("at", "loop", "pacing", "work")

    def __init__(
        self, at: float, loop: asyncio.AbstractEventLoop, work: Callable[[], object]
    ) -> None:
        self.at = at
        self.loop = loop
        self.work: Callable[[], object] | None = work
        self.pacing: asyncio.TimerHandle | None = None

    def __lt__(self, other: _Due) -> bool:
        return self.at < other.at

    def run(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            work()

    def cancel(self) -> None:
        self.work = None
        if self.pacing is not None:
            self.pacing.cancel()
