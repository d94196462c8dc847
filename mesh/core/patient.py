"""One handler, as its beats and its clients show it, and the share of its load that it is left with."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import median

from mesh.core.impressions import WINDOW_S, Complaint
from mesh.core.pulse import Pulse
from mesh.core.ramp import Ramp

_LEAST_BEATS = 3
"""In a window, or they say nothing."""
_LEAST_TIMED = 5
_LEAST_CALLS = 10
_HEARD_S = 2 * WINDOW_S
"""A complaint counts for so long: clients repeat theirs in each window, and one of them may get lost."""


class Patient:
    """Made by a Ward.

    Attributes:
        beats: of the last half of `gray_s`, each with its time.
        complaints: the last of each machine that clients are on, with its time.
        sign: what is wrong with it; empty for nothing.
        is_felt: clients see it, too.
        since: from when on it has had a sign without a break.
        starves_until: until when its loop is known to get no CPU.
        share: of its weight, that it is to hold.
        falling: its way to nothing; rising: back to all of it.
        well_at: when it is given more, if there is no sign until then. After it has all of it again: until
            when a sign is a relapse.
        doublings: of `well_s`, one for each relapse.
        peers_s: usual latency of the others when it began to fall.
    """

    __slots__ = (
        "beats",
        "complaints",
        "doublings",
        "falling",
        "is_felt",
        "nonce",
        "peers_s",
        "rising",
        "share",
        "sign",
        "since",
        "starves_until",
        "weight",
        "well_at",
    )

    def __init__(self, nonce: bytes, weight: float) -> None:
        self.nonce = nonce
        self.weight = weight
        self.beats: deque[tuple[float, Pulse]] = deque()
        self.complaints: dict[str, tuple[float, Complaint]] = {}
        self.sign = ""
        self.is_felt = False
        self.since: float | None = None
        self.starves_until = -math.inf
        self.share = 1.0
        self.falling: Ramp | None = None
        self.rising: Ramp | None = None
        self.well_at = 0.0
        self.doublings = 0
        self.peers_s: float | None = None

    def __repr__(self) -> str:
        return f"Patient({self.nonce.hex()[:8]}, share {self.share:g}, {self.sign or 'well'})"

    @property
    def is_relieved(self) -> bool:
        """It holds less than its weight, or is about to."""
        return self.share < 1 or self.falling is not None

    def beat(self, pulse: Pulse, now: float, window_s: float) -> None:
        """It beats."""
        self.beats.append((now, pulse))
        while self.beats[0][0] < now - window_s:
            self.beats.popleft()

    def put_off(self, span_s: float) -> None:
        """Whatever is due is due so much later."""
        self.well_at += span_s
        if self.rising is not None:
            self.rising.put_off(self.well_at)

    def complained_of(self, now: float) -> list[Complaint]:
        """What counts just now: one for each machine."""
        late = [by for by, (at, _) in self.complaints.items() if at < now - _HEARD_S]
        for by in late:
            del self.complaints[by]
        return [complaint for _, complaint in self.complaints.values()]

    # ------------------------------------------------- figures; None where there are too few

    def latency_s(self) -> float | None:
        """Of a call, the median over beats."""
        beats = [pulse for _, pulse in self.beats]
        if sum(pulse.timed for pulse in beats) < _LEAST_TIMED:
            return None
        return median(pulse.latency_ms for pulse in beats if pulse.timed) / 1000

    def lag_s(self) -> float | None:
        """Of its loop."""
        return self._usual(lambda pulse: pulse.lag_ms / 1000)

    def pending(self) -> float | None:
        """Calls in memory."""
        return self._usual(lambda pulse: pulse.pending)

    def memory_mib(self) -> float | None:
        """Resident."""
        return self._usual(lambda pulse: pulse.memory_mib)

    def error_share(self) -> float | None:
        """Of the calls that have ended."""
        if len(self.beats) < _LEAST_BEATS:
            return None
        first, last = self.beats[0][1], self.beats[-1][1]
        errors = last.errors - first.errors
        calls = errors + last.done - first.done
        return errors / calls if calls >= _LEAST_CALLS else None

    def waiting_share(self) -> float | None:
        """Of the time that its loop's thread has waited for a CPU."""
        return self._rate(lambda pulse: pulse.delay_ms)

    def cpu_share(self) -> float | None:
        """Of a core that all its threads have had."""
        return self._rate(lambda pulse: pulse.process_ms)

    def _usual(self, figure: Callable[[Pulse], float]) -> float | None:
        if len(self.beats) < _LEAST_BEATS:
            return None
        return median(figure(pulse) for _, pulse in self.beats)

    def _rate(self, sum_ms: Callable[[Pulse], float]) -> float | None:
        if len(self.beats) < _LEAST_BEATS:
            return None
        first, last = self.beats[0][1], self.beats[-1][1]
        span_ms = last.at_ms - first.at_ms
        return (sum_ms(last) - sum_ms(first)) / span_ms if span_ms > 0 else None
