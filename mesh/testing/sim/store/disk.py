"""A node's disk: an append-only file as a list of what was written, and how far it was synced.

It outlives the node, which gets it at its start. A process that is killed loses nothing that it had
handed to the kernel; a machine that loses power loses what was not synced.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeAlias

Commands: TypeAlias = Sequence[Sequence[bytes]]
"""What one command or function wrote: all of it or none."""


class Disk:
    """What a node finds when it starts again.

    Attributes:
        base: the data that the file begins with; empty: none.
        entries: (database, commands) written behind it.
        synced: how many of these are certain to survive a loss of power.
    """

    __slots__ = ("base", "entries", "synced")

    def __init__(self) -> None:
        self.base = b""
        self.entries: list[tuple[int, Commands]] = []
        self.synced = 0

    def __repr__(self) -> str:
        return f"<Disk {len(self.base)} bytes and {len(self.entries)} writes, {self.synced} synced>"

    def begin(self, base: bytes) -> None:
        """A whole new file, as after a full resync."""
        self.base, self.entries, self.synced = base, [], 0

    def append(self, database: int, commands: Commands) -> None:
        """Write, unsynced."""
        self.entries.append((database, commands))

    def sync(self) -> None:
        """All that was written survives a loss of power from now on."""
        self.synced = len(self.entries)

    def lose_power(self, dice: random.Random) -> None:
        """Cut the file somewhere behind what was synced."""
        del self.entries[dice.randint(self.synced, len(self.entries)) :]

    def wipe(self) -> None:
        """An empty disk."""
        self.begin(b"")

    def copy(self) -> Disk:
        """Its state now, for `restore`."""
        other = Disk()
        other.base, other.entries, other.synced = self.base, list(self.entries), self.synced
        return other

    def restore(self, earlier: Disk) -> None:
        """Roll back to a copy made before, as an operator does who restores a snapshot."""
        self.base, self.synced = earlier.base, earlier.synced
        self.entries = list(earlier.entries)
