"""Who is dead, hung, starved, unreachable or gray: step(event, now) → orders. No sockets, no clock.

Theory of operation. Evict on evidence: every rung of the ladder looks for it where the rung below has found
none, and what is merely late is never taken for dead (invariant 6).

    beats      three without a turn of the loop in them: a suspect, which is looked at and keeps everything
    probe      through the way that calls take; answered: the loop turns, whatever became of the beats
    a look     at the loop's own thread, by its warden or by its own beats:
                 stopped                    → killed
                 asleep, or burning its CPU → killed at its method's limit, told by name before
                 runnable without a CPU     → never killed; its load is taken off it
    no look    its host is silent, or its network: taken over without a proof
                 as soon as its lease is out while others renewed
                 or, where it renews, once two of its peers do not reach it either

A kill has to be proved within `proof_s`, else it is taken over without a proof, too. The handler that says
by its own beats that its lease ran out, though its loop turns, cannot reach the store: no rung but the lease.

Whatever a deposed detector orders is refused by its token; whatever a detector orders too late, by its
expiry. And it doubts itself first: see mesh.core.judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from mesh.core.gray import Ward
from mesh.core.judge import Judge
from mesh.core.pulse import Probed, Pulse, Seen
from mesh.core.sightings import Condition, Sight
from mesh.core.timing import Timing
from mesh.core.watch_signals import (
    AskLoop,
    AskPeer,
    AskWarden,
    ClientComplained,
    Condemn,
    Echoed,
    Event,
    Inquired,
    Joined,
    Left,
    Order,
    OrderKill,
    Pulsed,
    RenewalsSeen,
    Saw,
    Say,
    Ticked,
    WardenGone,
    WardenWatches,
)
from mesh.core.watched_process import Inquiry, KillOrder, WatchedProcess

_PEERS = 2
_READS_MISSED = 3


class Detector:
    """The leader's eyes on every handler process.

    Args:
        timing: of the mesh.

    Attributes:
        tick_s: how often it has to be told that time passes.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.tick_s = timing.beat_s / 2
        self._judge = Judge(self.tick_s, timing.beat_s, timing.most_stretch, timing.panic_share)
        self._ward = Ward(timing)
        self._watched: dict[bytes, WatchedProcess] = {}
        self._wardens: dict[bytes, str] = {}
        """Who watches which process; some of them have not joined yet."""
        self._numbers = 0
        self._examined_at = 0.0
        self._read_at: float | None = None
        self._store_away = False

    def __repr__(self) -> str:
        return f"Detector({len(self._watched)} processes, {len(self.suspects)} suspect)"

    @property
    def suspects(self) -> set[bytes]:
        """Processes that have not shown a turn of their loop, nor answered a probe."""
        return {p.nonce for p in self._watched.values() if p.is_suspect}

    def pulse(self, nonce: bytes) -> Pulse | None:
        """The last beat of a process that is watched."""
        process = self._watched.get(nonce)
        return process.pulse if process is not None else None

    def is_ordered_dead(self, nonce: bytes) -> bool:
        """A warden was told to kill it: its exit, if it comes now, is the end of a hang."""
        process = self._watched.get(nonce)
        return process is not None and process.order is not None

    def step(self, event: Event, now: float) -> list[Order]:  # noqa: C901 - a table, one line an event
        """Take one event; return what is to be done, in this order."""
        match event:
            case Joined(nonce, id_, domain, weight):
                if nonce not in self._watched:
                    self._watched[nonce] = WatchedProcess(nonce, id_, domain, self.timing, now)
                    self._ward.join(nonce, weight)
            case Left(nonce):
                self._watched.pop(nonce, None)
                self._wardens.pop(nonce, None)
                self._ward.leave(nonce)
            case Pulsed(pulse):
                return self._on_pulse(pulse, now)
            case Echoed(nonce):
                if process := self._watched.get(nonce):
                    return process.turned(now)
            case Saw(seen):
                self._on_seen(seen, now)
            case Inquired(probed):
                self._on_probed(probed)
            case ClientComplained(by, among, about):
                self._ward.hear(by, among, about, now)
            case RenewalsSeen(numbers):
                self._on_renewals(numbers, now)
            case WardenWatches(warden, nonce):
                if self._wardens.get(nonce) != warden and (process := self._watched.get(nonce)):
                    process.by_warden.reset()
                self._wardens[nonce] = warden
            case WardenGone(warden):
                for nonce in [n for n, w in self._wardens.items() if w == warden]:
                    del self._wardens[nonce]
            case Ticked():
                return self._on_tick(now)
            case _:
                assert_never(event)
        return []

    # --------------------------------------------------------------- events

    def _on_pulse(self, pulse: Pulse, now: float) -> list[Order]:
        process = self._watched.get(pulse.nonce)
        if process is None:
            return []
        self._ward.beat(pulse, now)
        orders = process.beat(pulse, now)
        slow = pulse.method_ms >= self.timing.slow_method_s * 1000
        if slow and process.told_of != pulse.method:
            process.told_of = pulse.method
            orders.append(_slow(process, pulse.method, pulse.method_ms / 1000))
        elif not pulse.method:
            process.told_of = ""
        return orders

    def _on_seen(self, seen: Seen, now: float) -> None:
        process = self._watched.get(seen.nonce)
        if process is None or not seen.state:
            return
        process.warden_heard_at = now
        if seen.lag_ms >= self.timing.beat_s * 1000:
            return  # it starves itself: what it says of others is no verdict
        process.by_warden.see(
            Sight(
                seen.at_ms / 1000,
                seen.state,
                seen.cpu_ms / 1000,
                seen.delay_ms / 1000,
                seen.slices,
                seen.process_ms / 1000,
            ),
            now,
        )
        order = process.order
        if order is not None and process.by_warden.condition is not order.condition:
            process.order = None  # the warden has looked again, and left it alone

    def _on_probed(self, probed: Probed) -> None:
        process = self._watched.get(probed.nonce)
        if process is not None and process.inquiry is not None:
            process.inquiry.answer(probed)

    def _on_renewals(self, numbers: Mapping[bytes, int] | None, now: float) -> None:
        before, self._read_at = self._read_at, now
        self._store_away = numbers is None
        if numbers is None:
            return
        # How long the others have been renewing without it: what passes while nobody can is no evidence.
        passed = 0.0 if before is None else min(now - before, _READS_MISSED * self._read_s)
        moving_s = 2 * self.timing.lease.renew_s * self._judge.stretch
        for process in self._watched.values():
            number = numbers.get(process.nonce)
            if number is not None and number != process.renewal:
                process.renewal, process.renewed_at, process.lapsed_s = number, now, 0.0
        for process in self._watched.values():
            if process.renewed_at is None or process.renewed_at == now:
                continue
            others = (p for p in self._watched.values() if p is not process)
            if any(p.renewed_at is not None and now - p.renewed_at <= moving_s for p in others):
                process.lapsed_s += passed

    def _on_tick(self, now: float) -> list[Order]:
        slept_s = self._judge.ticked(now)
        if slept_s:
            self._ward.slept(slept_s)
            for process in self._watched.values():
                process.slept(slept_s, now)
        orders: list[Order] = []
        panics = self._panics()
        for process in list(self._watched.values()):
            if process.is_quiet(now, self._judge.stretch):
                orders += self._climb(process, now, panics=panics)
            elif process.says_cut_off(now) and self._has_lapsed(process, now):
                orders += self._condemn(process, "unreachable", now)
        if now - self._examined_at >= self.timing.gray_s / 4 and not panics:
            self._examined_at = now
            for reweigh in self._ward.examine(now):
                orders.append(reweigh)
                orders.append(self._reweighed(reweigh.nonce, reweigh.weight, reweigh.why))
        return orders

    # --------------------------------------------------------------- ladder

    def _climb(self, process: WatchedProcess, now: float, *, panics: bool) -> list[Order]:
        timing, stretch = self.timing, self._judge.stretch
        orders = self._ask(process, now)
        assert process.quiet_since is not None
        if now - process.quiet_since < timing.probe_s * stretch:
            return orders
        is_new = not process.is_suspect
        process.is_suspect = True
        warden = self._wardens.get(process.nonce)
        eye = process.eye(now, 2 * timing.suspect_s * stretch, has_warden=warden is not None)
        condition = eye.condition if eye is not None else None
        if is_new:
            shown = condition.value if condition is not None else "unseen"
            orders.append(Say("handler_suspect", {"handler": process.id, "state": shown}))
        if process.order is not None:
            if now - process.order.at >= timing.proof_s * stretch:
                orders += self._condemn(process, "hang", now)
            return orders
        beats = process.beats_arrive(now, stretch)
        if condition is Condition.STOPPED:
            orders += self._kill(process, condition, warden, now)
        elif condition is None or (condition is Condition.WAKING and not beats):
            if condition is not None or process.is_silent(now, stretch):
                orders += self._reach(process, now, panics=panics)
        else:
            if condition is not Condition.STARVED:
                orders += self._tell_slow(process, now)
            elif not panics:
                self._ward.starves(process.nonce, now)
            if eye is not None and eye.own_s >= process.limit_s:
                orders += self._kill(process, condition, warden, now)
        return orders

    def _ask(self, process: WatchedProcess, now: float) -> list[Order]:
        """Probe it, and have its warden look, once a beat."""
        if process.quiet_since is None:
            process.quiet_since = now
        if now < process.ask_at:
            return []
        process.ask_at = now + self.timing.beat_s
        self._numbers += 1
        orders: list[Order] = [AskLoop(process.nonce, self._numbers)]
        if warden := self._wardens.get(process.nonce):
            orders.append(AskWarden(warden, process.nonce))
        return orders

    def _kill(
        self, process: WatchedProcess, condition: Condition, warden: str | None, now: float
    ) -> list[Order]:
        if self._is_store_away(now):
            return []  # nobody could take over from it, and it may come back
        sight = process.by_warden.last
        if warden is None or sight is None or process.by_warden.condition is not condition:
            return self._condemn(process, "hang", now)
        process.order = KillOrder(now, condition)
        expires_s, seen_ms = self.timing.kill_s, sight.at * 1000
        kill = OrderKill(warden, process.nonce, expires_s, seen_ms, condition.value, sight.slices)
        return [kill, Say("handler_killed", {"handler": process.id, "state": condition.value})]

    def _reach(self, process: WatchedProcess, now: float, *, panics: bool) -> list[Order]:
        """Nobody here can look at it: does the store hear of it, do others reach it?"""
        if self._has_lapsed(process, now):
            return self._condemn(process, "unreachable", now)
        renews_s = 2 * self.timing.lease.renew_s * self._judge.stretch
        renewed_at = process.renewed_at
        if renewed_at is None or now - renewed_at > renews_s or self._is_store_away(now):
            return []
        if process.inquiry is not None:
            if process.inquiry.is_reached:
                process.reached_until = now + self.timing.lease.duration_s
            elif process.inquiry.is_unreached and not panics:
                process.inquiry = None
                return self._condemn(process, "unreachable", now)
            elif now < process.inquiry.until:
                return []
            process.inquiry = None
        if now < process.reached_until:
            return []
        return self._inquire(process, now)

    def _inquire(self, process: WatchedProcess, now: float) -> list[Order]:
        within_s = 2 * self.timing.probe_s * self._judge.stretch
        peers = [p for p in self._watched.values() if p.quiet_since is None]
        peers.sort(key=lambda p: (p.domain == process.domain, p.asked_at))
        del peers[_PEERS:]
        if not peers:
            return []
        self._numbers += 1
        asked = {peer.nonce for peer in peers}
        process.inquiry = Inquiry(self._numbers, asked, now + 2 * within_s)
        for peer in peers:
            peer.asked_at = now
        return [AskPeer(p.nonce, process.nonce, self._numbers, within_s) for p in peers]

    def _condemn(self, process: WatchedProcess, cause: str, now: float) -> list[Order]:
        if self._is_store_away(now) or now < process.condemned_until:
            return []
        # Said again where nothing comes of it: the leader may have changed meanwhile, or the store's life.
        process.condemned_until = now + 2 * self.timing.lease.duration_s
        return [Condemn(process.nonce, "hang" if cause == "hang" else "unreachable")]

    # ---------------------------------------------------------------- small

    def _panics(self) -> bool:
        suspects = [p.domain for p in self._watched.values() if p.is_suspect]
        well = [p.domain for p in self._watched.values() if not p.is_suspect]
        return bool(suspects) and self._judge.panics(suspects, well)

    @property
    def _read_s(self) -> float:
        return self.timing.lease.read_s * self._judge.stretch

    def _is_store_away(self, now: float) -> bool:
        if self._read_at is None:
            return False  # nobody has begun to read
        late_s = max(_READS_MISSED * self._read_s, self.timing.lease.renew_s)
        return self._store_away or now - self._read_at > late_s

    def _has_lapsed(self, process: WatchedProcess, now: float) -> bool:
        return process.lapsed_s >= self.timing.lease.out_s and not self._is_store_away(now)

    def _tell_slow(self, process: WatchedProcess, now: float) -> list[Order]:
        quiet_s = now - process.turned_at
        if quiet_s < self.timing.slow_method_s or process.told_at == process.turned_at:
            return []
        process.told_at = process.turned_at
        pulse = process.pulse
        if pulse is not None and pulse.method:
            if process.told_of == pulse.method:
                return []
            process.told_of = pulse.method
        return [_slow(process, pulse.method if pulse is not None else "", quiet_s)]

    def _reweighed(self, nonce: bytes, weight: float, why: str) -> Say:
        sign = self._ward.sign_of(nonce)
        fields = {"handler": self._watched[nonce].id, "weight": weight, "why": why, "sign": sign}
        return Say("handler_weight", fields)


def _slow(process: WatchedProcess, method: str, for_s: float) -> Say:
    fields = {"handler": process.id, "method": method, "seconds": round(for_s, 3)}
    return Say("slow_method", {**fields, "limit_s": process.limit_s})
