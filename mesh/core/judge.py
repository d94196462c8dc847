"""Is it they who are late, or is it me? The judge's doubts about itself.

A judge that gets no CPU hears everybody late. So it measures its own lateness by its own ticks: time that it
has slept through counts for nobody, and for some time after it waits longer for everyone (Lifeguard,
DSN 2018, with up to 8 times the time-out). And where a large share of all failure domains falls silent at
once, it is more likely to be cut off itself: then it acts on proofs only.
"""

from __future__ import annotations

from collections.abc import Iterable

_CALMS_S = 1.0


class Judge:
    """A detector's view of itself.

    Args:
        tick_s: how often it is told that time passes.
        late_s: lateness that doubles its time-outs.
        most: times that they are stretched at most.
        panic_share: of failure domains.

    Attributes:
        stretch: what every time-out is multiplied by just now.
    """

    __slots__ = ("_late_s", "_most", "_panic_share", "_ticked_at", "stretch", "tick_s")

    def __init__(self, tick_s: float, late_s: float, most: float, panic_share: float) -> None:
        self.tick_s = tick_s
        self._late_s = late_s
        self._most = most
        self._panic_share = panic_share
        self._ticked_at: float | None = None
        self.stretch = 1.0

    def __repr__(self) -> str:
        return f"Judge(stretch {self.stretch:.2f})"

    def ticked(self, now: float) -> float:
        """Time passes; returns the seconds of it that the judge has slept through."""
        before, self._ticked_at = self._ticked_at, now
        if before is None:
            return 0.0
        span = now - before
        late = span - self.tick_s
        calmed = 1 + (self.stretch - 1) * max(0.0, 1 - span / _CALMS_S)
        self.stretch = min(self._most, max(calmed, 1 + max(0.0, late - self.tick_s) / self._late_s))
        return late if late >= self._late_s else 0.0

    def panics(self, suspects: Iterable[str], others: Iterable[str]) -> bool:
        """Whether too many failure domains are suspect at once.

        Args:
            suspects: the domains of suspects; one that has others in it is not suspect as a whole.
            others: the domains of everybody else.
        """
        well = set(others)
        ill = set(suspects) - well
        return len(ill) > self._panic_share * len(ill | well)
