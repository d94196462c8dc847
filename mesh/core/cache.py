"""Which keys stay in memory: those used last, up to a number of bytes.

State that is not acknowledged yet is never evicted, whatever that costs: the store may not have it, and a
reload would bring back what was there before (counterexamples F6).

What is read ahead of any call stays as the bytes that it came as. A takeover brings a quarter of a million
keys within a second: made into objects they would take that second from the calls, and from then on the
collector would walk through all of them while everybody waits (0.8 s at a million keys).
"""

from __future__ import annotations

from collections import OrderedDict

from mesh.core.tenure import Slot, Tenure

SLOT_OVERHEAD_BYTES = 750
"""What a key takes beside its state: the slot, the instance, its places in two dicts; as measured."""
STORED_OVERHEAD_BYTES = 170
"""What a key that was read ahead takes beside its name and state: two objects, its place in a dict. A large
value of its own takes as much."""


class Cache:
    """All keys of one handler in order of use.

    Args:
        limit_bytes: beyond it the key used longest ago goes.
    """

    __slots__ = ("_ahead", "_limit_bytes", "_order", "_used_bytes", "taken_in")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self.taken_in = 0
        """Keys that were made into objects, since the start."""
        self._order: OrderedDict[Slot, tuple[Tenure, bytes]] = OrderedDict()
        self._ahead: dict[Tenure, None] = {}
        """Those that have keys which were read ahead."""

    def __repr__(self) -> str:
        return f"Cache({len(self._order)} keys, {self._used_bytes} of {self._limit_bytes} bytes)"

    @property
    def is_full(self) -> bool:
        """Taking in a key would push out another."""
        return self._used_bytes >= self._limit_bytes

    def stow(self, tenure: Tenure, field: bytes, blob: bytes) -> None:
        """A key was read ahead of any call."""
        if tenure.stored.setdefault(field, blob) is blob:
            self._used_bytes += _size_ahead(field, blob)
            self._ahead[tenure] = None

    def stow_part(self, tenure: Tenure, field: bytes, name: str, part: bytes) -> None:
        """A large value was read ahead, before or after the state of the key that it belongs to."""
        parts = tenure.parts.setdefault(field, {})
        if parts.setdefault(name, part) is part:
            self._used_bytes += _size_ahead(field, part)
            self._ahead[tenure] = None

    def unstow(self, tenure: Tenure, field: bytes) -> tuple[bytes | None, dict[str, bytes]]:
        """Its first call has come: what was read of it, if anything was, and of its large values."""
        blob = tenure.stored.pop(field, None)
        if blob is not None:
            self._used_bytes -= _size_ahead(field, blob)
        parts = tenure.parts.pop(field, {}) if tenure.parts else {}
        for part in parts.values():
            self._used_bytes -= _size_ahead(field, part)
        return blob, parts

    def touch(self, tenure: Tenure, field: bytes, slot: Slot) -> None:
        """The key was used, and may have grown; others may have to go for it."""
        if slot in self._order:
            self._order.move_to_end(slot)
        else:
            self._order[slot] = tenure, field
            self.taken_in += 1
        size = len(slot.blob) + SLOT_OVERHEAD_BYTES
        if slot.cut is not None:
            size += len(slot.cut.head) + SLOT_OVERHEAD_BYTES
        self._used_bytes += size - slot.counted_bytes
        slot.counted_bytes = size
        if self._used_bytes > self._limit_bytes:
            self._evict(slot)

    def forget(self, tenure: Tenure) -> None:
        """The tenure is over."""
        if tenure in self._ahead:
            del self._ahead[tenure]
            self._used_bytes -= sum(_size_ahead(*pair) for pair in tenure.stored.items())
            tenure.stored.clear()
            for field in list(tenure.parts):
                self.unstow(tenure, field)
        for slot in tenure.slots.values():
            if self._order.pop(slot, None) is not None:
                self._used_bytes -= slot.counted_bytes

    def _evict(self, in_use: Slot) -> None:
        # First what nobody has called.
        while self._ahead and self._used_bytes > self._limit_bytes:
            tenure = next(iter(self._ahead))
            field = next(reversed(tenure.stored or tenure.parts), None)
            if field is not None:
                self.unstow(tenure, field)
                tenure.complete = False
            else:
                del self._ahead[tenure]
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


def _size_ahead(field: bytes, blob: bytes) -> int:
    return len(field) + len(blob) + STORED_OVERHEAD_BYTES
