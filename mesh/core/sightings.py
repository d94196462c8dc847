"""How a loop's thread is, told from two looks at it: stopped, blocked, burning, starved, or turning.

A single look says little: what is runnable may be running or waiting for a CPU, what sleeps may do so for a
microsecond. Between two looks, the thread has been on a CPU for so long, so many times, and has waited
for one. A thread of a throttled container waits without its waiting being counted (measured: run-delay
stays flat for 0.9 s at a time, and jumps when it next runs): it is runnable and has had no CPU, and that
is all that counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

_MOST_OF_A_CPU = 0.5
_MUCH_WAITING = 0.3
_STOPPED = frozenset("TtF")
_DEAD = frozenset("XZx")


class Condition(enum.Enum):
    """How a loop's thread spends its time."""

    STOPPED = "stopped"
    """By a signal or a debugger, or its cgroup is frozen: it runs when somebody lets it."""
    BLOCKED = "blocked"
    """Asleep, and not once awake."""
    BURNING = "burning"
    """On a CPU of its own, or kept from it by another thread of the same process, which is (the GIL)."""
    STARVED = "starved"
    """It would run if it were given a CPU."""
    WAKING = "waking"
    """It sleeps and wakes: what a loop does that turns, and a method that polls."""


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a thread; sums count from the process's start.

    Attributes:
        at: seconds by the clock of whoever looked.
        state: the letter of /proc, or "F" for frozen.
        cpu_s, delay_s: that the thread was on a CPU, and waited for one.
        slices: how often it was given one.
        process_s: that all threads of the process were on one.
    """

    at: float
    state: str
    cpu_s: float
    delay_s: float
    slices: int
    process_s: float


def condition(before: Sight, after: Sight) -> Condition:
    """How the thread was from one look to the next."""
    span = max(after.at - before.at, 1e-6)
    if after.state in _STOPPED:
        return Condition.STOPPED
    if (after.cpu_s - before.cpu_s) / span >= _MOST_OF_A_CPU:
        return Condition.BURNING
    is_runnable = after.state == "R"
    if after.slices == before.slices:
        return Condition.STARVED if is_runnable else Condition.BLOCKED
    if (after.delay_s - before.delay_s) / span >= _MUCH_WAITING:
        return Condition.STARVED
    if (after.process_s - before.process_s) / span >= _MOST_OF_A_CPU:
        return Condition.BURNING
    return Condition.STARVED if is_runnable and before.state == "R" else Condition.WAKING


def own_s(before: Sight, after: Sight) -> float:
    """Seconds that it has spent of its own will: on a CPU or asleep, and not waiting for one."""
    now = condition(before, after)
    if now in (Condition.STARVED, Condition.STOPPED):
        return max(0.0, after.cpu_s - before.cpu_s)
    return max(0.0, after.at - before.at)


def is_still(sight: Sight, was: str, slices: int) -> bool:
    """Whether a process that is to be killed for how it was is that way at another look.

    Args:
        was: value of the Condition.
        slices: how often its thread had been given a CPU then.
    """
    if sight.state in _DEAD:
        return False
    if was == Condition.STOPPED.value:
        return sight.state in _STOPPED
    if was == Condition.BLOCKED.value:
        return sight.state not in _STOPPED and sight.state != "R" and sight.slices == slices
    return sight.state not in _STOPPED


class Eye:
    """What one observer, a warden or the process's own beats, has seen of a loop's thread.

    Args:
        least_s: between two looks that are held against each other; what is closer together says nothing.

    Attributes:
        last: look that counted.
        condition: as the last two looks show it; None before there were two.
        at: when it was told, by the clock of whoever is told.
        own_s: seconds since `reset` that the loop has spent of its own will.
    """

    __slots__ = ("_least_s", "at", "condition", "last", "own_s")

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self.last: Sight | None = None
        self.condition: Condition | None = None
        self.at = 0.0
        self.own_s = 0.0

    def __repr__(self) -> str:
        return f"Eye({self.condition}, {self.own_s:.3f} s of its own)"

    def see(self, sight: Sight, now: float) -> None:
        """Take one look in."""
        if sight.state in _DEAD:
            return  # its process is about to be proved dead
        if sight.state in _STOPPED:
            self.condition, self.at = Condition.STOPPED, now
        before = self.last
        if before is None:
            self.last = sight
            return
        if sight.at - before.at < self._least_s:
            return
        self.condition, self.at = condition(before, sight), now
        self.own_s += own_s(before, sight)
        self.last = sight

    def reset(self) -> None:
        """The loop has turned: what was before says nothing any more."""
        self.last = self.condition = None
        self.own_s = 0.0
