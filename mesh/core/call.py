"""One call of a client, through all its attempts, and how it ended.

What is kept of a call is what decides its end: whether the fate of an attempt is unknown, which processes may
have died of it, how old it is. mesh.core.calling changes it; whoever has made the call gets its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mesh.core.wire import Status
from mesh.errors import MeshError

_NOBODY: frozenset[bytes] = frozenset()
_BACKOFF_S = 0.002


class Result(NamedTuple):
    """How a call ended: a reply's payload, or an error and the handler's status that says so."""

    payload: bytes = b""
    error: MeshError | None = None
    status: int = Status.OK


class Call:
    """One call, through all its attempts."""

    __slots__ = (
        "attempt",
        "backoff",
        "conn",
        "counter",
        "deadline",
        "deaths",
        "done",
        "epoch",
        "idempotency_key",
        "maybe",
        "partition",
        "payload",
        "priority",
        "sent",
        "settled",
        "slept",
        "started",
        "suspects",
        "taken_up",
    )

    def __init__(
        self,
        counter: int,
        partition: int,
        payload: bytes,
        started: float,
        deadline: float,
        done: Callable[[Result], None],
        priority: int,
        idempotency_key: str | None,
    ) -> None:
        self.counter = counter
        self.partition = partition
        self.payload = payload
        self.started = started
        self.deadline = deadline
        self.done = done
        self.priority = priority
        self.idempotency_key = idempotency_key
        self.attempt = 0
        self.epoch: int | None = None
        """That the last attempt was sent for."""
        self.sent = started
        """When its first attempt was sent."""
        self.slept = 0.0
        """Seconds since then that the clock does not count."""
        self.backoff = _BACKOFF_S
        self.conn: bytes | None = None
        self.maybe = False
        """An attempt was sent whose fate is not known."""
        self.suspects = _NOBODY
        """Processes whose connection broke with this call in flight, and which may have begun it."""
        self.deaths = 0
        """As the last attempt named them: how many others than the one that it was sent to."""
        self.taken_up = False
        """Whoever got the last attempt said so."""
        self.settled = False
