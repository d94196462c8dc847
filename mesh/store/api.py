"""What every store has to do: the contract that the in-memory one and the Redis one both pass.

A store keeps one hash per (mesh, lane of a partition) with the state and outcome records of its
keys, one grant per handler process, the life, the leader's token and the table. Each function below
is one atomic step that checks everything before its first write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from mesh.core.records import (
    Bid,
    ChangeSet,
    CommitReply,
    Entry,
    GrantRef,
    LoadReply,
    OpenLife,
    Recorded,
    ScanReply,
    SweepReply,
    Takeover,
    TakeoverReply,
    Want,
)
from mesh.core.storeview import StoreSeen
from mesh.errors import MeshError

SWEEP_MOST = 128
"""Most fields of a partition that a sweep reads."""
SWEEP_BYTES = 65_536
"""Most memory of a partition that a sweep reads."""
SWEEP_BUDGET = 4096
"""Most fields that a sweep reads in all, and then those of one partition more."""
RENEWAL_ONLY = 0
"""In place of a batch's seq, with no entries: below all of them, so that it counts as a repetition of one and
writes nothing but the renewal number. A server that is out of memory takes it all the same.
"""


class StoreUnreachable(MeshError):
    """The connection could not be made, or broke. `executed` None: the call may have been carried
    out;
    False: it was never sent. Send the same call again: each of them recognises its repetition.
    """


class StoreRefused(MeshError):
    """The server itself refused the call and wrote nothing (out of memory, too few replicas,
    read-only).

    Attributes:
        code: the server's error code, such as OOM, NOREPLICAS, READONLY, LOADING, MISCONF, NOAUTH,
        NOPERM.
        transient: whether the same call may succeed later without anyone's doing.
    """

    def __init__(self, message: str, *, code: str, transient: bool) -> None:
        super().__init__(message)
        self.code = code
        self.transient = transient


class Store(Protocol):
    """One process's access to the store. No method is ever repeated silently."""

    def commit(
        self, lane: int, grant: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> asyncio.Future[CommitReply]:
        """Write one batch: last seq + 1 is applied, at or below it is a duplicate, else GAP; a lane of class
        "async" takes any number above the last.

        The lane's class (mesh.core.lanes) says what `acknowledged` stands for: "replicated", every
        in-sync node has it; "fsynced", on its disk; "async", the primary has it.

        A duplicate writes no entry again but touches a counter, so that its WAIT means something;
        its verdicts say whether each partition's epoch still stands. Calls on one lane never
        overlap. The reply's `acknowledged` may be False: send the same batch again and judge by
        that reply. Where the connection is open, the batch has left when this returns.
        """
        ...

    def async_lag_s(self) -> float:
        """For how long the oldest write of class "async" that this process knows of has not been on
        every in-sync node, in seconds; 0 where all are.
        """
        ...

    async def load(self, grant: GrantRef, wants: Sequence[Want]) -> LoadReply:
        """Read fields of partitions that the grant holds at the epochs named.

        Each want has a verdict of its own: one partition whose key is no hash stops no other's read.
        """
        ...

    async def scan(self, grant: GrantRef, partition: int, epoch: int, cursor: int) -> ScanReply:
        """Read a partition's hash page by page; a field present throughout is seen at least once.

        Status CONFLICT: the grant does not hold the partition at that epoch. `unreadable`: it does,
        and its key is no hash.
        """
        ...

    async def sweep(self, grant: GrantRef, tenures: Sequence[tuple[int, int]]) -> SweepReply:
        """Read small partitions whole, pairs of (partition, epoch), in one call.

        A partition of more than SWEEP_MOST fields or SWEEP_BYTES, or beyond SWEEP_BUDGET fields in
        all, is left to `scan`, and so is one that is not held, or cannot be read.
        """
        ...

    async def takeover(self, call: Takeover) -> TakeoverReply:
        """Change who owns what, in one step, and say whether that is acknowledged."""
        ...

    async def open_life(self, call: OpenLife) -> TakeoverReply:
        """Begin a life on the primary: recorded run id = the server's own.

        Active grants go on in it, each under its next version.
        """
        ...

    async def bid(self, call: Bid) -> TakeoverReply:
        """Take the lead in the life that is open, and say whether that is acknowledged."""
        ...

    async def change_set(self, call: ChangeSet) -> TakeoverReply:
        """Record the next in-sync set, and say whether that one acknowledges it.

        Status CONFLICT: not the next version, or nobody left; OLD: what it rests on is out of date.
        """
        ...

    async def clock_us(self) -> int:
        """The primary's clock, in microseconds; read before the evidence for a set's change is asked."""
        ...

    async def recorded(self) -> Recorded:
        """What the primary has on record."""
        ...

    async def renewals(self, life: int, nonces: Sequence[bytes]) -> dict[bytes, int] | None:
        """Last renewal number of each grant named that is on record; None: the life is closed."""
        ...

    async def links(self) -> tuple[str, ...]:
        """Names of the replicas attached to the primary, as its ROLE lists them."""
        ...

    def nodes(self) -> StoreNodes:
        """A leader's access to each of the store's nodes by itself; closed by whoever asked for it."""
        ...

    def use(self, node: str) -> None:
        """Deal with this node where more than one says that it is the primary: its leader has decided."""
        ...

    async def close(self) -> None:
        """Close every connection; calls under way end with StoreUnreachable."""
        ...


class StoreNodes(Protocol):
    """What a leader may ask of the nodes and of the Sentinels, and tell them. Nothing here raises for one
    that does not answer.
    """

    async def look(self, *, sentinels: bool) -> StoreSeen:
        """Ask every node what it is, and then, if told so, every Sentinel what it sees."""
        ...

    def follow(self, node: str, primary: str) -> None:
        """REPLICAOF, on the very connection on which that node said at the last look that it is a replica."""
        ...

    def set_priority(self, node: str, priority: int) -> None:
        """CONFIG SET replica-priority; one that is stopped does it when it goes on."""
        ...

    def fail_over(self, node: str) -> None:
        """Have a Sentinel promote that node."""
        ...

    def end_tilt(self, sentinels: tuple[str, ...], tilt_ms: int) -> None:
        """Set the tilt-period of these Sentinels."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
