"""Neither well nor dead: handlers that are far from their peers, and what load they are given.

No threshold is right for every application, but handlers of one mesh do the same work: one that is four
times slower than the median of the others, or fails far more of its calls, or waits for a CPU while they do
not, is ill, whatever its figures are. It loses its load and not its life: its weight falls, and handovers
take its partitions away at their own pace.

    well --outlier for gray_s--> shed (weight 0) --well_s without a sign--> a tenth --> half --> all of it
                                   ^------------------- a sign, well_s doubled ------------------'

Only a third of the handlers, and never the last one, is shed at the same time: where more are slow, it is
not they who are ill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

from mesh.core.pulse import Pulse
from mesh.core.timing import Timing
from mesh.core.watch_signals import Reweigh

_STEPS = (0.1, 0.5, 1.0)
"""Shares of its weight that one that was shed is given back, one after the other."""
_MOST_DOUBLINGS = 5
_LEAST_TIMED = 5
"""Calls in a window, or its latency says nothing."""
_LEAST_CALLS = 10
_FAR_SHARE = 0.3
"""Of calls that fail, or of time that is spent waiting for a CPU: so far above the median is an outlier."""
_LAG_FLOOR_S = 0.05


class _Patient:
    """One handler, as its beats of the last `gray_s` show it."""

    def __init__(self, nonce: bytes, weight: float) -> None:
        self.nonce = nonce
        self.weight = weight
        self.beats: deque[tuple[float, Pulse]] = deque()
        self.sign = ""
        self.since: float | None = None
        """From when on it has been an outlier without a break."""
        self.step: int | None = None
        """How much of its weight it was given back; None where nothing was ever taken."""
        self.due = 0.0
        """When it is given more, if there is no sign until then."""
        self.doublings = 0

    @property
    def is_shed(self) -> bool:
        return self.step is not None

    def beat(self, pulse: Pulse, now: float, window_s: float) -> None:
        self.beats.append((now, pulse))
        while self.beats[0][0] < now - window_s:
            self.beats.popleft()

    def latency_s(self) -> float | None:
        beats = [pulse for _, pulse in self.beats]
        if sum(pulse.timed for pulse in beats) < _LEAST_TIMED:
            return None
        return median(pulse.latency_ms for pulse in beats if pulse.timed) / 1000

    def lag_s(self) -> float | None:
        if len(self.beats) < _LEAST_TIMED:
            return None
        return median(pulse.lag_ms for _, pulse in self.beats) / 1000

    def error_share(self) -> float | None:
        if len(self.beats) < _LEAST_TIMED:
            return None
        first, last = self.beats[0][1], self.beats[-1][1]
        errors = last.errors - first.errors
        calls = errors + last.done - first.done
        return errors / calls if calls >= _LEAST_CALLS else None

    def waiting_share(self) -> float | None:
        if len(self.beats) < _LEAST_TIMED:
            return None
        first, last = self.beats[0][1], self.beats[-1][1]
        span_ms = last.at_ms - first.at_ms
        return (last.delay_ms - first.delay_ms) / span_ms if span_ms > 0 else None


class Ward:
    """All handlers of a mesh, compared.

    Args:
        timing: of the mesh.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._patients: dict[bytes, _Patient] = {}

    def __repr__(self) -> str:
        return f"Ward({len(self._patients)} handlers, {len(self.shed)} without their load)"

    @property
    def shed(self) -> list[bytes]:
        """Those that hold less than their weight."""
        return [p.nonce for p in self._patients.values() if p.is_shed]

    def join(self, nonce: bytes, weight: float) -> None:
        """Compare that one, too."""
        self._patients.setdefault(nonce, _Patient(nonce, weight))

    def leave(self, nonce: bytes) -> None:
        """It is gone."""
        self._patients.pop(nonce, None)

    def beat(self, pulse: Pulse, now: float) -> None:
        """It says how it is."""
        patient = self._patients.get(pulse.nonce)
        if patient is not None:
            patient.beat(pulse, now, self._timing.gray_s)

    def slept(self, span_s: float) -> None:
        """The judge did: what nobody looked at counts for nobody."""
        for patient in self._patients.values():
            patient.beats.clear()
            patient.since = None
            patient.due += span_s

    def starves(self, nonce: bytes, now: float) -> list[Reweigh]:
        """The detector has found that its loop gets no CPU."""
        patient = self._patients.get(nonce)
        return self._shed(patient, "starved", now) if patient is not None else []

    def examine(self, now: float) -> list[Reweigh]:
        """Compare everybody; call a few times in each `gray_s`."""
        orders: list[Reweigh] = []
        signs = self._signs()
        for patient in list(self._patients.values()):
            patient.sign = signs.get(patient.nonce, "")
            if not patient.sign:
                patient.since = None
                orders += self._give_back(patient, now)
                continue
            if patient.since is None:
                patient.since = now
            if now - patient.since >= self._timing.gray_s:
                orders += self._shed(patient, "gray", now)
        return orders

    def sign_of(self, nonce: bytes) -> str:
        """What is wrong with it, in words; empty for nothing."""
        patient = self._patients.get(nonce)
        return patient.sign if patient is not None else ""

    def _signs(self) -> dict[bytes, str]:
        timing, signs = self._timing, dict[bytes, str]()
        all_ = self._patients.values()
        latency = {p.nonce: p.latency_s() for p in all_}
        lag = {p.nonce: p.lag_s() for p in all_}
        errors = {p.nonce: p.error_share() for p in all_}
        waiting = {p.nonce: p.waiting_share() for p in all_}
        for nonce in self._patients:
            for what, values, factor, floor in (
                ("latency", latency, timing.gray_factor, timing.gray_floor_s),
                ("loop lag", lag, timing.gray_factor, _LAG_FLOOR_S),
                ("errors", errors, 1.0, _FAR_SHARE),
                ("waiting for a CPU", waiting, 1.0, _FAR_SHARE),
            ):
                own = values[nonce]
                peers = _others(values, nonce)
                if own is None or not peers:
                    continue
                usual = median(peers)
                if own > factor * usual + floor:
                    signs.setdefault(nonce, f"{what} {own:.3g}, its peers' {usual:.3g}")
        return signs

    def _shed(self, patient: _Patient, why: str, now: float) -> list[Reweigh]:
        if patient.step == 0:
            patient.due = max(patient.due, now + self._timing.well_s)
            return []
        if not patient.is_shed and len(self.shed) >= self._most_shed():
            return []
        if patient.is_shed or now < patient.due:  # it had hardly been given its load back
            patient.doublings = min(_MOST_DOUBLINGS, patient.doublings + 1)
        else:
            patient.doublings = 0
        patient.step = 0
        patient.due = now + self._timing.well_s * 2**patient.doublings
        return [Reweigh(patient.nonce, 0.0, why)]

    def _most_shed(self) -> int:
        number = len(self._patients)
        return 0 if number < 2 else max(1, number // 3)

    def _give_back(self, patient: _Patient, now: float) -> list[Reweigh]:
        if patient.step is None or now < patient.due:
            return []
        share = _STEPS[patient.step]
        patient.step = patient.step + 1 if patient.step + 1 < len(_STEPS) else None
        patient.due = now + self._timing.well_s * (1 if patient.is_shed else 2**patient.doublings)
        return [Reweigh(patient.nonce, patient.weight * share, "well")]


def _others(values: dict[bytes, float | None], nonce: bytes) -> list[float]:
    found: Iterable[float | None] = (v for n, v in values.items() if n != nonce)
    return [v for v in found if v is not None]
