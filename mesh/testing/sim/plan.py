"""What a simulated mesh is put through: calls and faults, all drawn beforehand from a seed.

A plan is plain data. The same plan is the same run; a smaller one, with some of its calls or faults left
out, is a run of its own, which is how a failure is shrunk (mesh.testing.sim.shrink).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

KINDS = (
    "kill",
    "last words",
    "pause",
    "starve",
    "drop",
    "give up",
    "slow",
    "cut",
    "cut one way",
    "pause replica",
    "join",
    "clock",
    "chop",
)
"""Faults that every mesh with one supervisor and a store whose primary lives has to bear."""


ROOMY = 512 * 1024 * 1024
NARROW = 3000
"""Bytes of a cache in which no more than three keys have room."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at: seconds after the load has begun.
        kind: one of KINDS.
        who: names of processes ("kill", "last words", "pause", "starve", "clock"), else of hosts.
        others: hosts at the other end, where there is one.
        for_s: how long it lasts, 0 where it does not.
        amount: seconds of a delay, rate of a clock, share of the packets.
    """

    at: float
    kind: str
    who: tuple[str, ...]
    others: tuple[str, ...] = ()
    for_s: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        words = [self.kind, " ".join(self.who)]
        if self.others:
            words.append(f"from {' '.join(self.others)}")
        if self.amount:
            words.append(f"by {self.amount:.4g}")
        if self.for_s:
            words.append(f"for {self.for_s:.3f} s")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call of one of the clients.

    Attributes:
        at: seconds after the load has begun.
        client: its name.
        method: "Entity.method".
        cancel_s: its caller stops waiting after so long; None: it waits.
    """

    at: float
    client: str
    method: str
    key: str
    args: tuple[Any, ...] = ()
    timeout: float = 10.0
    idempotency_key: str | None = None
    cancel_s: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One run's.

    Attributes:
        seed: of everything else that is drawn: delays, identities.
        handlers, clients, replicas: how many there are.
        length_s: of the load; faults begin within it.
        cache_bytes: that handlers keep keys in.
        poison_at: when somebody makes a call that kills whoever runs it (mesh.testing.sim.poison).
    """

    seed: int
    calls: tuple[PlannedCall, ...]
    faults: tuple[Fault, ...]
    handlers: int = 3
    clients: int = 3
    replicas: int = 2
    partitions: int = 16
    length_s: float = 1.0
    cache_bytes: int = ROOMY
    poison_at: float | None = None

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {len(self.calls)} calls, {len(self.faults)} faults"]
        lines += [f"{fault.at:9.4f}  {fault}" for fault in sorted(self.faults, key=lambda f: f.at)]
        return "\n".join(lines)


def draw(
    seed: int,
    *,
    calls: int = 200,
    faults: int = 10,
    kinds: tuple[str, ...] = KINDS,
    handlers: int = 3,
    clients: int = 3,
    length_s: float | None = None,
    partitions: int = 16,
    cache_bytes: int | None = None,
    poison: bool = False,
) -> Plan:
    """A plan, drawn from a seed.

    Calls come in bursts: they meet on keys, in batches and in flight, and a run needs less time for as many.

    Args:
        calls: how many.
        faults: how many.
        kinds: of the faults.
        handlers, clients: how many.
        length_s: of the load; drawn too unless given, since what takes seconds happens in long ones only.
        partitions: of the mesh.
        cache_bytes: of each handler; in one of four seeds narrow, unless given.
        poison: with a call that kills. To be had only where nothing of what a handler has sent is late or
            lost: whether it took a call up its client could not know.
    """
    dice = Random(f"{seed}/plan")
    if length_s is None:
        length_s = dice.choices((0.5, 1.0, 2.0, 5.0), (50, 40, 8, 2))[0]
    if cache_bytes is None:
        cache_bytes = NARROW if dice.random() < 0.25 else ROOMY
    names = tuple(f"c-{i}" for i in range(clients))
    planned = _Calls(dice, names, length_s)
    cast = _Cast(
        tuple(f"h-{i}" for i in range(handlers)), names, ("db-0", "db-1", "db-2"), length_s
    )
    return Plan(
        seed,
        tuple(planned.draw() for _ in range(calls)),
        tuple(_DRAWN[dice.choice(kinds)](dice, cast) for _ in range(faults)),
        handlers,
        clients,
        partitions=partitions,
        length_s=length_s,
        cache_bytes=cache_bytes,
        poison_at=dice.random() * length_s if poison else None,
    )


class _Calls:
    """Draws calls: few keys, so that they meet; every written value differs from all others."""

    def __init__(self, dice: Random, clients: tuple[str, ...], length_s: float) -> None:
        self._dice = dice
        self._clients = clients
        self._length_s = length_s
        self._values = 0
        self._keyed: list[PlannedCall] = []
        self._burst = 0
        self._burst_at = 0.0

    def draw(self) -> PlannedCall:
        dice = self._dice
        if not self._burst:
            self._burst = dice.randrange(1, 10)
            self._burst_at = dice.random() * self._length_s
        self._burst -= 1
        at = self._burst_at + dice.random() * dice.random() * 0.002
        if self._keyed and dice.random() < 0.03:
            # The same call again, as a caller makes it who does not know what became of the first.
            before = dice.choice(self._keyed)
            return PlannedCall(
                at + self._length_s * 0.1,
                dice.choice(self._clients),
                before.method,
                before.key,
                before.args,
                idempotency_key=before.idempotency_key,
            )
        method, key, args = self._what()
        timeout = 10.0 if dice.random() < 0.85 else 0.02 + dice.random() * 0.5
        cancel_s = dice.random() * 0.01 if dice.random() < 0.04 else None
        idempotency_key = None
        if dice.random() < 0.12 and not method.endswith(".read"):
            idempotency_key = f"key-{self._values}-{len(self._keyed)}"
        call = PlannedCall(
            at, dice.choice(self._clients), method, key, args, timeout, idempotency_key, cancel_s
        )
        if idempotency_key is not None:
            self._keyed.append(call)
        return call

    def _what(self) -> tuple[str, str, tuple[Any, ...]]:
        dice = self._dice
        self._values += 1
        entity = dice.choice(("Register", "Counter", "AppendList"))
        key = f"{entity[0].lower()}{dice.randrange(8)}"
        if dice.random() < 0.3:
            return f"{entity}.read", key, ()
        if entity == "Counter":
            return "Counter.incr", key, ()
        if entity == "AppendList":
            return "AppendList.append", key, (self._values,)
        if dice.random() < 0.2:
            return "Register.cas", key, (max(0, self._values - dice.randrange(9)), self._values)
        return "Register.write", key, (self._values,)


@dataclass(frozen=True, slots=True)
class _Cast:
    handlers: tuple[str, ...]
    clients: tuple[str, ...]
    store: tuple[str, ...]
    length_s: float

    @property
    def pairs(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """Groups of hosts that talk to each other."""
        return (
            (self.handlers, self.clients),
            (self.handlers, self.store[:1]),
            (self.handlers, ("s-0",)),
            (("s-0",), self.store[:1]),
            (("s-0",), self.clients),
            (self.store[1:], self.store[:1]),
        )

    def pair(self, dice: Random) -> tuple[str, str]:
        ours, theirs = dice.choice(self.pairs)
        return dice.choice(ours), dice.choice(theirs)

    def split(self, dice: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """One host or several, and whom they are cut off from: some, or all."""
        everybody = (*self.handlers, *self.clients, "s-0", *self.store)
        if dice.random() < 0.3:
            one = dice.choice((*self.handlers, *self.clients, "s-0", *self.store[1:]))
            return (one,), tuple(host for host in everybody if host != one)
        ours, theirs = dice.choice(self.pairs)
        if dice.random() < 0.5:
            return (dice.choice(ours),), theirs
        one, other = dice.choice(ours), dice.choice(theirs)
        return (one,), (other,)

    def at(self, dice: Random) -> float:
        return dice.random() * self.length_s

    def for_s(self, dice: Random) -> float:
        """Short ones as often as long ones; some outlast the load."""
        return float(self.length_s * 10 ** dice.uniform(-2, 0))


def _kill(dice: Random, cast: _Cast) -> Fault:
    return Fault(cast.at(dice), "kill", (dice.choice(cast.handlers),))


def _last_words(dice: Random, cast: _Cast) -> Fault:
    """What it sends the store, or the supervisor, gets late, and then it dies: its bytes come when it is over
    with it, and its partitions have moved.
    """
    others = cast.store[:1] if dice.random() < 0.7 else ("s-0",)
    by_s = 0.02 + dice.random() * 0.3
    for_s = cast.for_s(dice) / 4
    return Fault(cast.at(dice), "last words", (dice.choice(cast.handlers),), others, for_s, by_s)


def _stoppable(dice: Random, cast: _Cast) -> str:
    if dice.random() < 0.7:
        return dice.choice(cast.handlers)
    wardens = tuple(handler.replace("h-", "w-") for handler in cast.handlers)
    return dice.choice((*wardens, *cast.clients, "s-0"))


def _pause(dice: Random, cast: _Cast) -> Fault:
    return Fault(cast.at(dice), "pause", (_stoppable(dice, cast),), for_s=cast.for_s(dice))


def _starve(dice: Random, cast: _Cast) -> Fault:
    lag_s = 10 ** dice.uniform(-4.5, -2.5)
    for_s = cast.for_s(dice) / 2
    return Fault(cast.at(dice), "starve", (_stoppable(dice, cast),), for_s=for_s, amount=lag_s)


def _drop(dice: Random, cast: _Cast) -> Fault:
    one, other = cast.pair(dice)
    return Fault(cast.at(dice), "drop", (one,), (other,))


def _give_up(dice: Random, cast: _Cast) -> Fault:
    """One end takes its connections to the other for broken, and what it sent is late and still arrives."""
    one, other = cast.pair(dice)
    if dice.random() < 0.5 and one in cast.handlers and other in cast.clients:
        one, other = other, one
    by_s = 0.02 + dice.random() * 0.3
    return Fault(cast.at(dice), "give up", (one,), (other,), cast.for_s(dice) / 8, by_s)


def _slow(dice: Random, cast: _Cast) -> Fault:
    one, other = cast.pair(dice)
    by_s = 10 ** dice.uniform(-3, -0.5)
    return Fault(cast.at(dice), "slow", (one,), (other,), cast.for_s(dice), by_s)


def _cut(dice: Random, cast: _Cast) -> Fault:
    some, others = cast.split(dice)
    return Fault(cast.at(dice), "cut", some, others, cast.for_s(dice))


def _cut_one_way(dice: Random, cast: _Cast) -> Fault:
    some, others = cast.split(dice)
    if dice.random() < 0.5:
        some, others = others, some
    return Fault(cast.at(dice), "cut one way", some, others, cast.for_s(dice))


def _pause_replica(dice: Random, cast: _Cast) -> Fault:
    for_s = cast.for_s(dice)
    return Fault(cast.at(dice), "pause replica", (dice.choice(cast.store[1:]),), for_s=for_s)


def _join(dice: Random, cast: _Cast) -> Fault:
    """A replica attaches that is no member of the in-sync set: a count of links is not a list of members."""
    return Fault(cast.at(dice), "join", (f"db-{len(cast.store)}",))


def _clock(dice: Random, cast: _Cast) -> Fault:
    rate = dice.choice((0.5, 0.9, 0.99, 1.01, 1.1, 2.0))
    who = (_stoppable(dice, cast),)
    return Fault(cast.at(dice), "clock", who, for_s=cast.for_s(dice), amount=rate)


def _chop(dice: Random, cast: _Cast) -> Fault:
    return Fault(cast.at(dice), "chop", (), for_s=cast.for_s(dice), amount=0.5)


_DRAWN: dict[str, Callable[[Random, _Cast], Fault]] = {
    "kill": _kill,
    "last words": _last_words,
    "pause": _pause,
    "starve": _starve,
    "drop": _drop,
    "give up": _give_up,
    "slow": _slow,
    "cut": _cut,
    "cut one way": _cut_one_way,
    "pause replica": _pause_replica,
    "join": _join,
    "clock": _clock,
    "chop": _chop,
}
