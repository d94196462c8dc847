"""Which calls of a session are not settled, and whether anything that it sent may still be under way.

A request names the lowest unsettled number among the calls for its partition: records are kept partition by
partition, so one call that takes an hour holds up the forgetting of its own partition only.

Once every attempt of every call was answered, no copy of any of them exists: an attempt is on one connection,
and its answer ends it. A client that closes in this state may have its session forgotten at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container


class Unsettled:
    """Bookkeeping of one session's numbers.

    Args:
        calls: the numbers of calls that have not ended.

    Attributes:
        in_doubt: an attempt was on a connection that broke: it may be read at any later time.
    """

    __slots__ = ("_calls", "_given_up", "_order", "in_doubt")

    def __init__(self, calls: Container[int]) -> None:
        self._calls = calls
        self._order: dict[int, deque[int]] = {}
        self._given_up: dict[bytes, set[int]] = {}
        """Numbers that are in flight on a connection, and whose call has ended."""
        self.in_doubt = False

    def __repr__(self) -> str:
        given_up = sum(map(len, self._given_up.values()))
        return f"Unsettled({len(self._order)} partitions, {given_up} given up in flight)"

    def began(self, partition: int, counter: int) -> None:
        """A call began; numbers ascend."""
        order = self._order.get(partition)
        if order is None:
            self._order[partition] = deque((counter,))
        else:
            order.append(counter)

    def lowest(self, partition: int) -> int:
        """Of the calls for that partition, one of which has not ended."""
        order, calls = self._order[partition], self._calls
        while order[0] not in calls:
            order.popleft()
        return order[0]

    def forget_settled(self) -> None:
        """Drop what is left of calls that have ended."""
        calls, kept = self._calls, {}
        for partition, order in self._order.items():
            left = deque(counter for counter in order if counter in calls)
            if left:
                kept[partition] = left
        self._order = kept

    def given_up(self, nonce: bytes, counter: int) -> None:
        """A call ended while an attempt of it was in flight on that connection."""
        self._given_up.setdefault(nonce, set()).add(counter)

    def answered(self, nonce: bytes, counter: int) -> None:
        """An answer came for a call that has ended."""
        given_up = self._given_up.get(nonce)
        if given_up is not None:
            given_up.discard(counter)

    def lost(self, nonce: bytes) -> None:
        """The connection broke."""
        if self._given_up.pop(nonce, None):
            self.in_doubt = True

    @property
    def is_answered(self) -> bool:
        """Every attempt was answered, of those whose calls have ended."""
        return not self.in_doubt and not any(self._given_up.values())
