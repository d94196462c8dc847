"""What is said about a handler's health: its own beats, probes, a warden's look, another handler's probe.

A beat comes from a thread of its own, so it proves that the process runs, not that it serves: what proves
that is `turns`, which the loop itself counts. All sums count from the process's start, so that a beat
that is lost takes nothing with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.core.messages import Message


@dataclass(frozen=True, slots=True)
class Pulse(Message):
    """A handler's beat.

    Attributes:
        number: of the beat.
        turns: that its loop has counted.
        at_ms: when the loop's thread was looked at, by the handler's clock; and there:
        state: its letter in /proc; "" where it cannot be read.
        cpu_ms, delay_ms: that it has run, and waited for a CPU.
        slices: how often it has been given one.
        process_ms: that all threads have run.
        lag_ms: how late the loop was at worst since the last beat.
        method: that keeps the loop now, as "Entity.method"; empty for none that is known.
        method_ms: for how long.
        limit_ms: how long it may; without a method the longest that any may.
        memory_mib: resident.
        pending: calls in memory.
        done, errors: calls that were carried out, and that failed.
        latency_ms: mean of the calls that were timed since the last beat; `timed` is their number.
        lease_ms: what is left of its lease; below 0 it is out.
        health_port: where it answers /healthz; 0 for nowhere.
    """

    nonce: bytes
    number: int
    turns: int
    at_ms: float
    state: str
    cpu_ms: float
    delay_ms: float
    slices: int
    process_ms: float
    lag_ms: float
    method: str
    method_ms: float
    limit_ms: float
    memory_mib: float
    pending: int
    done: int
    errors: int
    latency_ms: float
    timed: int
    lease_ms: float
    health_port: int = 0


@dataclass(frozen=True, slots=True)
class Probe(Message):
    """Answered with `Echo` of the same number by the loop that answers calls."""

    number: int


@dataclass(frozen=True, slots=True)
class Echo(Message):
    """The loop of that process turns."""

    nonce: bytes
    number: int


@dataclass(frozen=True, slots=True)
class ProbeFor(Message):
    """The leader asks one handler to probe another process, by a connection of its own."""

    token: int
    number: int
    nonce: bytes
    address: str
    within_ms: float


@dataclass(frozen=True, slots=True)
class Probed(Message):
    """What came of it: an echo arrived in time, which takes both directions; or not, and why."""

    number: int
    nonce: bytes
    by: bytes
    reached: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Watches(Message):
    """A warden watches a further process, and sees the thread of its loop."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Look(Message):
    """The leader wants to know how the loop's thread of that process is."""

    token: int
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Seen(Message):
    """What a warden sees of a process.

    Attributes:
        at_ms: when it looked, by its own clock.
        state: letter of the loop's thread in /proc, "F" where its cgroup is frozen, "" where the warden
            knows no such process, or nothing of it.
        cpu_ms, delay_ms, slices, process_ms: as in `Pulse`.
        lag_ms: how late the warden itself is.
    """

    nonce: bytes
    at_ms: float
    state: str
    cpu_ms: float
    delay_ms: float
    slices: int
    process_ms: float
    lag_ms: float


@dataclass(frozen=True, slots=True)
class Kill(Message):
    """The leader orders a warden to end a process. It looks again before it does: at another sight than the
    one that the order is made of, it answers with `Seen` and leaves it alone.

    Attributes:
        expires_ms: after the warden's own time `seen_ms` at which the order is void.
        condition: "stopped", "blocked" or "burning".
        slices: how often the loop's thread had been given a CPU then.
    """

    token: int
    nonce: bytes
    expires_ms: float
    seen_ms: float
    condition: str
    slices: int
