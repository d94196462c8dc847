"""What waits to be committed, and in which batches it goes.

Two lanes take turns for speed. A partition with a batch in flight takes part in no other one until that one
is acknowledged, so batches of one partition never overtake each other (measured: of two 64 KiB batches
on two connections, 77 of 200 were executed in the wrong order). A batch is capped: 300,000
writes in one call stop the store for a second, and Sentinel then calls it dead.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mesh.core.records import Entry, GrantRef

MAX_COMMANDS = 512
MAX_BYTES = 1024 * 1024


class Change:
    """One command's effect on its way to the store: fields to write, and to delete."""

    __slots__ = ("deleted", "epoch", "fields", "partition", "size")

    def __init__(
        self, partition: int, epoch: int, fields: dict[bytes, bytes], deleted: list[bytes]
    ) -> None:
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
    """

    lane: int
    seq: int
    entries: list[Entry]
    changes: list[list[Change]]
    clean: bool = True
    renewal: int = 0
    grant: GrantRef | None = None


class Outbox:
    """Queues of changes by partition, and at most one batch in flight a lane."""

    def __init__(self, lanes: int) -> None:
        self._queues: dict[int, deque[Change]] = {}
        self._in_flight: list[Batch | None] = [None] * lanes
        self._busy: set[int] = set()
        self._last_seq = [0] * lanes
        self.queued = 0
        """Number of changes that are in no batch yet."""

    def __repr__(self) -> str:
        flying = [len(b.entries) if b else 0 for b in self._in_flight]
        return f"Outbox(queued={self.queued}, partitions in flight={flying})"

    def add(self, change: Change) -> None:
        """Queue a change behind those of its partition."""
        queue = self._queues.get(change.partition)
        if queue is None:
            queue = self._queues[change.partition] = deque()
        queue.append(change)
        self.queued += 1

    def is_settled(self, partition: int) -> bool:
        """Nothing of the partition is queued or in flight."""
        return partition not in self._queues and partition not in self._busy

    def sends_at_once(self, partition: int) -> bool:
        """A change of that partition would not have to wait for any other."""
        return not self.queued and partition not in self._busy and None in self._in_flight

    def next_batch(self, lane: int) -> Batch | None:
        """Take what the lane may send now; None if it is taken, or there is nothing to send."""
        if self._in_flight[lane] is not None or not self.queued:
            return None
        entries: list[Entry] = []
        changes: list[list[Change]] = []
        commands = size = 0
        for partition in [p for p in self._queues if p not in self._busy]:
            queue = self._queues[partition]
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
                del self._queues[partition]
            if commands >= MAX_COMMANDS or (queue and taken):
                break
        if not entries:
            return None
        self.queued -= commands
        self._busy.update(entry.partition for entry in entries)
        self._last_seq[lane] += 1
        batch = Batch(lane, self._last_seq[lane], entries, changes)
        self._in_flight[lane] = batch
        return batch

    def done(self, batch: Batch) -> None:
        """The batch has its verdict; the lane and its partitions are free again."""
        if self._in_flight[batch.lane] is not batch:
            raise ValueError(f"batch {batch.seq} is not in flight on lane {batch.lane}")
        self._in_flight[batch.lane] = None
        self._busy.difference_update(entry.partition for entry in batch.entries)

    def drop(self, partition: int) -> list[Change]:
        """Take back what is queued of a partition and was never sent."""
        queue = self._queues.pop(partition, None)
        if queue is None:
            return []
        self.queued -= len(queue)
        return list(queue)


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
