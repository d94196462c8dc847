"""What a handler holds: an epoch for each partition, and memory of those that were asked for.

A takeover gives a handler thousands of partitions at once, and until it has taken them up their calls wait.
So a grant costs a number for each partition that it changes. The Tenure is made when the partition is first
touched: by a call, by a read ahead of calls, by its release. One that is not touched has nothing in memory,
nothing queued and nobody who waits for it, so that there is nothing to be looked at when it goes.

What is held is always part of what the last grant named, for the rest of it was released or lost since. A
grant that names the same again therefore changes nothing, and of another one only what differs has to be
looked at.
"""

from __future__ import annotations

from array import array

from mesh.core.epochs import NOT_HELD, differing, pack_epochs
from mesh.core.retention import Retention
from mesh.core.tenure import Home, Tenure


class Tenures:
    """Those of one handler.

    Args:
        partitions: of the mesh.
        retention: how long each remembers outcomes.
        home: what all share.

    Attributes:
        in_memory: those that were touched, by partition. The object stays the same: calls look here.
        epochs: of what is held, by partition; NOT_HELD of all others.
        released: the last epoch of each partition that was given up.
        revoked: the grant has ended for good, and nothing will be held any more.
    """

    __slots__ = (
        "_granted",
        "_home",
        "_retention",
        "epochs",
        "in_memory",
        "released",
        "revoked",
    )

    def __init__(self, partitions: int, retention: Retention, home: Home) -> None:
        self.in_memory: dict[int, Tenure] = {}
        self.epochs = array("I", [NOT_HELD]) * partitions
        self.released: dict[int, int] = {}
        self.revoked = False
        self._granted = self.epochs[:]
        self._retention = retention
        self._home = home

    def __len__(self) -> int:
        return len(self.epochs) - self.epochs.count(NOT_HELD)

    def __repr__(self) -> str:
        return f"Tenures({len(self)} held, {len(self.in_memory)} in memory)"

    def __contains__(self, partition: int) -> bool:
        return 0 <= partition < len(self.epochs) and self.epochs[partition] != NOT_HELD

    def __getitem__(self, partition: int) -> Tenure:
        tenure = self.take(partition)
        if tenure is None:
            raise KeyError(f"partition {partition} is not held")
        return tenure

    def take(self, partition: int) -> Tenure | None:
        """The tenure of a partition if it is held, made now if nobody has touched it before."""
        tenure = self.in_memory.get(partition)
        if tenure is None and partition in self:
            tenure = Tenure(partition, self.epochs[partition], self._retention, self._home)
            self.in_memory[partition] = tenure
        return tenure

    def has(self, tenure: Tenure) -> bool:
        """It goes on: it was not released, and not lost."""
        return self.in_memory.get(tenure.partition) is tenure

    def held(self) -> list[int]:
        """The partitions."""
        return [partition for partition, epoch in enumerate(self.epochs) if epoch]

    def compare(self, epochs: array[int]) -> list[int]:
        """A grant came with these epochs: the partitions of which it says what the last one did not."""
        before, self._granted = self._granted, epochs
        return differing(before, epochs)

    def adopt(self, partition: int, epoch: int) -> None:
        """It is held from now on."""
        self.epochs[partition] = epoch

    def end(self, partition: int) -> Tenure | None:
        """It is not held any more; what was in memory of it."""
        self.epochs[partition] = NOT_HELD
        return self.in_memory.pop(partition, None)

    def packed(self) -> bytes:
        """The epochs of what is held, as a grant has them."""
        return pack_epochs(self.epochs)
