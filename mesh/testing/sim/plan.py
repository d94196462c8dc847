"""What a simulated mesh is put through: calls and faults, as plain data.

The same plan is the same run; a smaller one, with some of its calls or faults left out, is a run of its own,
which is how a failure is shrunk (mesh.testing.sim.shrink). Plans are drawn from a seed
(mesh.testing.sim.drawing), or written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Left = Literal["intact", "power lost", "rolled back", "empty"]
"""What a node of the store finds on its disk when it is started again."""

EVERYBODY = "everybody"
"""Among the hosts at the other end of a fault: all others."""
ROOMY = 512 * 1024 * 1024
NARROW = 3000
"""Bytes of a cache in which no more than three keys have room."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at: seconds after the load has begun.
        kind: see mesh.testing.sim.misfortune.
        who: names of processes ("kill", "crash", "last words", "pause", "starve", "clock"), else of hosts; or
            roles, of whoever has them when it happens: "primary", "replicas", "leader", "standbys".
        others: hosts at the other end, where there is one.
        for_s: how long it lasts, 0 where it does not.
        amount: seconds of a delay, rate of a clock, share of the packets.
        left: what a node of the store finds on its disk after a crash; see Stores.start.
        in_place: after it, what was the primary is that again.
        moment: it begins only when the store next carries out a "commit" or a "takeover", or records another
            in-sync "set", in that very step.
    """

    at: float
    kind: str
    who: tuple[str, ...]
    others: tuple[str, ...] = ()
    for_s: float = 0.0
    amount: float = 0.0
    left: Left = "intact"
    in_place: bool = False
    moment: Literal["", "commit", "takeover", "set"] = ""

    def __str__(self) -> str:
        words = [self.kind, " ".join(self.who)]
        if self.moment:
            words.insert(0, f"at the next {self.moment}")
        if self.others:
            words.append(f"from {' '.join(self.others)}")
        if self.amount:
            words.append(f"by {self.amount:.4g}")
        if self.for_s:
            words.append(f"for {self.for_s:.3f} s")
        if self.left != "intact":
            words.append(f"and find its disk {self.left}")
        if self.in_place:
            words.append("and be the primary again")
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
        handlers, clients, replicas, supervisors: how many there are; without replicas a write counts once it
            is on the primary's disk.
        sentinels: how many watch the store; 0: nobody does, and its primary stays what it is.
        down_after_s: of a silence after which a Sentinel takes a node for dead.
        length_s: of the load; faults begin within it.
        cache_bytes: that handlers keep keys in.
        poison_at: when somebody makes a call that kills whoever runs it (mesh.testing.sim.poison).
        synced: nodes of the store sync each write before anybody hears of it (appendfsync always).
        watched: the leader looks for handlers that hang or cannot be reached (mesh.core.detector); without it
            only proven exits count.
    """

    seed: int
    calls: tuple[PlannedCall, ...]
    faults: tuple[Fault, ...]
    handlers: int = 3
    clients: int = 3
    replicas: int = 2
    supervisors: int = 1
    sentinels: int = 0
    down_after_s: float = 0.5
    partitions: int = 16
    length_s: float = 1.0
    cache_bytes: int = ROOMY
    poison_at: float | None = None
    synced: bool = False
    watched: bool = True

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {len(self.calls)} calls, {len(self.faults)} faults"]
        lines += [f"{fault.at:9.4f}  {fault}" for fault in sorted(self.faults, key=lambda f: f.at)]
        return "\n".join(lines)
