"""Leases that have to run out before anybody else may answer, as the leader counts them.

A process that is not proven dead may answer queries from memory for as long as its lease lasts. A takeover
revokes its grant, so it renews no more; what it renewed last it sent before the leader first saw that number.
So its lease is out L·(1 + drift) after that moment (mesh.core.lease), and not before. Nobody is told of its
partitions until then, whatever the table says: a table's entry is no permission.

    a partition waits for      every process that may still answer for it, not until a time
    it moves on meanwhile      and takes its waits along, whoever dies or is revoked in between
    a process is proven dead   nothing waits for it any more
    another leader, or life    waits for the whole of each lease again, counted from its own beginning

What a leader saw counts in its own life alone: a store that went back in time has other numbers, and whether
this one was ever replicated nobody knows (schedules F10 and R1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from mesh.core.epochs import pack_epochs, unpack_epochs
from mesh.core.lease import LeaseTiming


class Waits:
    """Those of one leader in one life.

    Args:
        timing: of the mesh.
    """

    def __init__(self, timing: LeaseTiming) -> None:
        self._timing = timing
        self._seen: dict[bytes, tuple[int, float]] = {}
        """By nonce the last renewal number, and when it was first seen."""
        self._ends: dict[bytes, float] = {}
        """By nonce of a process that is waited for, when its lease is out; inf until its revocation is
        acknowledged.
        """
        self._of: dict[int, set[bytes]] = {}
        """By partition, whom it waits for."""

    def __repr__(self) -> str:
        return f"Waits({len(self._of)} partitions for {len(self._ends)} processes)"

    def __contains__(self, partition: int) -> bool:
        return partition in self._of

    def __bool__(self) -> bool:
        return bool(self._of)

    def among(self, partitions: Iterable[int]) -> list[int]:
        """Those of them that wait."""
        return [p for p in partitions if p in self._of] if self._of else []

    # --------------------------------------------------------------- renewals

    def saw(self, numbers: Mapping[bytes, int], now: float) -> None:
        """The renewal numbers on record, read by `now`."""
        for nonce, number in numbers.items():
            seen = self._seen.get(nonce)
            if seen is None or seen[0] != number:
                self._seen[nonce] = number, now

    def out_at(self, nonce: bytes) -> float | None:
        """When the lease that the last renewal gave is out; None: no number was ever seen."""
        seen = self._seen.get(nonce)
        return None if seen is None else seen[1] + self._timing.out_s

    # ------------------------------------------------------------------ waits

    def begin(self, nonce: bytes, partitions: Iterable[int], until: float = math.inf) -> None:
        """These partitions wait for that process, along with whom they wait for already."""
        self._ends[nonce] = until
        for partition in partitions:
            self._of.setdefault(partition, set()).add(nonce)

    def revoked(self, nonce: bytes, number: int, now: float) -> None:
        """Its revocation is acknowledged, and that was its last renewal; nothing, if nobody waits for it."""
        if nonce in self._ends:
            self.saw({nonce: number}, now)
            self._ends[nonce] = self._seen[nonce][1] + self._timing.out_s
        self._seen.pop(nonce, None)

    def end(self, nonce: bytes) -> list[int]:
        """Nobody has to wait for that process: it is proven dead. The partitions that wait no more."""
        return self._ended({nonce}) if self._ends.pop(nonce, None) is not None else []

    def over(self, now: float) -> list[int]:
        """Leases have run out: the partitions that wait no more."""
        out = {nonce for nonce, end in self._ends.items() if end <= now}
        for nonce in out:
            del self._ends[nonce]
        return self._ended(out) if out else []

    def _ended(self, out: set[bytes]) -> list[int]:
        ended: list[int] = []
        for partition, nonces in list(self._of.items()):
            nonces.difference_update(out)
            if not nonces:
                del self._of[partition]
                ended.append(partition)
        return ended

    def end_of(self, partition: int) -> None:
        """Its owner was told by an earlier leader, which had waited for it."""
        self._of.pop(partition, None)

    # ----------------------------------------------------------------- record

    def encode(self) -> list[list[bytes]]:
        """For a later leader: whom which partitions wait for, packed."""
        by_nonce: dict[bytes, list[int]] = {}
        for partition, nonces in self._of.items():
            for nonce in nonces:
                by_nonce.setdefault(nonce, []).append(partition)
        return [[nonce, pack_epochs(partitions)] for nonce, partitions in by_nonce.items()]

    def restart(self, recorded: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """Wait again, for the whole of each lease, for all that an earlier leader has recorded."""
        for nonce, packed in recorded:
            self.begin(nonce, unpack_epochs(packed), now + self._timing.out_s)
