"""Which keys stay in memory: those used last, up to a number of bytes.

State that is not acknowledged yet is never evicted, whatever that costs: the store may not have it, and a
reload would bring back what was there before (counterexamples F6).
"""

from __future__ import annotations

from collections import OrderedDict

from mesh.core.tenure import Slot, Tenure

SLOT_OVERHEAD_BYTES = 600
"""What a key takes beside its state: the slot, the instance, its places in two dicts."""


class Cache:
    """All keys of one handler in order of use.

    Args:
        limit_bytes: beyond it the key used longest ago goes.
    """

    __slots__ = ("_limit_bytes", "_order", "_used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._order: OrderedDict[Slot, tuple[Tenure, bytes]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Cache({len(self._order)} keys, {self._used_bytes} of {self._limit_bytes} bytes)"

    @property
    def is_full(self) -> bool:
        """Taking in a key would push out another."""
        return self._used_bytes >= self._limit_bytes

    def touch(self, tenure: Tenure, field: bytes, slot: Slot) -> None:
        """The key was used, and may have grown; others may have to go for it."""
        if slot in self._order:
            self._order.move_to_end(slot)
        else:
            self._order[slot] = tenure, field
        size = len(slot.blob) + SLOT_OVERHEAD_BYTES
        self._used_bytes += size - slot.counted_bytes
        slot.counted_bytes = size
        if self._used_bytes > self._limit_bytes:
            self._evict(slot)

    def forget(self, tenure: Tenure) -> None:
        """The tenure is over."""
        for slot in tenure.slots.values():
            if self._order.pop(slot, None) is not None:
                self._used_bytes -= slot.counted_bytes

    def _evict(self, in_use: Slot) -> None:
        for _ in range(len(self._order)):
            if self._used_bytes <= self._limit_bytes:
                return
            slot, (tenure, field) = self._order.popitem(last=False)
            if slot.pending or slot is in_use or field in tenure.waiting:
                self._order[slot] = tenure, field
                continue
            self._used_bytes -= slot.counted_bytes
            del tenure.slots[field]
            tenure.complete = False
