"""What is to be read from the store, and taking in what came.

Keys that calls wait for are read one by one, with the records that tell whether those calls are new. Behind
them whole partitions are read ahead: small ones in one call, the others page by page. What was read
ahead stays bytes until its key is called; what memory has is newer than any page.

A state may have large values in fields of their own (mesh.core.parts), and which they are is known once it
is read. Then it is read again, together with them: most keys have none and pay nothing, and what was read in
one call is of one moment, whatever else is under way. Pages bring the pieces in any order, each at a moment
of its own. They fit together none the less: only the holder of the partition writes, and a key that it wrote
is in `slots`, where no page matters, or was evicted from there, after which no page is taken in. A key is
used from memory once all its pieces are there; until then its first call reads the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mesh.core import execution
from mesh.core.cache import Cache
from mesh.core.expiry import Expiry, split
from mesh.core.parts import (
    PART_PREFIX,
    is_cut,
    names_in,
    part_field,
    put_together,
    split_part_field,
)
from mesh.core.records import Want
from mesh.core.tenure import STATE_PREFIX, Pending, Slot, Tenure, spec_of_field
from mesh.core.tenures import Tenures
from mesh.entities import EntitySpec, Registry

MOST_SWEPT = 64
"""Tenures in one sweep; a call for more of them would stop the store for too long."""


class Load(NamedTuple):
    """One key's read from the store, for the calls that wait for it; `parts` are the large values that it is
    known to have.
    """

    tenure: Tenure
    field: bytes
    parts: tuple[str, ...]
    calls: tuple[Pending, ...]
    want: Want


class Reading:
    """What one handler reads.

    Args:
        tenures: those that it has.
        registry: the entities it runs; keys of others are not read ahead.
        cache: where keys go.
        expiry: knows when those that have a ttl were changed.
        max_wants: keys read with one call to the store.
    """

    def __init__(
        self,
        tenures: Tenures,
        registry: Registry,
        cache: Cache,
        expiry: Expiry,
        max_wants: int,
    ) -> None:
        self._tenures = tenures
        self._registry = registry
        self._cache = cache
        self._expiry = expiry
        self._max_wants = max_wants
        self._wanted: dict[tuple[int, bytes], tuple[Tenure, tuple[str, ...]]] = {}
        self._to_sweep: deque[int] = deque()
        self._to_scan: deque[int] = deque()
        """Partitions in the order in which they came; some may have gone since, or been read."""

    def __repr__(self) -> str:
        return f"Reading({len(self._wanted)} keys wanted)"

    @property
    def is_due(self) -> bool:
        """Some key has to be read."""
        return bool(self._wanted)

    # ----------------------------------------------------------------- keys

    def want(self, tenure: Tenure, field: bytes, parts: tuple[str, ...] = ()) -> None:
        """Calls wait for that key; with these large values, as far as they are known."""
        self._wanted[tenure.partition, field] = tenure, parts

    def take_wants(self) -> list[Load]:
        """Reads that are due, to go to the store in one call; what is too much for one stays due."""
        loads: list[Load] = []
        for partition, field in list(self._wanted):
            if len(loads) == self._max_wants:
                break
            tenure, parts = self._wanted.pop((partition, field))
            queue = tenure.waiting.get(field)
            if not queue or not self._tenures.has(tenure):
                continue
            fields = dict.fromkeys((field, *(part_field(field, name) for name in parts)))
            if not tenure.warm:
                for pending in queue:
                    if not pending.method.query:
                        fields.update(dict.fromkeys(execution.record_names(pending)))
            want = Want(partition, tenure.epoch, tuple(fields))
            loads.append(Load(tenure, field, parts, tuple(queue), want))
        return loads

    def again(self, loads: Sequence[Load]) -> None:
        """The store could not be asked."""
        for load in loads:
            # Not over the want of a later tenure, whose calls would then wait for ever.
            if self._tenures.has(load.tenure):
                self.want(load.tenure, load.field, load.parts)

    def take_in(self, load: Load, values: tuple[bytes | None, ...]) -> bool:
        """A key came, with the records of the calls that wait for it.

        Returns:
            False where it is not in memory for it: it turned out to have large values and is read again with
            them, or nobody has waited for it all the while.

        Raises:
            ValueError: what is stored is no state, or no record.
        """
        tenure = load.tenure
        queue = tenure.waiting.get(load.field)
        if not queue or queue[0] not in load.calls:
            # Its calls gave up. Later ones may have had the key from elsewhere, changed it, and seen it
            # evicted: this would bring back what it was before. Those that wait now get their own read.
            # Of a queue that was never empty nobody else would ask for it.
            if queue and (tenure.partition, load.field) not in self._wanted:
                self.want(tenure, load.field)
            return False
        records_at = 1 + len(load.parts)
        for name, blob in zip(load.want.fields[records_at:], values[records_at:], strict=True):
            if blob is not None:
                tenure.adopt_record(name, blob)
        if load.field not in tenure.slots:
            spec = load.calls[0].spec
            written, head = (None, None) if values[0] is None else split(values[0])
            if head is not None and is_cut(head):
                names = names_in(head)
                if not set(names).issubset(load.parts):
                    self.want(tenure, load.field, tuple(dict.fromkeys(names)))
                    return False
            parts = dict(zip(load.parts, values[1:records_at], strict=True))
            slot = tenure.slots[load.field] = _slot(spec, head, parts)
            if head is not None:
                self._expiry.read(tenure, load.field, slot, head, written)
            self._cache.unstow(tenure, load.field)
            self._cache.touch(tenure, load.field, slot)
        for pending in load.calls:
            pending.looked_up = True
        return True

    # ----------------------------------------------------------- partitions

    def adopted(self, partitions: Sequence[int]) -> None:
        """They are held from now on: they are read ahead, in this order."""
        self._to_sweep.extend(partitions)
        self._to_scan.extend(partitions)

    def next_sweep(self) -> list[Tenure]:
        """Tenures to read whole in one call, if they are small."""
        tenures: list[Tenure] = []
        while self._to_sweep and len(tenures) < MOST_SWEPT:
            tenure = self._cold(self._to_sweep.popleft())
            if tenure is not None and not tenure.swept:
                tenure.swept = True
                tenures.append(tenure)
        return tenures

    def next_scan(self) -> Tenure | None:
        """A tenure whose records and keys are not yet all in memory: warm it up in the background."""
        while self._to_scan:
            tenure = self._cold(self._to_scan[0])
            if tenure is not None and not tenure.unreadable:
                return tenure
            self._to_scan.popleft()
        return None

    def _cold(self, partition: int) -> Tenure | None:
        """Its tenure, if that has still to be read and it is not for the next owner to do so."""
        tenure = self._tenures.take(partition)
        if tenure is None or tenure.warm or tenure.release_token is not None:
            return None
        return tenure

    def adopt_page(self, tenure: Tenure, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """A page of a partition's hash; False: it holds a record that nobody knows."""
        for name, value in pairs:
            if name.startswith(STATE_PREFIX):
                if name not in tenure.slots and not self._read_ahead(tenure, name, value):
                    tenure.complete = False
                continue
            try:
                if name.startswith(PART_PREFIX):
                    self._adopt_part(tenure, *split_part_field(name), value)
                else:
                    tenure.adopt_record(name, value)
            except ValueError:
                # The tenure must not pass for one that has them all.
                return False
        return True

    def _adopt_part(self, tenure: Tenure, field: bytes, name: str, value: bytes) -> None:
        if field not in tenure.slots and not self._read_ahead(tenure, field, value, part=name):
            tenure.complete = False

    def warmed(self, tenure: Tenure) -> Iterator[bytes]:
        """Its last page came: the keys that calls still wait for, which need no read any more."""
        tenure.warm = True
        for field in list(tenure.waiting):
            if (tenure.partition, field) in self._wanted:
                yield field

    def _read_ahead(
        self, tenure: Tenure, name: bytes, value: bytes, part: str | None = None
    ) -> bool:
        # Once a key of this tenure was evicted, a page may be older than what it was evicted with.
        if not tenure.complete:
            return False
        spec = spec_of_field(self._registry, name)
        if self._cache.is_full:
            return (
                part is None and spec is not None and self._expiry.drop(tenure, name, spec, value)
            )
        if spec is not None:
            if part is None:
                self._cache.stow(tenure, name, self._expiry.read_ahead(tenure, name, spec, value))
            else:
                self._cache.stow_part(tenure, name, part, value)
        return True

    def bring_in(self, tenure: Tenure, pending: Pending) -> None:
        """The first call of a key that was read ahead, and may have more pieces in pages yet to come."""
        field = pending.field
        head = tenure.stored[field]
        if is_cut(head) and not tenure.warm:
            known = tenure.parts.get(field, {})
            try:
                if not set(names_in(head)).issubset(known):
                    return
            except ValueError:
                return
        blob, parts = self._cache.unstow(tenure, field)
        try:
            slot = tenure.slots[field] = _slot(pending.spec, blob, parts)
        except ValueError:
            # So the store is read, and the caller told what is wrong with it.
            tenure.complete = False
        else:
            self._expiry.bring_in(tenure, field, slot, head)


def _slot(spec: EntitySpec, head: bytes | None, parts: Mapping[str, bytes | None]) -> Slot:
    if head is None:
        return Slot(spec, None)
    return Slot(spec, *put_together(head, parts))
