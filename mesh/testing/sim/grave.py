"""Draws faults that something of its own is there for: leases, standbys, the store's failover.

One of them befalls a run, with the small ones of mesh.testing.sim.misfortune around it. Each lasts long
enough that it has to be dealt with, and most end while there still are calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from mesh.testing.sim.misfortune import Cast
from mesh.testing.sim.plan import EVERYBODY, Fault, Left

_One = Callable[[Random, Cast], Fault]
_Draw = Callable[[Random, Cast], "Fault | tuple[Fault, ...]"]


def grave_fault(dice: Random, cast: Cast, kind: str) -> tuple[Fault, ...]:
    """One of that kind, along with what leads to it."""
    drawn = _DRAWN[kind](dice, cast)
    return drawn if isinstance(drawn, tuple) else (drawn,)


def _at(dice: Random, cast: Cast) -> float:
    """Early: what comes of it is to be seen."""
    return dice.uniform(0.05, 0.5) * cast.length_s


def _long_s(dice: Random) -> float:
    """Longer than a lease, or than Sentinels wait; now and then just about as long."""
    return dice.choice((dice.uniform(0.8, 1.5), dice.uniform(1.5, 5.0)))


def _crash(*who: str, left: Left = "intact", in_place: bool = False) -> _One:
    def draw(dice: Random, cast: Cast) -> Fault:
        for_s = dice.uniform(0.1, 0.4) if in_place else _long_s(dice)
        at = _at(dice, cast)
        return Fault(at, "crash", who, for_s=for_s, left=left, in_place=in_place)

    return draw


def _stop(*who: str) -> _One:
    def draw(dice: Random, cast: Cast) -> Fault:
        return Fault(_at(dice, cast), "pause", who, for_s=_long_s(dice))

    return draw


def _cut(*who: str) -> _One:
    def draw(dice: Random, cast: Cast) -> Fault:
        return Fault(_at(dice, cast), "cut", who, (EVERYBODY,), _long_s(dice))

    return draw


def _stop_handler(dice: Random, cast: Cast) -> Fault:
    return _stop(dice.choice(cast.handlers))(dice, cast)


def _cut_host(dice: Random, cast: Cast) -> Fault:
    """A handler and its warden, from everybody."""
    return _cut(dice.choice(cast.handlers))(dice, cast)


def _in_a_takeover(draw: _One) -> _Draw:
    """A handler dies, and this befalls in the step in which the store has carried out its takeover."""

    def both(dice: Random, cast: Cast) -> tuple[Fault, ...]:
        befalls = draw(dice, cast)
        dies = Fault(befalls.at, "kill", (dice.choice(cast.handlers),))
        return dies, replace(befalls, moment="takeover")

    return both


def _after_a_commit(draw: _One) -> _Draw:
    """In the step in which the store has carried one out, whose answer nobody has yet."""

    def at_once(dice: Random, cast: Cast) -> Fault:
        return replace(draw(dice, cast), moment="commit")

    return at_once


def _cut_host_from_store(dice: Random, cast: Cast) -> Fault:
    who = (dice.choice(cast.handlers),)
    return Fault(_at(dice, cast), "cut", who, cast.store, _long_s(dice))


def _cut_host_from_its_like(dice: Random, cast: Cast) -> Fault:
    """Clients and the store it still reaches, and they it."""
    one = dice.choice(cast.handlers)
    others = (*(h for h in cast.handlers if h != one), "leader", "standbys")
    return Fault(_at(dice, cast), "cut", (one,), others, _long_s(dice))


def _cut_host_and_client(dice: Random, cast: Cast) -> Fault:
    """They reach each other and the store; the client hears nothing of what others do."""
    one, client = dice.choice(cast.handlers), dice.choice(cast.clients)
    like = [*cast.handlers, *cast.clients]
    others = (*(host for host in like if host not in (one, client)), "leader", "standbys")
    return Fault(_at(dice, cast), "cut", (one, client), others, _long_s(dice))


def _kill_warden(dice: Random, cast: Cast) -> Fault:
    return _crash(dice.choice(cast.handlers).replace("h-", "w-"))(dice, cast)


def _cut_primary_with_a_replica(dice: Random, cast: Cast) -> Fault:
    """They go on with each other; Sentinels promote the one that is left."""
    return _cut("primary", dice.choice(cast.store[1:]))(dice, cast)


def _cut_in_two(dice: Random, cast: Cast) -> Fault:
    """The primary and the leader, with a replica, a Sentinel and half of all others, from the rest: that is
    where the majority is, so here nothing may be done that it would not know of.
    """
    rest = [*cast.handlers, *cast.clients]
    some = dice.sample(rest, len(rest) // 2)
    store = ("primary", dice.choice(cast.store[1:]), dice.choice(cast.sentinels))
    return _cut(*store, "leader", *some)(dice, cast)


def _kill_replica_far_from_the_leader(dice: Random, cast: Cast) -> tuple[Fault, ...]:
    """What the leader decides from the Sentinels' word arrives at the primary when that word may be old."""
    dies = _kill_replica(dice, cast)
    by_s = dice.uniform(1.0, 1.6)
    return dies, Fault(dies.at, "slow", ("leader",), ("primary",), dies.for_s, by_s)


def _stop_replica_twice(dice: Random, cast: Cast) -> tuple[Fault, ...]:
    """It is taken out of the set, and put back; who looked for the set in between has to hear of that."""
    which = dice.choice(cast.store[1:])
    first = Fault(dice.uniform(0.05, 0.5), "pause", (which,), for_s=dice.uniform(1.1, 1.5))
    back_at = first.at + first.for_s
    again = Fault(back_at + dice.uniform(0.9, 1.2), "pause", (which,), for_s=dice.uniform(0.3, 0.8))
    looks = [
        Fault(first.at, "drop", (handler,), ("primary",), moment="set") for handler in cast.handlers
    ]
    return first, again, *looks


def _kill_replica(dice: Random, cast: Cast) -> Fault:
    return _crash(dice.choice(cast.store[1:]))(dice, cast)


def _replica_goes_back(dice: Random, cast: Cast) -> Fault:
    left: Left = dice.choice(("power lost", "rolled back", "empty"))
    return _crash(dice.choice(cast.store[1:]), left=left)(dice, cast)


def _stop_replica(dice: Random, cast: Cast) -> Fault:
    return _stop(dice.choice(cast.store[1:]))(dice, cast)


def _sentinel_away(dice: Random, cast: Cast) -> Fault:
    who = dice.choice(cast.sentinels)
    return dice.choice((_crash, _stop, _cut))(who)(dice, cast)


def _primary_goes_back(dice: Random, cast: Cast) -> Fault:
    """It is there again before anybody misses it."""
    left: Left = dice.choice(("intact", "power lost", "rolled back", "empty"))
    return _crash("primary", left=left, in_place=True)(dice, cast)


_OF_HANDLERS: dict[str, _Draw] = {
    "stop handler": _stop_handler,
    "cut host": _cut_host,
    "cut host from store": _cut_host_from_store,
    "cut host from its like": _cut_host_from_its_like,
    "cut host and client": _cut_host_and_client,
    "kill warden": _kill_warden,
}
_OF_SUPERVISORS: dict[str, _Draw] = {
    "kill leader": _crash("leader"),
    "stop leader": _stop("leader"),
    "cut leader": _cut("leader"),
    "kill leader in a takeover": _in_a_takeover(_crash("leader")),
    "stop leader in a takeover": _in_a_takeover(_stop("leader")),
    "kill standbys": _crash("standbys"),
    "stop standbys": _stop("standbys"),
    "kill supervisors": _crash("leader", "standbys"),
    "stop supervisors": _stop("leader", "standbys"),
}
_OF_STORE: dict[str, _Draw] = {
    "kill primary": _crash("primary"),
    "stop primary": _stop("primary"),
    "cut primary": _cut("primary"),
    "cut primary after a commit": _after_a_commit(_cut("primary")),
    "kill primary after a commit": _after_a_commit(_crash("primary")),
    "cut primary in a takeover": _in_a_takeover(_cut("primary")),
    "cut primary with a replica": _cut_primary_with_a_replica,
    "primary goes back": _primary_goes_back,
    "kill replica": _kill_replica,
    "stop replica": _stop_replica,
    "replica goes back": _replica_goes_back,
    "sentinel away": _sentinel_away,
    "cut in two": _cut_in_two,
    "kill replica far from the leader": _kill_replica_far_from_the_leader,
    "stop replica twice": _stop_replica_twice,
}
_DRAWN = _OF_HANDLERS | _OF_SUPERVISORS | _OF_STORE
GRAVE = tuple(_DRAWN)
"""Their kinds, by name."""
OF_SUPERVISORS = frozenset((*_OF_SUPERVISORS, "cut in two"))
"""Those that are about several supervisors."""
OF_STORE = frozenset(_OF_STORE)
"""Those that are about a store with Sentinels."""
HANDLED = tuple(kind for kind in GRAVE if kind != "primary goes back")
"""Those that plans have unless they say otherwise: of which hundreds of seeds are clean."""
