"""Planned moves: put on record, asked of the owner, carried out once it has released.

A partition leaves a live process only by its release, and a release counts only for what this leader asked
for. What a process says that it lacks permits a new epoch for the same owner, never a move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mesh.core.members import Intent, Member
from mesh.core.signals import PartitionsReleased, Record
from mesh.core.table import Table


class Handovers:
    """Those of one mesh.

    Attributes:
        intents: planned moves, by partition.
        released: partitions of them whose owner has given them up.
        missing: partitions that their owner lacks, and gets anew under another epoch.
    """

    def __init__(self) -> None:
        self.intents: dict[int, Intent] = {}
        self.released: dict[int, None] = {}
        """In the order in which they came: the same in each run."""
        self.missing: set[int] = set()
        self._began: float | None = None
        self._fields: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Handovers({len(self.intents)} planned, {len(self.released)} released)"

    def plan(
        self, wanted: Mapping[int, bytes], table: Table, members: Iterable[Member], now: float
    ) -> dict[bytes, list[tuple[int, int]]]:
        """Plan these moves (partition → receiver's nonce); what is to be asked of whom, by nonce.

        Args:
            wanted: the moves.
            table: who owns what.
            members: all who give or receive.
            now: the time, in seconds.
        """
        asks: dict[bytes, list[tuple[int, int]]] = {}
        if not wanted:
            return asks
        for partition, target in wanted.items():
            intent = Intent(table.owner(partition).handler.nonce, table.epochs[partition], target)
            self.intents[partition] = intent
            asks.setdefault(intent.source, []).append((partition, intent.epoch))
        by_nonce = {m.row.nonce: m for m in members}
        ill = [by_nonce[nonce].weighed for nonce in asks]
        self._began = now
        self._fields = {
            "from": sorted({by_nonce[nonce].row.id for nonce in asks}),
            "to": sorted({by_nonce[nonce].row.id for nonce in wanted.values()}),
            "partitions": len(wanted),
            "why": next((weighed.why for weighed in ill if weighed), "balance"),
        }
        return asks

    def restore(self, intents: Mapping[int, Intent], table: Table) -> None:
        """Take up what an earlier leader had planned; what does not fit its table is over."""
        for partition, intent in intents.items():
            owner, epoch = table.owner(partition)
            if (owner.nonce, epoch) == (intent.source, intent.epoch):
                self.intents[partition] = intent

    def on_released(self, event: PartitionsReleased) -> None:
        """Partitions were given up, or are not held by whom they were asked of."""
        for partition, epoch in event.partitions:
            if self._is_asked(partition, event.nonce, epoch):
                self.released[partition] = None
        for partition, epoch in event.not_held:
            if self._is_asked(partition, event.nonce, epoch):
                # It was not released, so it must not move. A new epoch for the same owner is all that
                # is allowed; without it the same intent would be made, and refused, for ever.
                self.lost(partition)

    def _is_asked(self, partition: int, nonce: bytes, epoch: int) -> bool:
        intent = self.intents.get(partition)
        return intent is not None and (intent.source, intent.epoch) == (nonce, epoch)

    def lost(self, partition: int) -> None:
        """Its owner lacks it, and will not release it any more: what is lost must not move."""
        self.intents.pop(partition, None)
        self.released.pop(partition, None)
        self.missing.add(partition)

    def settle(self, partitions: Sequence[int]) -> None:
        """They move, or have moved: what was planned for them before is over."""
        if self.intents or self.missing:  # what is released has an intent
            for partition in partitions:
                self.released.pop(partition, None)
                self.intents.pop(partition, None)
                self.missing.discard(partition)

    def ended(self, now: float) -> list[Record]:
        """The event of a handover that is through."""
        if self._began is None or self.intents:
            return []
        took_s = now - self._began
        self._began = None
        fields = {**self._fields, "took_ms": round(took_s * 1000, 3)}
        return [Record("handover", fields, took_s)]
