"""Calls for partitions that are on their way to or from this handler, held for a moment.

A client may hear of a new owner before that owner does, and a caller of one that gives up comes too early for
the next one. Sending them away at once would have them come back a hundred times; they wait here, each until
its own time, for a grant or for a table that names somebody else.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.core.tenure import Conn
from mesh.core.wire import Request


class Held(NamedTuple):
    """A call that is held until `until`, and given up at its deadline."""

    conn: Conn
    request: Request
    deadline: float
    until: float


class HeldCalls:
    """All of one handler, by partition, in order of arrival.

    Attributes:
        count: how many there are.
    """

    __slots__ = ("_by_partition", "count")

    def __init__(self) -> None:
        self._by_partition: dict[int, list[Held]] = {}
        self.count = 0

    def __repr__(self) -> str:
        return f"HeldCalls({self.count} for {len(self._by_partition)} partitions)"

    def add(self, held: Held) -> None:
        """Hold it."""
        self._by_partition.setdefault(held.request.partition, []).append(held)
        self.count += 1

    def partitions(self) -> list[int]:
        """That calls are held for."""
        return list(self._by_partition)

    def take(self, partition: int) -> list[Held]:
        """Those for a partition, to be decided anew."""
        calls = self._by_partition.pop(partition, [])
        self.count -= len(calls)
        return calls

    def due(self, now: float) -> list[Held]:
        """Those whose time is over."""
        over: list[Held] = []
        for partition, calls in list(self._by_partition.items()):
            left = [held for held in calls if held.until > now]
            if len(left) == len(calls):
                continue
            over += [held for held in calls if held.until <= now]
            if left:
                self._by_partition[partition] = left
            else:
                del self._by_partition[partition]
        self.count -= len(over)
        return over
