"""A detector, and handlers as it sees them: each does something with its time, and beats, answers, renews
and is looked at accordingly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mesh.core.detector import Detector
from mesh.core.impressions import WINDOW_S, Complaint
from mesh.core.pulse import Probed, Pulse, Seen
from mesh.core.timing import Timing
from mesh.core.watch_signals import (
    AskLoop,
    AskPeer,
    AskWarden,
    ClientComplained,
    Condemn,
    Echoed,
    Inquired,
    Joined,
    Left,
    Order,
    OrderKill,
    Pulsed,
    RenewalsSeen,
    Reweigh,
    Saw,
    Say,
    Ticked,
    WardenGone,
    WardenWatches,
)

STEP_S = 0.025

# What a loop's thread does: state, share of a CPU, share of waiting for one, whether it is ever on a CPU.
IDLE = ("S", 0.02, 0.0, True)
BURNING = ("R", 1.0, 0.0, True)
BLOCKED = ("S", 0.0, 0.0, False)
DISK = ("D", 0.0, 0.0, False)
STOPPED = ("T", 0.0, 0.0, False)
FROZEN = ("F", 0.0, 0.0, False)
THROTTLED = ("R", 0.0, 0.0, False)
"""As measured: of what it waits nothing is counted."""
CROWDED = ("R", 0.05, 0.95, True)
POLLING = ("S", 0.01, 0.0, True)


FAR_OFF = Complaint(b"", 100, 0.0, 0.0, 0.015, 0.0015)


@dataclass
class Handler:
    """One process.

    Attributes:
        thread: what its loop's thread does.
        turns: its loop turns, and so answers probes, and renews.
        beats: they arrive.
        answers: probes reach it and its echo comes back; those of the leader.
        reached: peers' do.
        renews: its renewals reach the store.
        tells: what it found out about a peer reaches the leader.
        seen_by: machines whose clients complain of it.
        seen: fields of their complaints.
        holds_gil: another thread burns a CPU.
        method: that keeps the loop.
    """

    id: str
    thread: tuple[str, float, float, bool] = IDLE
    turns: bool = True
    beats: bool = True
    answers: bool = True
    reached: bool = True
    renews: bool = True
    tells: bool = True
    holds_gil: bool = False
    method: str = ""
    limit_s: float = 0.0
    lag_ms: float = 1.0
    latency_ms: float = 1.0
    errors_share: float = 0.0
    seen_by: tuple[str, ...] = ()
    seen: dict[str, float] = field(default_factory=dict)
    warden: str = "w-0"
    domain: str = "a"
    alive: bool = True
    pulse: dict[str, Any] = field(default_factory=dict)
    turned: int = 0
    cpu_s: float = 0.0
    delay_s: float = 0.0
    slices: int = 0
    process_s: float = 0.0
    number: int = 0
    renewal: int = 0
    done: float = 0.0
    errors: float = 0.0
    method_at: float | None = None
    hung_at: float | None = None

    @property
    def nonce(self) -> bytes:
        return self.id.encode()

    def does(self, thread: tuple[str, float, float, bool], **other: Any) -> None:
        """From now on its loop's thread does that, and turns no more."""
        self.thread, self.turns = thread, False
        for name, value in other.items():
            setattr(self, name, value)

    def stops(self) -> None:
        """SIGSTOP."""
        self.does(STOPPED, beats=False)

    def recovers(self) -> None:
        self.thread, self.turns, self.beats, self.method = IDLE, True, True, ""

    def live(self, span_s: float) -> None:
        _, cpu, delay, is_on = self.thread
        self.cpu_s += cpu * span_s
        self.delay_s += delay * span_s
        self.slices += is_on
        self.process_s += (1.0 if self.holds_gil else cpu) * span_s
        self.turned += self.turns
        self.done += 100 * span_s * (1 - self.errors_share)
        self.errors += 100 * span_s * self.errors_share

    def beat(self, now: float) -> Pulse:
        if not self.method:
            self.method_at = None
        elif self.method_at is None:
            self.method_at = now
        self.number += 1
        fields: dict[str, Any] = {
            "nonce": self.nonce,
            "number": self.number,
            "turns": self.turned,
            "at_ms": now * 1000,
            "state": self.thread[0],
            "cpu_ms": self.cpu_s * 1000,
            "delay_ms": self.delay_s * 1000,
            "slices": self.slices,
            "process_ms": self.process_s * 1000,
            "lag_ms": self.lag_ms,
            "method": self.method,
            "method_ms": 0.0 if self.method_at is None else (now - self.method_at) * 1000,
            "limit_ms": self.limit_s * 1000,
            "memory_mib": 80.0,
            "pending": 0,
            "done": int(self.done),
            "errors": int(self.errors),
            "latency_ms": self.latency_ms,
            "timed": 4,
            "lease_ms": 900.0 if self.renews else -1.0,
        }
        return Pulse(**{**fields, **self.pulse})

    def look(self, now: float, lag_ms: float) -> Seen:
        return Seen(
            self.nonce,
            now * 1000,
            self.thread[0],
            self.cpu_s * 1000,
            self.delay_s * 1000,
            self.slices,
            self.process_s * 1000,
            lag_ms,
        )


class Ring:
    """A detector with its handlers; time passes in `run`.

    Attributes:
        orders: each with its time, from the last `clear` on; questions that were answered are not among them.
        wardens: those that answer, and how late they are themselves, in ms.
        store: "there", "closed" or "away".
        machines: that clients are on.
        obeys: whether kills are carried out at once and proved.
    """

    def __init__(
        self, *handlers: Handler, timing: Timing | None = None, reads: bool = True
    ) -> None:
        self.detector = Detector(timing or Timing())
        self.timing = self.detector.timing
        self.handlers = {h.nonce: h for h in handlers}
        self.now = 100.0
        self.orders: list[tuple[float, Order]] = []
        self.wardens = {h.warden: 0.0 for h in handlers if h.warden}
        self.store = "there" if reads else "unread"
        self.obeys = True
        self.machines = 4
        self.looks: list[bytes] = []
        kinds = ("beat", "renew", "read", "complain", "tick")
        self._due = dict.fromkeys(kinds, self.now)
        self._late: list[tuple[float, Callable[[], None]]] = []
        for handler in handlers:
            self.step(Joined(handler.nonce, handler.id, handler.domain))
            if handler.warden:
                self.step(WardenWatches(handler.warden, handler.nonce))

    def of(self, kind: type[Any]) -> list[Any]:
        return [order for _, order in self.orders if isinstance(order, kind)]

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [say.fields for say in self.of(Say) if say.kind == kind]

    @property
    def evictions(self) -> list[Any]:
        return [*self.of(OrderKill), *self.of(Condemn)]

    def step(self, event: Any) -> None:
        for order in self.detector.step(event, self.now):
            self._carry_out(order)

    def lose_warden(self, warden: str) -> None:
        del self.wardens[warden]
        self.step(WardenGone(warden))

    def sleep(self, span_s: float) -> None:
        """The judge gets no CPU; what arrives meanwhile, it hears all at once."""
        for _ in range(round(span_s / STEP_S)):
            self._live()
        self._due = dict.fromkeys(self._due, self.now)

    def run(self, span_s: float) -> None:
        for _ in range(round(span_s / STEP_S)):
            self._live()
            late, self._late = self._late, []
            for at, work in late:
                if at <= self.now:
                    work()
                else:
                    self._late.append((at, work))
            if self._is_due("renew", self.timing.lease.renew_s):
                for h in self.handlers.values():
                    h.renewal += h.alive and h.turns and h.renews
            if self._is_due("beat", self.timing.beat_s):
                for h in self.handlers.values():
                    if h.alive and h.beats:
                        self.step(Pulsed(h.beat(self.now)))
            if self.store in ("there", "closed") and self._is_due("read", self.timing.lease.read_s):
                numbers = {n: h.renewal for n, h in self.handlers.items()}
                self.step(RenewalsSeen(numbers if self.store == "there" else None))
            if self._is_due("complain", WINDOW_S):
                self._complain()
            if self._is_due("tick", self.detector.tick_s):
                self.step(Ticked())

    def _complain(self) -> None:
        for h in self.handlers.values():
            for by in h.seen_by:
                complaint = FAR_OFF._replace(nonce=h.nonce, **h.seen)
                self.step(ClientComplained(by, self.machines, [complaint]))

    def _live(self) -> None:
        self.now += STEP_S
        for handler in self.handlers.values():
            if handler.alive:
                handler.live(STEP_S)

    def _is_due(self, what: str, every_s: float) -> bool:
        if self.now + 1e-9 < self._due[what]:
            return False
        self._due[what] += every_s
        return True

    def _carry_out(self, order: Order) -> None:
        match order:
            case AskLoop(nonce, _):
                handler = self.handlers[nonce]
                if handler.alive and handler.turns and handler.answers:
                    self.step(Echoed(nonce))
            case AskWarden(warden, nonce):
                self.looks.append(nonce)
                if warden in self.wardens:
                    lag_ms = self.wardens[warden]
                    seen = self.handlers[nonce].look(self.now, lag_ms)
                    self._late.append((self.now + lag_ms / 1000, lambda: self.step(Saw(seen))))
            case AskPeer(by, nonce, number, _):
                reached = self.handlers[nonce].reached and self.handlers[nonce].turns
                peer = self.handlers[by]
                if peer.alive and peer.turns and peer.tells:
                    answer = Probed(number, nonce, by, reached, "" if reached else "no echo")
                    self._late.append((self.now + STEP_S, lambda: self.step(Inquired(answer))))
                self.orders.append((self.now, order))
            case OrderKill(_, nonce):
                self.orders.append((self.now, order))
                if self.obeys:
                    self.handlers[nonce].alive = False
                    self.step(Left(nonce))
            case Reweigh() | Condemn() | Say():
                self.orders.append((self.now, order))
