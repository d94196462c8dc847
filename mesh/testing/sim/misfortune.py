"""Draws faults: whom each befalls, when, for how long and how badly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from mesh.testing.sim.plan import Fault

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


_RATES = (0.5, 0.9, 0.99, 1.01, 1.1, 2.0)
"""Of clocks that only time-outs go by."""
_LEASED_RATES = (0.9992, 0.9995, 0.9999, 1.0001, 1.0005, 1.0008)
"""Of clocks that leases go by (mesh.core.lease.LeaseTiming.drift)."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who there is in a mesh whose faults are drawn."""

    handlers: tuple[str, ...]
    clients: tuple[str, ...]
    store: tuple[str, ...]
    sentinels: tuple[str, ...]
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


def _kill(dice: Random, cast: Cast) -> Fault:
    return Fault(cast.at(dice), "kill", (dice.choice(cast.handlers),))


def _last_words(dice: Random, cast: Cast) -> Fault:
    """What it sends the store, or the supervisor, gets late, and then it dies: its bytes come when it is over
    with it, and its partitions have moved.
    """
    others = cast.store[:1] if dice.random() < 0.7 else ("s-0",)
    by_s = 0.02 + dice.random() * 0.3
    for_s = cast.for_s(dice) / 4
    return Fault(cast.at(dice), "last words", (dice.choice(cast.handlers),), others, for_s, by_s)


def _stoppable(dice: Random, cast: Cast) -> str:
    if dice.random() < 0.7:
        return dice.choice(cast.handlers)
    wardens = tuple(handler.replace("h-", "w-") for handler in cast.handlers)
    return dice.choice((*wardens, *cast.clients, "s-0"))


def _pause(dice: Random, cast: Cast) -> Fault:
    return Fault(cast.at(dice), "pause", (_stoppable(dice, cast),), for_s=cast.for_s(dice))


def _starve(dice: Random, cast: Cast) -> Fault:
    lag_s = 10 ** dice.uniform(-4.5, -2.5)
    for_s = cast.for_s(dice) / 2
    return Fault(cast.at(dice), "starve", (_stoppable(dice, cast),), for_s=for_s, amount=lag_s)


def _drop(dice: Random, cast: Cast) -> Fault:
    one, other = cast.pair(dice)
    return Fault(cast.at(dice), "drop", (one,), (other,))


def _give_up(dice: Random, cast: Cast) -> Fault:
    """One end takes its connections to the other for broken, and what it sent is late and still arrives."""
    one, other = cast.pair(dice)
    if dice.random() < 0.5 and one in cast.handlers and other in cast.clients:
        one, other = other, one
    by_s = 0.02 + dice.random() * 0.3
    return Fault(cast.at(dice), "give up", (one,), (other,), cast.for_s(dice) / 8, by_s)


def _slow(dice: Random, cast: Cast) -> Fault:
    one, other = cast.pair(dice)
    by_s = 10 ** dice.uniform(-3, -0.5)
    return Fault(cast.at(dice), "slow", (one,), (other,), cast.for_s(dice), by_s)


def _cut(dice: Random, cast: Cast) -> Fault:
    some, others = cast.split(dice)
    return Fault(cast.at(dice), "cut", some, others, cast.for_s(dice))


def _cut_one_way(dice: Random, cast: Cast) -> Fault:
    some, others = cast.split(dice)
    if dice.random() < 0.5:
        some, others = others, some
    return Fault(cast.at(dice), "cut one way", some, others, cast.for_s(dice))


def _pause_replica(dice: Random, cast: Cast) -> Fault:
    for_s = cast.for_s(dice)
    return Fault(cast.at(dice), "pause replica", (dice.choice(cast.store[1:]),), for_s=for_s)


def _join(dice: Random, cast: Cast) -> Fault:
    """A replica attaches that is no member of the in-sync set: a count of links is not a list of members."""
    return Fault(cast.at(dice), "join", (f"db-{len(cast.store)}",))


def _clock(dice: Random, cast: Cast) -> Fault:
    """Leases hold only as long as those who count them stay within the drift that is assumed."""
    which = dice.randrange(len(_RATES))
    who = (_stoppable(dice, cast),)
    rate = (_RATES if who[0].startswith(("c-", "w-")) else _LEASED_RATES)[which]
    return Fault(cast.at(dice), "clock", who, for_s=cast.for_s(dice), amount=rate)


def _chop(dice: Random, cast: Cast) -> Fault:
    return Fault(cast.at(dice), "chop", (), for_s=cast.for_s(dice), amount=0.5)


_DRAWN: dict[str, Callable[[Random, Cast], Fault]] = {
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


def misfortune(dice: Random, cast: Cast, kinds: tuple[str, ...]) -> Fault:
    """One fault, of one of those kinds."""
    return _DRAWN[dice.choice(kinds)](dice, cast)
