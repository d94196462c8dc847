"""Keys that are deleted some time after their last change: `@mesh.entity(ttl=...)`.

When a key was last changed has to outlive its owner, so it is stored with the state, in front of it: a byte
that no state begins with, and Unix time. Entities without a ttl pay nothing; of one that had a ttl once,
what is in front is passed over. One that has it since yesterday finds states without a time, and writes
there when it first read them: else a key that nobody changes would start anew with each owner.

A key that is past its time reads as never written, by the clock of its owner; the first call that meets it,
or the timer, has it deleted by a commit like any other. Others may be under way at that moment, so a slot
remembers up to which change it is over (`gone`): what is acknowledged of that time later on is not shown
any more. A key that an async or blocking command holds is not over before that command is.

Memory knows what is due by a heap for each tenure, in which a key stands once, with the time that it had when
it got there: changing it later costs nothing, and it is put back when that time comes. A key that was
evicted is met again by its next call, or by its next owner. The store's own expiry is not used: after
a failover it would go by another clock (mesh.core.retention). Owners' clocks may differ as well: a key lives
longer or shorter by as much, and one whose deletion was not acknowledged when its owner died may be seen
again for as long. A time in the future is taken for now.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Mapping

from mesh.core.cache import Cache
from mesh.core.outbox import Change
from mesh.core.parts import names_in, part_field, stored_fields
from mesh.core.tenure import Slot, Tenure, spec_of_field
from mesh.entities import EntitySpec, Registry

MOST_A_TURN = 256
"""Keys that one turn of the timer looks at."""
_MARK = 0xC1
"""The one byte that msgpack never writes."""
_STAMP = struct.Struct(">Bd")
_HELD_S = 1.0
"""When to look again at a key that cannot be decided now."""
_SLACK = 256


def stamp(written: float) -> bytes:
    """What stands before a state that was last changed at that time."""
    return _STAMP.pack(_MARK, written)


def split(blob: bytes) -> tuple[float | None, bytes]:
    """When a stored state was last changed, where that stands before it, and the state itself."""
    if len(blob) < _STAMP.size or blob[0] != _MARK:
        return None, blob
    return _STAMP.unpack_from(blob)[1], blob[_STAMP.size :]


def changed_at(slot: Slot, wall: float) -> float:
    """When a change of now is made: later than what is gone, should the clock have been set back."""
    return max(wall, slot.gone + 0.001)


def is_over(spec: EntitySpec, life: float, wall: float) -> bool:
    """A state that was last changed then is past its time."""
    return spec.ttl_s is not None and life + spec.ttl_s <= wall


class Removal(Change):
    """A key's deletion for nobody: its time is over."""

    __slots__ = ("slot",)

    def __init__(
        self, tenure: Tenure, spec: EntitySpec, names: list[bytes], slot: Slot | None = None
    ) -> None:
        super().__init__(tenure.partition, tenure.epoch, {}, names, spec.durability)
        self.size = sum(map(len, names))
        self.slot = slot

    def acknowledged(self) -> None:
        """See Change."""
        if self.slot is not None:
            self.slot.pending -= 1
            self.slot.acknowledge(self.slot.spec.default_blob, 0.0)


class _Queue:
    """One tenure's keys that will be over some time."""

    __slots__ = ("ahead", "due", "names")

    def __init__(self) -> None:
        self.due: list[tuple[float, bytes]] = []
        self.names: set[bytes] = set()
        self.ahead: dict[bytes, float] = {}
        """Of those that were read ahead of any call, when they were changed."""

    def push(self, due: float, field: bytes) -> None:
        if field not in self.names:
            self.names.add(field)
            heapq.heappush(self.due, (due, field))

    def pop(self) -> bytes:
        _, field = heapq.heappop(self.due)
        self.names.discard(field)
        return field

    def shrink(self, tenure: Tenure) -> None:
        """Those that were evicted would pile up."""
        if len(self.due) <= 2 * tenure.keys + _SLACK:
            return
        self.due = [at for at in self.due if at[1] in tenure.slots or at[1] in tenure.stored]
        heapq.heapify(self.due)
        self.names = {field for _, field in self.due}
        self.ahead = {field: at for field, at in self.ahead.items() if field in tenure.stored}


class Expiry:
    """One handler's keys that have a ttl.

    Args:
        tenures: what it holds, by partition; changes as it goes.
        registry: the entities it runs.
        wall: Unix time.
        commit: takes a change that nobody waits for.
    """

    def __init__(
        self,
        tenures: Mapping[int, Tenure],
        cache: Cache,
        registry: Registry,
        wall: Callable[[], float],
        commit: Callable[[Change], None],
    ) -> None:
        self._tenures = tenures
        self._cache = cache
        self._registry = registry
        self._wall = wall
        self._commit = commit
        self._queues: dict[Tenure, _Queue] = {}

    def __repr__(self) -> str:
        return f"Expiry({sum(len(queue.due) for queue in self._queues.values())} keys)"

    # -------------------------------------------------------------------------------------- what is read

    def read(
        self, tenure: Tenure, field: bytes, slot: Slot, head: bytes, written: float | None
    ) -> None:
        """A key came from the store, and is in memory from now on.

        Args:
            head: its state's field, without the time.
            written: when it was last changed, where that is stored.
        """
        if slot.spec.ttl_s is None:
            return
        now = self._wall()
        if written is None:
            self._commit(_stamped(tenure, slot.spec, field, head, now))
        slot.life = slot.acked_life = now if written is None else min(written, now)
        self.watch(tenure, field, slot)

    def read_ahead(self, tenure: Tenure, field: bytes, spec: EntitySpec, stored: bytes) -> bytes:
        """A key came in a page, and nobody has called it yet: its state's field, without the time."""
        written, head = split(stored)
        if spec.ttl_s is not None and field not in tenure.stored:
            queue = self._queue(tenure)
            if written is None:
                queue.push(0.0, field)
            else:
                queue.ahead[field] = written = min(written, self._wall())
                queue.push(written + spec.ttl_s, field)
        return head

    def bring_in(self, tenure: Tenure, field: bytes, slot: Slot, head: bytes) -> None:
        """The first call of a key that was read ahead: see `read`."""
        if slot.spec.ttl_s is not None:
            written = self._queue(tenure).ahead.pop(field, None)
            self.read(tenure, field, slot, head, written)

    def drop(self, tenure: Tenure, field: bytes, spec: EntitySpec, stored: bytes) -> bool:
        """Delete a key that a page brought and memory has no room for, if it is past its time.

        Memory has to know all of the tenure's keys but this one: the page tells its last state, then.
        """
        written, head = split(stored)
        over = written is not None and is_over(spec, written, self._wall())
        if over and field not in tenure.stored:
            self._commit(Removal(tenure, spec, [field, *_parts(field, head)]))
        return over

    # ------------------------------------------------------------------------------------ what is called

    def look(self, tenure: Tenure, field: bytes) -> None:
        """A key that has a ttl is about to be used: it is shown as it is by now."""
        slot = tenure.slots.get(field)
        if slot is None or field in tenure.held:
            return
        if slot.life and is_over(slot.spec, slot.life, self._wall()):
            names = stored_fields(field, slot.cut)
            slot.gone = slot.life
            slot.empty()
            slot.pending += 1
            self._commit(Removal(tenure, slot.spec, names, slot))
        if slot.acked_life and slot.acked_life <= slot.gone:
            slot.acknowledge(slot.spec.default_blob, 0.0)

    def shows(
        self, tenure: Tenure, spec: EntitySpec, field: bytes, stored: bytes | None = None
    ) -> bool:
        """A query would find this key.

        Args:
            stored: its state as a page of the store has it, which counts where memory knows nothing.
        """
        slot = tenure.slots.get(field)
        if slot is not None and not slot.acked_life > slot.gone:
            return False
        if spec.ttl_s is None:
            return True
        if slot is not None:
            written: float | None = max(slot.acked_life, slot.life)
        elif stored is not None:
            written = split(stored)[0]
        else:
            written = self._queue(tenure).ahead.get(field)
        return written is None or not is_over(spec, written, self._wall())

    def watch(self, tenure: Tenure, field: bytes, slot: Slot) -> None:
        """It may have been changed."""
        ttl = slot.spec.ttl_s
        if slot.life and ttl is not None:
            queue = self._queue(tenure)
            queue.push(slot.life + ttl, field)

    def turn(self) -> None:
        """Delete what is due, a few at a time."""
        if not self._queues:
            return
        now, left = self._wall(), MOST_A_TURN
        for tenure, queue in list(self._queues.items()):
            if self._tenures.get(tenure.partition) is not tenure:
                del self._queues[tenure]
                continue
            if tenure.release_token is not None:
                continue
            queue.shrink(tenure)
            while left and queue.due and queue.due[0][0] <= now:
                left -= 1
                self._settle(tenure, queue, queue.pop(), now)

    # ------------------------------------------------------------------------------------------- the rest

    def _queue(self, tenure: Tenure) -> _Queue:
        queue = self._queues.get(tenure)
        if queue is None:
            queue = self._queues[tenure] = _Queue()
        return queue

    def _settle(self, tenure: Tenure, queue: _Queue, field: bytes, now: float) -> None:
        slot = tenure.slots.get(field)
        if slot is not None:
            self.look(tenure, field)
            if slot.life and slot.spec.ttl_s is not None:
                due = slot.life + slot.spec.ttl_s
                queue.push(due if due > now else now + _HELD_S, field)
            return
        written = queue.ahead.pop(field, None)
        spec, head = spec_of_field(self._registry, field), tenure.stored.get(field)
        if head is None or spec is None or spec.ttl_s is None:
            return  # evicted
        if written is None:
            queue.ahead[field] = now
            self._commit(_stamped(tenure, spec, field, head, now))
            queue.push(now + spec.ttl_s, field)
        elif not tenure.warm:
            queue.ahead[field] = written
            queue.push(now + _HELD_S, field)  # or a page that is still to come would bring it back
        else:
            self._cache.unstow(tenure, field)
            self._commit(Removal(tenure, spec, [field, *_parts(field, head)]))


def _stamped(tenure: Tenure, spec: EntitySpec, field: bytes, head: bytes, written: float) -> Change:
    fields = {field: stamp(written) + head}
    return Change(tenure.partition, tenure.epoch, fields, [], spec.durability)


def _parts(field: bytes, head: bytes) -> list[bytes]:
    try:
        return [part_field(field, name) for name in names_in(head)]
    except ValueError:
        return []  # it is no state; what it may have had beside it, nobody can tell
