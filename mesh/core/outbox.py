"""What waits to be committed, and in which batches it goes.

Two lanes take turns for speed, and each class of durability has its own (mesh.core.lanes). Within a class a
partition with a batch in flight takes part in no other one until that one is acknowledged, so batches of one
partition never overtake each other (measured: of two 64 KiB batches on two connections, 77 of 200 were
executed in the wrong order). A batch is capped: 300,000 writes in one call stop the store for a second, and
Sentinel then calls it dead.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mesh.core.lanes import LANES, LANES_OF
from mesh.core.records import Entry, GrantRef
from mesh.specs import Durability

MAX_COMMANDS = 512
MAX_BYTES = 1024 * 1024


class Change:
    """One command's effect on its way to the store: fields to write, and to delete."""

    __slots__ = ("deleted", "durability", "epoch", "fields", "partition", "size")

    def __init__(
        self,
        partition: int,
        epoch: int,
        fields: dict[bytes, bytes],
        deleted: list[bytes],
        durability: Durability = "replicated",
    ) -> None:
        self.durability = durability
        self.partition = partition
        self.epoch = epoch
        self.fields = fields
        self.deleted = deleted
        size = 0
        for name, value in fields.items():
            size += len(name) + len(value)
        self.size = size

    def acknowledged(self) -> None:
        """It is on every in-sync node, and no call waits for it."""


@dataclass(slots=True, eq=False)
class Batch:
    """One flush on one lane.

    Attributes:
        seq: its number on the lane.
        changes: for each entry the changes it was put together from, in order.
        clean: so far sent at most once, on a connection that did not break: what the store refuses of
            it was not executed.
        renewal: the number that its last send carried.
        grant: under which that was; None before the first one.
        is_kept: it was acknowledged once, and is sent again to a primary that lacks it (mesh.core.history).
    """

    lane: int
    seq: int
    entries: list[Entry]
    changes: list[list[Change]]
    clean: bool = True
    renewal: int = 0
    grant: GrantRef | None = None
    is_kept: bool = False


class Outbox:
    """Queues of changes by class and partition, and at most one batch in flight a lane."""

    def __init__(self) -> None:
        self._queues: dict[Durability, dict[int, deque[Change]]] = {d: {} for d in LANES_OF}
        self._in_flight: list[Batch | None] = [None] * len(LANES)
        self._busy: dict[Durability, set[int]] = {d: set() for d in LANES_OF}
        self._last_seq = [0] * len(LANES)
        self.queued = 0
        """Number of changes that are in no batch yet."""

    def __repr__(self) -> str:
        flying = [len(b.entries) if b else 0 for b in self._in_flight]
        return f"Outbox(queued={self.queued}, partitions in flight={flying})"

    def add(self, change: Change) -> None:
        """Queue a change behind those of its partition."""
        queues = self._queues[change.durability]
        queue = queues.get(change.partition)
        if queue is None:
            queue = queues[change.partition] = deque()
        queue.append(change)
        self.queued += 1

    def is_settled(self, partition: int) -> bool:
        """Nothing of the partition is queued or in flight."""
        return not any(partition in queues for queues in self._queues.values()) and not any(
            partition in busy for busy in self._busy.values()
        )

    def has_queued(self, durability: Durability) -> bool:
        """Some change of that class is in no batch yet."""
        return bool(self._queues[durability])

    def sends_at_once(self, partition: int, durability: Durability) -> bool:
        """A change of that partition and class would not have to wait for any other."""
        if self._queues[durability] or partition in self._busy[durability]:
            return False
        return any(self._in_flight[lane] is None for lane in LANES_OF[durability])

    def next_batch(self, lane: int) -> Batch | None:
        """Take what the lane may send now; None if it is taken, or there is nothing to send."""
        queues, busy = self._queues[LANES[lane]], self._busy[LANES[lane]]
        if self._in_flight[lane] is not None or not queues:
            return None
        entries: list[Entry] = []
        changes: list[list[Change]] = []
        commands = size = 0
        for partition in [p for p in queues if p not in busy]:
            queue = queues[partition]
            epoch = queue[0].epoch
            taken: list[Change] = []
            while queue and queue[0].epoch == epoch and commands < MAX_COMMANDS:
                if commands and size + queue[0].size > MAX_BYTES:
                    break
                change = queue.popleft()
                taken.append(change)
                commands += 1
                size += change.size
            if taken:
                entries.append(_merge(partition, epoch, taken))
                changes.append(taken)
            if not queue:
                del queues[partition]
            if commands >= MAX_COMMANDS or (queue and taken):
                break
        if not entries:
            return None
        self.queued -= commands
        busy.update(entry.partition for entry in entries)
        self._last_seq[lane] += 1
        batch = Batch(lane, self._last_seq[lane], entries, changes)
        self._in_flight[lane] = batch
        return batch

    def acknowledged(self) -> dict[int, int]:
        """By lane, the number of the last batch that is over, where there is one that must not be lost."""
        over: dict[int, int] = {}
        for lane, durability in enumerate(LANES):
            seq = self._last_seq[lane] - (self._in_flight[lane] is not None)
            if seq and durability != "async":
                over[lane] = seq
        return over

    def last_seq(self, lane: int) -> int:
        """The highest number that was given to a batch of that lane."""
        return self._last_seq[lane]

    def done(self, batch: Batch) -> None:
        """The batch has its verdict; the lane and its partitions are free again."""
        if self._in_flight[batch.lane] is not batch:
            raise ValueError(f"batch {batch.seq} is not in flight on lane {batch.lane}")
        self._in_flight[batch.lane] = None
        self._busy[LANES[batch.lane]].difference_update(e.partition for e in batch.entries)

    def drop(self, partition: int) -> list[Change]:
        """Take back what is queued of a partition and was never sent."""
        dropped: list[Change] = []
        for queues in self._queues.values():
            dropped += queues.pop(partition, ())
        self.queued -= len(dropped)
        return dropped


def _merge(partition: int, epoch: int, changes: list[Change]) -> Entry:
    """Values are absolute: of several writes to one field only the last one has to be sent."""
    if len(changes) == 1:
        return Entry(partition, epoch, changes[0].fields, changes[0].deleted)
    fields: dict[bytes, bytes] = {}
    deleted: dict[bytes, None] = {}
    for change in changes:
        for name in change.deleted:
            fields.pop(name, None)
            deleted[name] = None
        for name, value in change.fields.items():
            deleted.pop(name, None)
            fields[name] = value
    return Entry(partition, epoch, fields, list(deleted))
