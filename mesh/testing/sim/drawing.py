"""Draws plans: a seed's calls and faults, all beforehand."""

from __future__ import annotations

from random import Random
from typing import Any

from mesh.methods import BuiltIn
from mesh.testing.history import ASKING
from mesh.testing.sim.grave import HANDLED, OF_STORE, OF_SUPERVISORS, grave_fault
from mesh.testing.sim.misfortune import KINDS, Cast, misfortune
from mesh.testing.sim.plan import NARROW, ROOMY, Plan, PlannedCall

_DELETED = 0.25
"""Share of the keys; of the others it can be seen without a search that nothing is lost or doubled."""
_GRAVE = 1 / 3
"""Share of the plans with a grave fault, which take twice as long."""
_GRAVE_S = (2.0, 2.0, 3.0, 5.0)
"""For so long there are calls in these: faults last for seconds, and what comes of them is to be seen."""
_QUERIES = (".read", BuiltIn.EXISTS.value)


def draw(
    seed: int,
    *,
    calls: int = 200,
    faults: int = 10,
    kinds: tuple[str, ...] = KINDS,
    grave: tuple[str, ...] | None = None,
    handlers: int = 3,
    clients: int = 3,
    supervisors: int | None = None,
    sentinels: int | None = None,
    length_s: float | None = None,
    partitions: int = 16,
    keys: int = 8,
    cache_bytes: int | None = None,
    poison: bool = False,
) -> Plan:
    """A plan, drawn from a seed.

    Calls come in bursts, and in each of these a client makes several at the same instant: they meet on keys,
    in frames, in batches and in flight, and a run needs less time for as many.

    Args:
        calls: how many.
        faults: how many.
        kinds: of the faults.
        grave: kinds of one fault more (mesh.testing.sim.grave); unless given, one of three plans has one.
        handlers, clients: how many.
        supervisors, sentinels: how many; unless given, as many as the grave fault is about.
        length_s: of the load; drawn too unless given, since what takes seconds happens in long ones only.
        partitions: of the mesh.
        keys: of each entity that are called; the fewer, the more calls meet.
        cache_bytes: of each handler; in one of four seeds narrow, unless given.
        poison: with a call that kills. To be had only where nothing of what a handler has sent is late or
            lost: whether it took a call up its client could not know.
    """
    dice, more = Random(f"{seed}/plan"), Random(f"{seed}/grave")
    if grave is None:
        grave = HANDLED if more.random() < _GRAVE and not poison else ()
    kind = more.choice(grave) if grave else ""
    if length_s is None:
        length_s = dice.choices((0.5, 1.0, 2.0, 5.0), (50, 40, 8, 2))[0]
        if kind:
            length_s = more.choice(_GRAVE_S)
    if cache_bytes is None:
        cache_bytes = NARROW if dice.random() < 0.25 else ROOMY
    if supervisors is None:
        supervisors = more.choice((2, 3)) if kind in OF_SUPERVISORS else 1
    if sentinels is None:
        sentinels = 3 if kind in OF_STORE else 0
    names = tuple(f"c-{i}" for i in range(clients))
    planned = _Calls(dice, names, length_s, keys)
    cast = Cast(
        tuple(f"h-{i}" for i in range(handlers)),
        names,
        ("db-0", "db-1", "db-2"),
        tuple(f"se-{i}" for i in range(sentinels)),
        length_s,
    )
    befalling = [misfortune(dice, cast, kinds) for _ in range(faults)]
    if kind:
        befalling += grave_fault(more, cast, kind)
    return Plan(
        seed,
        tuple(planned.draw() for _ in range(calls)),
        tuple(befalling),
        handlers,
        clients,
        supervisors=supervisors,
        sentinels=sentinels,
        partitions=partitions,
        length_s=length_s,
        cache_bytes=cache_bytes,
        poison_at=dice.random() * length_s if poison else None,
    )


class _Calls:
    """Draws calls: few keys, so that they meet; every written value differs from all others."""

    def __init__(self, dice: Random, clients: tuple[str, ...], length_s: float, keys: int) -> None:
        self._dice = dice
        self._clients = clients
        self._length_s = length_s
        self._keys = keys
        self._values = 0
        self._keyed: list[PlannedCall] = []
        self._burst = self._volley = 0
        self._burst_at = self._at = 0.0
        self._client = ""

    def draw(self) -> PlannedCall:
        dice = self._dice
        if not self._burst:
            self._burst = dice.randrange(1, 20)
            self._burst_at = dice.random() * self._length_s
            self._volley = 0
        self._burst -= 1
        if not self._volley:
            self._volley = dice.randrange(1, 8)
            self._at = self._burst_at + dice.random() * dice.random() * 0.002
            self._client = dice.choice(self._clients)
        self._volley -= 1
        at = self._at
        if self._keyed and dice.random() < 0.05:
            return self._about(dice.choice(self._keyed))
        method, key, args = self._what()
        timeout = 10.0 if dice.random() < 0.85 else 0.02 + dice.random() * 0.5
        cancel_s = dice.random() * 0.01 if dice.random() < 0.04 else None
        idempotency_key = None
        if dice.random() < 0.12 and not method.endswith(_QUERIES):
            idempotency_key = f"key-{self._values}-{len(self._keyed)}"
        call = PlannedCall(at, self._client, method, key, args, timeout, idempotency_key, cancel_s)
        if idempotency_key is not None:
            self._keyed.append(call)
        return call

    def _about(self, before: PlannedCall) -> PlannedCall:
        """The same call again, as a caller makes it who does not know what became of the first; or the
        question what did: after it, while it runs, or before it was made, which rules it out.
        """
        dice = self._dice
        client = dice.choice(self._clients)
        if dice.random() < 0.5:
            at = before.at + self._length_s * 0.1
            args, method = before.args, before.method
        else:
            at = max(0.0, before.at + self._length_s * dice.choice((-0.05, 0.0, 0.001, 0.01, 0.1)))
            entity, _, called = before.method.partition(".")
            args, method = (called,), f"{entity}.{ASKING}"
        return PlannedCall(
            at, client, method, before.key, args, idempotency_key=before.idempotency_key
        )

    def _what(self) -> tuple[str, str, tuple[Any, ...]]:
        dice = self._dice
        self._values += 1
        entity = dice.choice(("Register", "Counter", "AppendList"))
        number = dice.randrange(self._keys)
        key = f"{entity[0].lower()}{number}"
        if dice.random() < 0.3:
            return f"{entity}.read", key, ()
        if number >= self._keys - self._keys * _DELETED and dice.random() < 0.3:
            which = BuiltIn.DELETE if dice.random() < 0.6 else BuiltIn.EXISTS
            return f"{entity}.{which.value}", key, ()
        if entity == "Counter":
            return "Counter.incr", key, ()
        if entity == "AppendList":
            return "AppendList.append", key, (self._values,)
        if dice.random() < 0.2:
            return "Register.cas", key, (max(0, self._values - dice.randrange(9)), self._values)
        return "Register.write", key, (self._values,)
