"""A share on its way, a step at a time: a tenth, a half, all of what there is to go.

Nothing moves faster than its receiver can take. So a step is due a while after the one before it, and is
taken only where whoever receives is clear; one who is not is waited for. The first step is small, since it is
what a mistake costs.
"""

from __future__ import annotations

from collections.abc import Sequence

STEPS = (0.1, 0.5, 1.0)
"""Of the way, after each step."""


class Ramp:
    """One share's way.

    Args:
        begin: the share before the first step.
        end: after the last one.
        every_s: between two steps, in seconds.
        at: when the first one is due.
        steps: how far each of them goes, of the whole way; rising, and 1.0 at last.

    Attributes:
        share: as it is now.
        taken: steps so far.
    """

    __slots__ = ("_begin", "_due", "_end", "_every_s", "_steps", "share", "taken")

    def __init__(
        self,
        begin: float,
        end: float,
        every_s: float,
        at: float,
        steps: Sequence[float] = STEPS,
    ) -> None:
        self._begin, self._end = begin, end
        self._every_s = every_s
        self._due = at
        self._steps = steps
        self.share = begin
        self.taken = 0

    def __repr__(self) -> str:
        return f"Ramp({self._begin:g} to {self._end:g}, at {self.share:g})"

    @property
    def is_over(self) -> bool:
        """The last step is taken."""
        return self.taken == len(self._steps)

    def step(self, now: float, *, clear: bool) -> bool:
        """Take the next step, if its time has come.

        Args:
            now: in seconds.
            clear: whoever receives can take more.

        Returns:
            Whether the share has changed.
        """
        if self.is_over or now < self._due or not clear:
            return False
        way = self._steps[self.taken]
        self.taken += 1
        self.share = self._begin * (1 - way) + self._end * way
        self._due = now + self._every_s
        return True

    def hasten(self, now: float, every_s: float) -> None:
        """The next step is due at once, and those after it so much later each."""
        self._due, self._every_s = min(self._due, now), min(self._every_s, every_s)

    def put_off(self, until: float) -> None:
        """No step before then."""
        self._due = max(self._due, until)
