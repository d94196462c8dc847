"""What a simulated mesh is put through: calls and faults, as plain data.

The same plan is the same run; a smaller one, with some of its calls or faults left out, is a run of its own,
which is how a failure is shrunk (mesh.testing.sim.shrink). Plans are drawn from a seed
(mesh.testing.sim.drawing), or written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROOMY = 512 * 1024 * 1024
NARROW = 3000
"""Bytes of a cache in which no more than three keys have room."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at: seconds after the load has begun.
        kind: see mesh.testing.sim.misfortune.
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
        method: "Entity.method"; "Entity.~delete" and "Entity.~exists" for what every entity has, and
            "Entity.~outcome" for the question what became of the call of the method in `args` that was given
            the idempotency key.
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
