"""Neither well nor dead: handlers that are far from their peers, and what load they are given.

No threshold is right for every application, but handlers of one mesh do the same work: one that is four
times slower than the median of the others, or fails far more of its calls, or waits for a CPU while they do
not, may be ill, whatever its figures are. Two look at it, and neither is believed alone:

    its own beats      say that it is an outlier. Busy handlers are that, too, and serve well
    clients            see the same in their calls. One client may be ill itself, or lie

An outlier in its beats that a client sees, too, is ill. One whose beats are as usual is so only where
several machines of clients, and a third of them all, see it far off: the network between is bad, on one side.
An error that an application raises everywhere is no sign, since its peers have it, too.

It loses its load and not its life: its weight falls in steps, and handovers take its partitions away at their
own pace. The first step is small and may have been a mistake; from the second on it is emptied. Whoever
receives must not be the worse for it, or the next step waits. One that starves is emptied at once.

    well --outlier for gray_s--> 90 % --> 50 % --> nothing --well_s without a sign--> 10 % --> 50 % --> all
                                  ^------------ a sign, at half the distance; well_s doubled ------------'

Only a third of the handlers, and never the last one, is relieved at the same time: where more are slow, it is
not they who are ill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mesh.core.impressions import Complaint
from mesh.core.patient import Patient
from mesh.core.peers import most_ill, usual
from mesh.core.pulse import Pulse
from mesh.core.ramp import Ramp
from mesh.core.timing import Timing
from mesh.core.watch_signals import Reweigh

_MOST_DOUBLINGS = 5
_FAR_SHARE = 0.3
"""Of calls that fail, or of time that is spent waiting for a CPU: so far above the median is an outlier."""
_CPU_FACTOR, _CPU_SHARE = 1.5, 0.4
"""Of a core. A handler that has work for a whole one, where others have little, is no outlier by less."""
_LAG_FLOOR_S = 0.05
_QUEUE_FLOOR = 50.0
_MEMORY_FACTOR, _MEMORY_FLOOR_MIB = 2.0, 256.0
_RELAPSE = 0.5
"""Whoever was relieved is an outlier at half the distance, or it would be well as soon as it has less."""
_LEAST_OF_CLIENTS = 1 / 3
"""Of the machines that clients are on, where only they see something."""


class _Figure(NamedTuple):
    """One thing that handlers are compared by; outliers are above factor · usual + floor."""

    name: str
    of: Callable[[Patient], float | None]
    factor: float
    floor: float

    def bound(self, among_others: float, distance: float) -> float:
        """What is above this is far off; `distance`: 1, or less for whoever is looked at more closely."""
        return among_others + distance * ((self.factor - 1) * among_others + self.floor)


class Ward:
    """All handlers of a mesh, compared.

    Args:
        timing: of the mesh.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._patients: dict[bytes, Patient] = {}
        self._machines = 0
        """How many have clients, as was last heard."""
        factor = timing.gray_factor
        self._latency = _Figure("latency", Patient.latency_s, factor, timing.gray_floor_s)
        self._errors = _Figure("errors", Patient.error_share, 1.0, _FAR_SHARE)
        self._figures = (
            self._latency,
            self._errors,
            _Figure("loop lag", Patient.lag_s, factor, _LAG_FLOOR_S),
            _Figure("waiting for a CPU", Patient.waiting_share, 1.0, _FAR_SHARE),
            _Figure("CPU", Patient.cpu_share, _CPU_FACTOR, _CPU_SHARE),
            _Figure("calls in memory", Patient.pending, factor, _QUEUE_FLOOR),
            _Figure("MiB of memory", Patient.memory_mib, _MEMORY_FACTOR, _MEMORY_FLOOR_MIB),
        )

    def __repr__(self) -> str:
        return f"Ward({len(self._patients)} handlers, {len(self.relieved)} without their load)"

    @property
    def relieved(self) -> list[bytes]:
        """Those that hold less than their weight, or are about to."""
        return [p.nonce for p in self._patients.values() if p.is_relieved]

    def join(self, nonce: bytes, weight: float) -> None:
        """Compare that one, too."""
        self._patients.setdefault(nonce, Patient(nonce, weight))

    def leave(self, nonce: bytes) -> None:
        """It is gone."""
        self._patients.pop(nonce, None)

    def beat(self, pulse: Pulse, now: float) -> None:
        """It says how it is."""
        patient = self._patients.get(pulse.nonce)
        if patient is not None:
            patient.beat(pulse, now, self._timing.gray_s / 2)

    def hear(self, by: str, among: int, about: Sequence[Complaint], now: float) -> None:
        """A client on the machine `by`, one of so many, says how they are."""
        self._machines = among
        for complaint in about:
            patient = self._patients.get(complaint.nonce)
            if patient is not None:
                patient.complaints[by] = now, complaint

    def slept(self, span_s: float) -> None:
        """The judge did: what nobody looked at counts for nobody."""
        for patient in self._patients.values():
            patient.beats.clear()
            patient.complaints.clear()
            patient.since = None
            patient.put_off(span_s)

    def starves(self, nonce: bytes, now: float) -> None:
        """The detector has found that its loop gets no CPU: nobody else has to see it."""
        patient = self._patients.get(nonce)
        if patient is not None:
            patient.starves_until = now + self._timing.gray_s / 2

    def examine(self, now: float) -> list[Reweigh]:
        """Compare everybody; call a few times in each `gray_s`."""
        orders: list[Reweigh] = []
        self._look_for_signs(now)
        is_full = False
        for patient in self._patients.values():
            if not patient.sign:
                patient.since = None
            elif patient.since is None:
                patient.since = now
            starves = now < patient.starves_until
            lasts = patient.since is not None and now - patient.since >= self._timing.gray_s
            if starves or patient.falling is not None or (lasts and patient.is_felt):
                if patient.is_relieved or self._may_relieve:
                    orders += self._relieve(patient, now, starves=starves)
                else:
                    is_full = True
            elif not patient.is_felt:
                orders += self._give_back(patient, now)
        if is_full:
            self._make_room(now)
        return orders

    def sign_of(self, nonce: bytes) -> str:
        """What is wrong with it, in words; empty for nothing."""
        patient = self._patients.get(nonce)
        return patient.sign if patient is not None else ""

    # ------------------------------------------------------------------- signs

    def _look_for_signs(self, now: float) -> None:
        in_beats = self._outliers()
        for nonce, patient in self._patients.items():
            seen = patient.complained_of(now)
            far = [complaint for complaint in seen if self._is_far(complaint, patient)]
            least = max(self._timing.gray_clients, math.ceil(self._machines * _LEAST_OF_CLIENTS))
            if nonce in in_beats:
                patient.sign, patient.is_felt = in_beats[nonce], bool(seen)
            elif len(far) >= least:
                text = f"{len(far)} of {self._machines} clients: {_in_words(far[0])}"
                patient.sign, patient.is_felt = text, True
            else:
                patient.sign, patient.is_felt = "", False

    def _outliers(self) -> dict[bytes, str]:
        found: dict[bytes, str] = {}
        for figure in self._figures:
            own = {n: figure.of(p) for n, p in self._patients.items()}
            values = {n: value for n, value in own.items() if value is not None}
            for nonce, among_others in usual(values).items():
                if values[nonce] > figure.bound(among_others, _distance(self._patients[nonce])):
                    text = f"{figure.name} {values[nonce]:.3g}, its peers' {among_others:.3g}"
                    found.setdefault(nonce, text)
        return found

    def _is_far(self, seen: Complaint, patient: Patient) -> bool:
        """Whether a client alone would be right, were it to be believed."""
        distance = _distance(patient)
        return seen.failed > self._errors.bound(
            seen.usual_failed, distance
        ) or seen.latency_s > self._latency.bound(seen.usual_latency_s, distance)

    # ------------------------------------------------------------------- load

    def _relieve(self, patient: Patient, now: float, *, starves: bool) -> list[Reweigh]:
        """It is ill: begin to take its load away, or go on with it."""
        if patient.share == 0:
            patient.rising = None
            patient.well_at = max(patient.well_at, now + self._timing.well_s)
            return []
        ramp = patient.falling
        if ramp is None:
            if (
                patient.is_relieved or now < patient.well_at
            ):  # it had hardly been given its load back
                patient.doublings = min(_MOST_DOUBLINGS, patient.doublings + 1)
            else:
                patient.doublings = 0
            ramp = patient.falling = Ramp(patient.share, 0.0, self._timing.gray_s / 4, now)
            patient.rising = None
            patient.peers_s = self._usual_latency_s()
        if starves:
            # Its kernel says so, which is no mistake; and each step costs it a while that it does not have.
            ramp = patient.falling = Ramp(patient.share, 0.0, self._timing.gray_s / 4, now, (1.0,))
        if ramp.taken <= 1 and not (patient.is_felt or starves):
            patient.falling = None  # it was nothing
        elif ramp.step(now, clear=self._are_clear(patient)):
            patient.share = ramp.share
            patient.falling = None if ramp.is_over else ramp
            patient.well_at = now + self._timing.well_s * 2**patient.doublings
            why = "starved" if starves else "gray"
            return [Reweigh(patient.nonce, patient.weight * patient.share, why)]
        return []

    @property
    def _may_relieve(self) -> bool:
        return len(self.relieved) < most_ill(len(self._patients))

    def _make_room(self, now: float) -> None:
        """Somebody is ill and has to wait: whoever has been well with some load gets the rest soon."""
        for patient in self._patients.values():
            if patient.rising is not None and patient.rising.taken and not patient.is_felt:
                patient.rising.hasten(now, self._timing.gray_s / 4)

    def _usual_latency_s(self) -> float | None:
        """Of those who would have to take more."""
        others = {p.nonce: p.latency_s() for p in self._patients.values() if not p.is_relieved}
        values = {n: value for n, value in others.items() if value is not None}
        return sorted(values.values())[len(values) // 2] if values else None

    def _are_clear(self, patient: Patient) -> bool:
        """They are not the worse for what they got so far."""
        before, after = patient.peers_s, self._usual_latency_s()
        return before is None or after is None or after <= self._latency.bound(before, 1.0)

    def _give_back(self, patient: Patient, now: float) -> list[Reweigh]:
        if patient.share == 1:
            return []
        if patient.rising is None:
            patient.rising = Ramp(patient.share, 1.0, self._timing.well_s, patient.well_at)
        if not patient.rising.step(now, clear=True):
            return []
        patient.share = patient.rising.share
        if patient.rising.is_over:
            patient.rising = None
        patient.well_at = now + self._timing.well_s * 2**patient.doublings
        return [Reweigh(patient.nonce, patient.weight * patient.share, "well")]


def _distance(patient: Patient) -> float:
    return _RELAPSE if patient.is_relieved else 1.0


def _in_words(seen: Complaint) -> str:
    return (
        f"errors {seen.failed:.3g}, its peers' {seen.usual_failed:.3g}; "
        f"latency {seen.latency_s:.3g}, its peers' {seen.usual_latency_s:.3g}"
    )
