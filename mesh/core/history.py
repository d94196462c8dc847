"""What a handler has had acknowledged while the in-sync set was short, kept in case that those few are lost.

While the set is complete, whatever is acknowledged is on every node that can be promoted, and nothing has to
be kept. A short set has left somebody behind. Should the primary and the members that are left be lost
together, the mesh goes on with the one that was left behind (`loss_possible` is reported), and then what the
handlers have is the only copy. So from the first batch that a short set acknowledges all are kept, until a
complete one acknowledges something: its members then have all that came before.

Memory would not do in their place: keys are evicted, outcome records are not all there, and what was written
first has to be there first (schedule F11). So batches are kept as they were sent, under their numbers, in the
order in which they were acknowledged; two batches of one partition, on whichever lanes, are never in the
wrong one. The order of each lane alone would not do (of two lanes that go on side by side one may
overtake the other, and reverse what a partition had).

In the next life each lane's last number is asked for first, by a batch whose number lies too far ahead to
be anybody's next: the store refuses it and says which is the last. What comes behind that is sent again, one
by one, and what is new waits until it is there: batches on their way, reads, releases. What the owner has
lost since is sent as well, and the store takes it where its record says that it is held, under that very
epoch: it is older than the loss. A number that is missing and not kept cannot be made good: that is reported
as `loss_possible` and ends the grant. It is asked for in each life, whatever is kept: a store may have gone
back that was said to keep all that it acknowledges.

It is bounded. Once it is full a batch that a short set acknowledges counts for nothing: its callers wait as
they do for a replica, and are refused after a while (mesh.core.writing).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgpack

from mesh.core.outbox import Batch
from mesh.core.records import Entry

_OVERHEAD_BYTES = 160
"""Of Python's, for each batch."""
_FAR = 2
"""Beyond the highest number that was given to a batch: nobody's next."""


class _Kept(NamedTuple):
    lane: int
    seq: int
    entries: bytes
    """Packed: a tenth of what the objects take, and nothing for the collector to look at."""


class History:
    """Of one handler process.

    Args:
        replicas: members of a complete set; 0: any set is complete.
        limit_bytes: that it may take; 0: nothing is kept, and any set is complete.

    Attributes:
        replicas: members of a set under which nothing has to be kept.
        size: bytes that it takes.
        is_full: what was acknowledged last is not in it, and was not taken for acknowledged.
        is_behind: the primary is another one since, and may lack some of what is kept here.
        is_due: something has to be sent before anything that is new.
        resent: batches that the primary of this life lacked.
    """

    __slots__ = (
        "_acknowledged",
        "_aside",
        "_at",
        "_kept",
        "_last",
        "_limit_bytes",
        "_to_ask",
        "_under_way",
        "is_behind",
        "is_due",
        "is_full",
        "replicas",
        "resent",
        "size",
    )

    def __init__(self, replicas: int, limit_bytes: int) -> None:
        self.replicas = replicas if limit_bytes else 0
        self.size = 0
        self.is_full = False
        self.is_behind = False
        self.is_due = False
        self.resent = 0
        self._limit_bytes = limit_bytes
        self._kept: list[_Kept] = []
        self._acknowledged: Mapping[int, int] = {}
        self._aside: dict[int, Batch] = {}
        """By lane: those that were on their way when the life ended, and wait for what comes before them."""
        self._to_ask: set[int] = set()
        self._last: dict[int, int] = {}
        self._at = 0
        self._under_way: dict[int, Batch] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        state = "full" if self.is_full else "behind" if self.is_behind else "kept"
        return (
            f"History({len(self._kept)} batches {state}, {self.size} of {self._limit_bytes} bytes)"
        )

    @property
    def reason(self) -> str:
        """Why nothing is acknowledged, and what to do about it."""
        return (
            f"fewer than {self.replicas} replicas are in sync, and what was written since they are "
            f"({self.size} bytes) fills the {self._limit_bytes} of history_bytes: bring the replica back"
        )

    # ------------------------------------------------------------------------- while the set is short

    def keep(self, batch: Batch) -> bool:
        """A short set has acknowledged it. False: there is no room for it, and it must not count."""
        rows = [(e.partition, e.epoch, e.fields, e.deleted) for e in batch.entries]
        packed: bytes = msgpack.packb(rows)
        size = len(packed) + _OVERHEAD_BYTES
        self.is_full = bool(self._kept) and self.size + size > self._limit_bytes
        if not self.is_full:
            self._kept.append(_Kept(batch.lane, batch.seq, packed))
            self.size += size
        return not self.is_full

    def forget(self) -> None:
        """A complete set has acknowledged something in this life."""
        if self.is_behind:
            return
        self._kept.clear()
        self.size = 0
        self.is_full = False

    # ---------------------------------------------------------------------------------- the next life

    def begin(self, acknowledged: Mapping[int, int]) -> None:
        """A later life begins, of a primary that may lack anything.

        Args:
            acknowledged: by lane, the number that it has to have.
        """
        self._acknowledged = acknowledged
        self._to_ask = set(acknowledged)
        self._last.clear()
        self._under_way.clear()
        self._at = self.resent = 0
        self.is_behind = bool(acknowledged)
        self._look()

    def end(self) -> None:
        """The grant is over: nothing of it is to be written any more."""
        self._kept.clear()
        self.size = 0
        self.is_full = False
        self.begin({})

    def waits(self, batch: Batch) -> bool:
        """Whether a batch that is about to be sent has to leave its lane to others; it comes back as `next`,
        unless it was for an earlier life.
        """
        if batch.is_kept:
            return self._under_way.get(batch.lane) is not batch
        if self.is_behind:
            self._aside[batch.lane] = batch
        return self.is_behind

    def next(self, lane: int, formed: int) -> Batch | None:
        """What that lane, which is free, has to send now.

        Args:
            formed: the highest number that any batch of the lane has.
        """
        batch = None
        if not self.is_behind:
            batch = self._aside.pop(lane, None)
            self._look()
        elif lane in self._to_ask:
            if lane not in self._under_way:
                batch = Batch(lane, formed + _FAR, [], [], is_kept=True)
                self._under_way[lane] = batch
        elif not self._to_ask and self._kept[self._at].lane == lane and not self._under_way:
            kept = self._kept[self._at]
            rows = msgpack.unpackb(kept.entries, strict_map_key=False)
            entries = [Entry(*row) for row in rows]
            batch = Batch(lane, kept.seq, entries, [[] for _ in entries], is_kept=True)
            self._under_way[lane] = batch
        return batch

    def is_under_way(self, batch: Batch) -> bool:
        """It was sent for this life's sake, and is not over."""
        return self._under_way.get(batch.lane) is batch

    def heard(self, batch: Batch, last: int) -> bool:
        """The store says what a lane's last number is. False: what follows it is not here."""
        del self._under_way[batch.lane]
        lacks = (kept.seq for kept in self._kept if kept.lane == batch.lane and kept.seq > last)
        is_whole = last >= self._acknowledged[batch.lane] or next(lacks, 0) == last + 1
        self._to_ask.discard(batch.lane)
        self._last[batch.lane] = last
        self._look()
        return is_whole

    def written(self, batch: Batch) -> None:
        """The store has it again, acknowledged."""
        del self._under_way[batch.lane]
        self._last[batch.lane] = batch.seq
        self.resent += 1
        self._look()

    def _look(self) -> None:
        """Pass over what the store has."""
        if self.is_behind and not self._to_ask:
            kept, at = self._kept, self._at
            while at < len(kept) and kept[at].seq <= self._last[kept[at].lane]:
                at += 1
            self._at = at
            self.is_behind = at < len(kept)
        self.is_due = self.is_behind or bool(self._aside)
