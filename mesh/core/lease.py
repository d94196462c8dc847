"""How long a process may answer from memory, and when that is over for certain.

A query is answered from memory alone, so its handler has to know that nobody else serves the key by now. It
may believe so for a while after each renewal: a number of its own, higher each time, that it writes into its
grant along with a batch. Whoever wants to take over without a proof of its death revokes the grant first,
which stops further renewals, and then waits for longer than the last one can last.

    handler   sends renewal n at s (its clock); acknowledged: it may answer until s + L·(1 - drift) - margin
    leader    first sees n at t (its clock), so it was sent before t: from t + L·(1 + drift) it covers nothing

Neither side reads the other's clock; all that is assumed is that no clock strays by more than `drift` from
true time, which a suspended machine's does (so CLOCK_BOOTTIME), and a paused hypervisor's, unseen.

It counts from when a renewal was *sent*: the leader may have seen it the very next moment. And it counts only
once that very write is acknowledged: a store that was cut off takes renewals that nobody will ever see
(schedule F10 a).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_AGAIN = 0.25
"""Of `renew_s`: one that failed is sent again so soon."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """One for the whole mesh: a handler and a leader that differ in it would not agree on when it is over.

    Attributes:
        duration_s: L. Longer: a handler that cannot be reached keeps its keys waiting for longer. Shorter:
            a slow store interrupts queries sooner.
        drift: by which part of a second a clock may be off after a second.
        margin_s: that a handler stops before its time, for what is between reading a clock and replying.
        renew_s: a handler that had nothing to write for so long renews all the same.
        read_s: how often the leader reads all renewal numbers.

    Raises:
        ValueError: with these a lease could not be held, or not be trusted.
    """

    duration_s: float = 1.0
    drift: float = 1e-3
    margin_s: float = 0.05
    renew_s: float = 0.25
    read_s: float = 0.1

    def __post_init__(self) -> None:
        for name in ("duration_s", "renew_s", "read_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")
        if not 0 <= self.margin_s < math.inf:
            raise ValueError(f"margin_s is 0 or a number of seconds, not {self.margin_s!r}")
        if not 0 <= self.drift < 1:
            raise ValueError(f"drift is a part of a second, 0 up to 1, not {self.drift!r}")
        if self.valid_s <= self.renew_s:
            raise ValueError(
                f"renew_s {self.renew_s} must be below the {self.valid_s:.3g} s for which a lease of "
                f"duration_s {self.duration_s} is good (less drift {self.drift} and margin_s "
                f"{self.margin_s}): it would run out between two renewals"
            )
        if self.read_s > self.duration_s:
            raise ValueError(
                f"read_s {self.read_s} must not be above duration_s {self.duration_s}: each takeover of a "
                f"handler that cannot be reached would wait for that reading"
            )

    @property
    def valid_s(self) -> float:
        """For so long after it was sent a renewal is good, by the handler's clock."""
        return self.duration_s * (1 - self.drift) - self.margin_s

    @property
    def out_s(self) -> float:
        """So long after it was first seen nobody answers by a renewal, by the leader's clock."""
        return self.duration_s * (1 + self.drift)


class Lease:
    """A handler's own.

    Args:
        timing: of the mesh.

    Attributes:
        until: what is answered at or after this time is not covered; read by each query.
    """

    __slots__ = ("_last", "_last_at", "_renew_s", "_renewed_at", "_sent", "_valid_s", "until")

    def __init__(self, timing: LeaseTiming | None = None) -> None:
        timing = timing or LeaseTiming()
        self._valid_s = timing.valid_s
        self._renew_s = timing.renew_s
        self.until = -math.inf
        self._renewed_at = -math.inf
        self._sent: dict[int, float] = {}
        """Renewals of which nobody has heard yet, and when each was sent; in order of both."""
        self._last = -1
        self._last_at = -math.inf

    def __repr__(self) -> str:
        return f"Lease(until {self.until:.3f}, {len(self._sent)} renewals under way)"

    def sent(self, renewal: int, now: float) -> None:
        """A write with that number is about to leave.

        Args:
            renewal: above all before it.
            now: read before it leaves.

        Raises:
            ValueError: the number was used before: two sends could not be told apart.
        """
        if renewal <= self._last:
            raise ValueError(f"renewal {renewal} after {self._last}: numbers have to grow")
        self._last, self._last_at = renewal, now
        sent = self._sent
        while sent and next(iter(sent.values())) + self._valid_s <= now:
            del sent[next(iter(sent))]  # were it acknowledged now, it would be good for nothing
        sent[renewal] = now

    def acknowledged(self, renewal: int) -> None:
        """The write with that number is on every in-sync node. Others, also later ones, say nothing of it."""
        at = self._sent.pop(renewal, None)
        if at is not None and at > self._renewed_at:
            self._renewed_at = at
            self.until = at + self._valid_s

    def failed(self, renewal: int) -> None:
        """The write with that number will not be heard of any more, or is short of a replica."""
        self._sent.pop(renewal, None)

    def holds(self, now: float) -> bool:
        """Whether an answer is covered.

        Args:
            now: read after the state that it shows.
        """
        return now < self.until

    def is_due(self, now: float) -> bool:
        """A renewal has to be sent for its own sake: none counts that was sent lately, and none that may
        still count is under way.
        """
        wait_s = self._renew_s if self._last in self._sent else self._renew_s * _AGAIN
        return now >= self._renewed_at + self._renew_s and now >= self._last_at + wait_s

    def end(self) -> None:
        """The grant is over: nothing is covered any more, whatever is still acknowledged."""
        self.until = -math.inf
        self._renewed_at = math.inf  # nor by what is still acknowledged
        self._sent.clear()
