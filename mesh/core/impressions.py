"""What a client sees of each handler: how many of its calls fail there, and how long they take.

Peers are the measure here, too (mesh.core.gray): handlers of one mesh do the same work, so a client holds
each of them against the median of the others, and complains of one that is far from it. It says so to another
handler, once a second at most, and nothing at all while all are alike. A client whose handlers are bad all
together is ill itself, or its network is: it complains of nobody.

What an answer takes is kept in a histogram whose bounds double. Only what was sent once is timed, since what
was sent again has waited for somebody else before. A call without an answer counts by what it has waited so
far, so a handler that swallows calls is as slow as one that answers late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mesh.core.peers import most_ill, usual

WINDOW_S = 1.0
_LEAST = 5
"""Calls of a handler in a window, or nothing is said of it."""
_FAR_SHARE = 0.15
_FACTOR = 2.0
_FLOOR_S = 0.001
"""Half of what the judge takes for an outlier: it looks for itself, and a client only bears it out."""
_UNIT_S = 1e-5
_BUCKETS = 32
"""10 µs to 6 hours."""


class Complaint(NamedTuple):
    """One handler in one window, and what is usual among the others.

    Attributes:
        nonce: of the process.
        calls: that it answered, or did not.
        failed, usual_failed: share of calls.
        latency_s, usual_latency_s: medians.
    """

    nonce: bytes
    calls: int
    failed: float
    usual_failed: float
    latency_s: float
    usual_latency_s: float


class _Impression:
    """Of one handler, in one window."""

    __slots__ = ("calls", "failed", "failed_in", "times")

    def __init__(self) -> None:
        self.calls = 0
        self.failed = 0
        self.failed_in: set[int] = set()
        """Partitions: one bad key is no bad handler."""
        self.times = [0] * _BUCKETS

    def took(self, span_s: float) -> None:
        self.calls += 1
        bucket = int(span_s / _UNIT_S).bit_length()
        self.times[bucket if bucket < _BUCKETS else _BUCKETS - 1] += 1

    def latency_s(self) -> float:
        """The median, told apart within its bucket by how many of it are below."""
        half, below = self.calls / 2, 0
        for bucket, count in enumerate(self.times):
            if below + count >= half and count:
                low = (1 << bucket >> 1) * _UNIT_S
                high = (1 << bucket) * _UNIT_S
                return low + (high - low) * (half - below) / count
            below += count
        return 0.0


class Impressions:
    """Those of one client.

    Attributes:
        due: when this window is over.
    """

    def __init__(self) -> None:
        self.due = 0.0
        self._seen: dict[bytes, _Impression] = {}

    def __repr__(self) -> str:
        return f"Impressions({len(self._seen)} handlers)"

    def answered(self, nonce: bytes, partition: int, span_s: float, *, failed: bool) -> None:
        """A call that was sent once was carried out, or raised."""
        seen = self._seen.get(nonce)
        if seen is None:
            seen = self._seen[nonce] = _Impression()
        seen.took(span_s)
        if failed:
            seen.failed += 1
            seen.failed_in.add(partition)

    def unanswered(self, nonce: bytes, partition: int, span_s: float) -> None:
        """Its connection broke, or its time ran out, while a call was there."""
        self.answered(nonce, partition, span_s, failed=True)

    def waits(self, nonce: bytes, span_s: float) -> None:
        """At the end of a window a call has waited there for longer than that."""
        self._seen.setdefault(nonce, _Impression()).took(span_s)

    def conclude(self, now: float, owned: Callable[[bytes], int]) -> list[Complaint]:
        """What to complain of; the next window begins.

        Args:
            now: the time, in seconds.
            owned: how many partitions a handler owns; where one of several fails, it is a bad key's fault.
        """
        self.due = now + WINDOW_S
        seen = {nonce: one for nonce, one in self._seen.items() if one.calls >= _LEAST}
        self._seen.clear()
        if len(seen) < 2:
            return []
        failed = {
            n: s.failed / s.calls if _is_spread(s, n, owned) else 0.0 for n, s in seen.items()
        }
        latency = {n: s.latency_s() for n, s in seen.items()}
        usual_failed, usual_latency = usual(failed), usual(latency)
        bad = [
            Complaint(n, s.calls, failed[n], usual_failed[n], latency[n], usual_latency[n])
            for n, s in seen.items()
            if failed[n] > usual_failed[n] + _FAR_SHARE
            or latency[n] > _FACTOR * usual_latency[n] + _FLOOR_S
        ]
        return bad if len(bad) <= most_ill(len(seen)) else []


def _is_spread(seen: _Impression, nonce: bytes, owned: Callable[[bytes], int]) -> bool:
    return not seen.failed or len(seen.failed_in) > 1 or owned(nonce) <= 1
