"""The store calls of a leader: the one that is under way, and those of which it is still being told.

Only one is under way at a time: what happens meanwhile is taken into the next one, so several deaths at once
cost one call. Its failovers are over when it was published and whoever gained by it has taken up its grant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.core.members import Failover, record_failover
from mesh.core.records import Takeover
from mesh.core.signals import Record
from mesh.core.table import Table


@dataclass(slots=True)
class Operation:
    """One call, with what follows from it once the store has it.

    Attributes:
        call: what the store is asked.
        table: who owns what afterwards.
        changed: whose grants change by it; in an order that is the same in each run.
        failovers: the deaths that it deals with.
        asks: what is to be asked of whom once the plan is on record.
        retry_at: when it is sent again, after its connection broke.
        published: whether everybody was told.
        waiting_for: the version of its grant that each receiver has not taken up yet.
    """

    call: Takeover
    table: Table
    changed: dict[bytes, None]
    failovers: list[Failover]
    asks: dict[bytes, list[tuple[int, int]]]
    retry_at: float | None = None
    published: bool = False
    waiting_for: dict[bytes, int] = field(default_factory=dict)

    def enrolls(self, nonce: bytes) -> bool:
        """That process is on its way into the mesh."""
        return any(nonce == n for n, _ in self.call.enroll)

    def revokes(self, nonce: bytes) -> bool:
        """Its grant is on its way out."""
        return nonce in self.call.revoke


class Takeovers:
    """Those of one leader.

    Args:
        life: in which the calls are made.
        token: the leader's; with the life and a number it names each call.
        has_adopted: whether the process of that nonce has taken up that version of its grant, or never will.

    Attributes:
        current: the call that is under way.
    """

    def __init__(self, life: int, token: int, has_adopted: Callable[[bytes, int], bool]) -> None:
        self.current: Operation | None = None
        self._names = token.to_bytes(4, "big") + life.to_bytes(8, "big")
        self._has_adopted = has_adopted
        self._publishing: dict[bytes, Operation] = {}
        self._numbers = 0

    def __repr__(self) -> str:
        return f"Takeovers({self._numbers} made, {len(self._publishing)} being told)"

    @property
    def at_rest(self) -> bool:
        """None is under way, and whoever gained by the last ones has taken it up."""
        return self.current is None and not self._publishing

    def next_name(self) -> bytes:
        """A name for the next call."""
        self._numbers += 1
        return self._names + self._numbers.to_bytes(4, "big")

    def done(self) -> Operation:
        """The current call is acknowledged; what follows from it is being told."""
        assert self.current is not None
        operation, self.current = self.current, None
        self._publishing[operation.call.operation] = operation
        return operation

    def on_published(self, name: bytes, now: float) -> list[Record]:
        """Everybody was told of that call."""
        operation = self._publishing.get(name)
        if operation is None:
            return []
        operation.published = True
        for failover in operation.failovers:
            failover.published_at = now
        return self._finished(operation, now)

    def on_adopted(self, now: float) -> list[Record]:
        """Somebody has taken up a grant."""
        return [r for op in list(self._publishing.values()) for r in self._finished(op, now)]

    def _finished(self, operation: Operation, now: float) -> list[Record]:
        """The failovers of a call whose new owners have all taken up their grants."""
        for nonce, version in list(operation.waiting_for.items()):
            if self._has_adopted(nonce, version):
                del operation.waiting_for[nonce]
        if operation.waiting_for or not operation.published:
            return []
        del self._publishing[operation.call.operation]
        return [
            record_failover(failover, now) for failover in operation.failovers if failover.is_news
        ]
