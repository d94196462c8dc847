"""One handler process as its detector knows it: when it was last seen to turn, by whom, and in what state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mesh.core.pulse import Probed, Pulse
from mesh.core.sightings import Condition, Eye, Sight
from mesh.core.timing import Timing
from mesh.core.watch_signals import Order, Say


@dataclass(slots=True)
class KillOrder:
    """A warden was told to end it, and nothing has proved yet that it did."""

    at: float
    condition: Condition


class Inquiry:
    """Whether others reach it: asked of some of its peers at once.

    Args:
        number: of the question; answers to an earlier one do not count.
        asked: the processes that are to try.
        until: when those who have not answered never will.
    """

    __slots__ = ("_answers", "_asked", "_number", "until")

    def __init__(self, number: int, asked: set[bytes], until: float) -> None:
        self._number = number
        self._asked = asked
        self._answers: dict[bytes, bool] = {}
        self.until = until

    def answer(self, probed: Probed) -> None:
        """One of them says how it went."""
        if probed.number == self._number and probed.by in self._asked:
            self._answers[probed.by] = probed.reached

    @property
    def is_reached(self) -> bool:
        """One is enough: the process is there."""
        return any(self._answers.values())

    @property
    def is_unreached(self) -> bool:
        """Everyone has tried, and nobody has come through. Silence of those asked is no such answer."""
        return self._answers.keys() == self._asked and not self.is_reached


class WatchedProcess:
    """What is known of one process.

    Attributes:
        turned_at: when its loop was last seen to turn.
        late_at: when its loop was last seen to be late, or not to turn.
        heard_at: when it last beat.
        warden_heard_at: when a warden last said anything of it.
        quiet_since: from when on it is being looked at; None while it turns.
        is_suspect: it did not answer the probe either.
        by_warden, by_itself: what its warden, and its own beats, show of its loop's thread.
        renewal: its last number that the store had, first seen at `renewed_at`.
        lapsed_s: for how long others have renewed since, and it has not.
        order: a kill that is not proved yet.
        inquiry: whether its peers reach it; one did until `reached_until`.
        condemned_until: until when that is not said again.
        told_of: method that was reported; told_at: the turn after which its loop was reported.
    """

    __slots__ = (
        "_suspect_s",
        "_timing",
        "ask_at",
        "asked_at",
        "by_itself",
        "by_warden",
        "condemned_until",
        "domain",
        "heard_at",
        "id",
        "inquiry",
        "is_suspect",
        "lapsed_s",
        "late_at",
        "nonce",
        "order",
        "pulse",
        "quiet_since",
        "reached_until",
        "renewal",
        "renewed_at",
        "told_at",
        "told_of",
        "turned_at",
        "warden_heard_at",
    )

    def __init__(self, nonce: bytes, id_: str, domain: str, timing: Timing, now: float) -> None:
        self.nonce = nonce
        self.id = id_
        self.domain = domain
        self._timing = timing
        self._suspect_s = timing.suspect_s
        self.pulse: Pulse | None = None
        self.turned_at = self.heard_at = now
        self.late_at = self.warden_heard_at = -math.inf
        self.quiet_since: float | None = None
        self.is_suspect = False
        self.ask_at = 0.0
        self.asked_at = 0.0
        self.by_warden = Eye(timing.beat_s / 2)
        self.by_itself = Eye(timing.beat_s / 2)
        self.renewal: int | None = None
        self.renewed_at: float | None = None
        self.lapsed_s = 0.0
        self.order: KillOrder | None = None
        self.inquiry: Inquiry | None = None
        self.reached_until = -math.inf
        self.condemned_until = -math.inf
        self.told_of = ""
        self.told_at = -math.inf

    def __repr__(self) -> str:
        how = "suspect" if self.is_suspect else "quiet" if self.quiet_since is not None else "well"
        return f"WatchedProcess({self.id}, {how})"

    # -------------------------------------------------------------- signs of life

    def beat(self, pulse: Pulse, now: float) -> list[Order]:
        """It beats. That its loop turns is shown only by a counter that has moved."""
        before, self.pulse = self.pulse, pulse
        self.heard_at = now
        if pulse.lag_ms >= self._timing.lease.renew_s * 1000:
            self.late_at = now
        if before is None or pulse.turns != before.turns:
            return self.turned(now)
        if pulse.state:
            sight = Sight(
                pulse.at_ms / 1000,
                pulse.state,
                pulse.cpu_ms / 1000,
                pulse.delay_ms / 1000,
                pulse.slices,
                pulse.process_ms / 1000,
            )
            self.by_itself.see(sight, now)
        return []

    def turned(self, now: float) -> list[Order]:
        """Its loop turns: whatever was suspected is over."""
        was_suspect = self.is_suspect
        if self.quiet_since is not None:
            self.late_at = now
        self.turned_at = now
        self.quiet_since = None
        self.is_suspect = False
        self.order = self.inquiry = None
        self.by_warden.reset()
        self.by_itself.reset()
        return [Say("handler_recovered", {"handler": self.id})] if was_suspect else []

    def slept(self, span_s: float, now: float) -> None:
        """The judge did, for so long: nobody was late in it."""
        self.turned_at = min(now, self.turned_at + span_s)
        self.heard_at = min(now, self.heard_at + span_s)
        if self.quiet_since is not None:
            self.quiet_since = min(now, self.quiet_since + span_s)
        if self.order is not None:
            self.order.at = min(now, self.order.at + span_s)

    # ------------------------------------------------------------------- questions

    def is_quiet(self, now: float, stretch: float) -> bool:
        """Its loop has not been seen to turn for too long."""
        return now - self.turned_at >= self._suspect_s * stretch

    def beats_arrive(self, now: float, stretch: float) -> bool:
        """It still beats."""
        return now - self.heard_at < self._suspect_s * stretch

    def is_silent(self, now: float, stretch: float) -> bool:
        """Neither it nor its warden has said a word for a whole lease: its host is gone, or its network. A
        host that merely starves says something now and then, however late.
        """
        patience_s = self._timing.lease.duration_s * stretch
        return now - max(self.heard_at, self.warden_heard_at) >= patience_s

    def says_cut_off(self, now: float) -> bool:
        """By its own beats its loop has turned in time for a whole lease, and yet that is out: it does not
        reach the store. One that is busy, or starves, cannot renew either, and is neither dead nor cut off.
        """
        pulse, timing = self.pulse, self._timing
        turns = now - self.late_at >= timing.lease.duration_s
        return turns and pulse is not None and pulse.lease_ms < 0

    @property
    def limit_s(self) -> float:
        """How long its loop may go without a turn."""
        limit_s = self._timing.method_limit_s
        return max(limit_s, self.pulse.limit_ms / 1000) if self.pulse is not None else limit_s

    def eye(self, now: float, fresh_s: float, *, has_warden: bool) -> Eye | None:
        """Whoever has seen it lately, its warden first; None where nobody has."""
        for eye, counts in ((self.by_warden, has_warden), (self.by_itself, True)):
            if counts and eye.condition is not None and now - eye.at < fresh_s:
                return eye
        return None
