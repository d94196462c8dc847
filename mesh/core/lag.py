"""How far writes of class "async" are ahead of the replicas: what a failover at this moment would lose.

They are acknowledged once the primary has them, and nobody waits for the replicas. But each reply of the
store brings a ROLE, which says how far every replica is; so the age of the oldest write that some in-sync
node still lacks is known for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mesh.core.syncset import Role

_GRAIN_S = 0.01
"""Writes within that time are taken for one: all of them would be a long queue behind a slow replica."""


class Lag:
    """Of one process's writes."""

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead: deque[tuple[int, float]] = deque()
        """Offsets that some in-sync node lacks as far as is known, and when they were written."""

    def __repr__(self) -> str:
        return f"Lag({len(self._ahead)} grains ahead)"

    def wrote(self, offset: int, now: float) -> None:
        """The primary has a write, up to that offset of its stream."""
        ahead = self._ahead
        if not ahead or now - ahead[-1][1] >= _GRAIN_S:
            ahead.append((offset, now))

    def heard(self, role: Role, members: Iterable[str]) -> None:
        """The primary says how far its replicas are; one that it does not list has confirmed nothing."""
        ahead = self._ahead
        if not ahead:
            return
        confirmed = dict(role.links)
        least = min((confirmed.get(member, -1) for member in members), default=role.offset)
        while ahead and ahead[0][0] <= least:
            ahead.popleft()

    def seconds(self, now: float) -> float:
        """Age of the oldest write that some in-sync node lacks, as far as is known; 0 where there is none."""
        return max(0.0, now - self._ahead[0][1]) if self._ahead else 0.0
