"""Calls under a key that the caller gave: one partition's records of them.

The caller's key stands for the call whoever sends it: another client, another process, hours later. So
its record belongs to no session, and goes when its time is over (mesh.core.retention). The calls
that are under way count like records, those that are over leave with later commits.

Records are in memory all of them, and callers choose how many there are, so they are capped by
their bytes. At the cap a new call with a key is refused, since an old record given up before its time
would be a promise broken; calls without a key go on.

    name     the class's tag, "c" and 16 bytes of BLAKE2b over entity, key and the caller's key
    record   written u32 · digest 12 bytes · status u8 · payload
    digest   4 bytes of the method's name, 8 of name, key and arguments; whoever asks for a call by its key
             names the method and has no arguments: 8 zeros
"""

from __future__ import annotations

import heapq
import struct
from hashlib import blake2b

from mesh.core.outcomes import NEW, Outcome, Running, Seen
from mesh.core.retention import Retention

CALLER_PREFIX = b"c"
NO_ARGUMENTS = bytes(8)
"""In place of a call's digest, where it is asked for by its key alone."""
_NAME_BYTES = 16
_METHOD_BYTES = 4
_RECORD = struct.Struct(">I12sB")
_OVERHEAD_BYTES = 180
"""What a record takes beside its bytes, in the handler's memory (measured); in the store it is less."""
_DROPS_PER_WRITE = 32
_SHORTEST_WAIT_S = 0.1


def caller_field(entity: str, key: bytes, idempotency_key: str, tag: bytes = b"") -> bytes:
    """Name of a record in its partition's hash; long keys cost no more than short ones. `tag` is that of its
    class (mesh.core.lanes).
    """
    digest = blake2b(digest_size=_NAME_BYTES)
    for part in (entity.encode(), key):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(idempotency_key.encode())
    return tag + CALLER_PREFIX + digest.digest()


def caller_digest(method: str, call: bytes) -> bytes:
    """Tells calls under one key apart: by the method's name, and by the digest of the whole call."""
    return blake2b(method.encode(), digest_size=_METHOD_BYTES).digest() + call


def is_same_call(one: bytes, other: bytes) -> bool:
    """Whether two digests may be those of one call; without arguments the method decides."""
    if one == other:
        return True
    unsaid = NO_ARGUMENTS in (one[_METHOD_BYTES:], other[_METHOD_BYTES:])
    return unsaid and one[:_METHOD_BYTES] == other[:_METHOD_BYTES]


def _size(blob: bytes) -> int:
    return _OVERHEAD_BYTES + len(blob)


class CallerKeys:
    """All calls of one partition that came with a caller's key.

    Attributes:
        records: of committed calls, as they are stored, by the name of their field.
        running: calls whose commit is not acknowledged yet.
        used_bytes: what both take.
    """

    __slots__ = (
        "_dropped",
        "_order",
        "_retention",
        "_unacknowledged",
        "records",
        "running",
        "used_bytes",
    )

    def __init__(self, retention: Retention) -> None:
        self.records: dict[bytes, bytes] = {}
        self.running: dict[bytes, Running] = {}
        self.used_bytes = 0
        self._retention = retention
        self._order: list[tuple[int, bytes]] = []
        """When each record was written, a heap: pages of a scan come in any order."""
        self._dropped: dict[bytes, None] = {}
        self._unacknowledged: dict[bytes, bytes] = {}
        """Records that are on their way to the store."""

    def __repr__(self) -> str:
        return f"CallerKeys({len(self.records)} records, {self.used_bytes} bytes)"

    def call(self, name: bytes) -> KeyedCall:
        """The call whose record has that name, known or not."""
        return KeyedCall(self, name)

    def full_for_s(self) -> float:
        """Seconds after which there may be room for a new call; 0 where there is."""
        if self.used_bytes < self._retention.caller_bytes:
            return 0.0
        if not self._order:
            return _SHORTEST_WAIT_S  # all of it is under way
        oldest = self._order[0][0]
        return max(_SHORTEST_WAIT_S, oldest + self._retention.keep_s - self._retention.now)

    def adopt(self, name: bytes, blob: bytes, tag_bytes: int = 0) -> None:
        """Take in a stored record; what memory knows already is newer and stays.

        Args:
            tag_bytes: of its name, before what every such record's begins with.

        Raises:
            ValueError: it is none.
        """
        if len(name) != tag_bytes + 1 + _NAME_BYTES or len(blob) < _RECORD.size:
            raise ValueError(f"not a record under a caller's key: {name!r:.80}, {len(blob)} bytes")
        if name in self.records or name in self.running or name in self._dropped:
            return
        written, _, _ = _RECORD.unpack_from(blob)
        self.used_bytes += _size(blob)
        self._keep(name, blob, min(written, self._retention.now))

    def expire(self, most: int) -> None:
        """Forget up to `most` records whose time is over; `due_drops` has their names from then on."""
        order = self._order
        while most and order and self._retention.is_over(order[0][0]):
            _, name = heapq.heappop(order)
            self.used_bytes -= _size(self.records.pop(name))
            self._dropped[name] = None
            most -= 1

    def due_drops(self, most: int = _DROPS_PER_WRITE) -> list[bytes]:
        """Names of forgotten records that are to be deleted with the next commit."""
        names = list(self._dropped)[:most] if self._dropped else []
        for name in names:
            del self._dropped[name]
        return names

    def forget(self) -> list[bytes]:
        """Some records whose time is over; their names, to be deleted. Empty where there are none."""
        self.expire(_DROPS_PER_WRITE)
        return self.due_drops()

    # ----------------------------------------------------- what a KeyedCall asks for

    def write(self, name: bytes, outcome: Outcome) -> tuple[dict[bytes, bytes], list[bytes]]:
        self._dropped.pop(name, None)  # not deleted by the very commit that writes it
        digest, status, payload = outcome
        blob = _RECORD.pack(self._retention.now, digest, status) + payload
        self._unacknowledged[name] = blob
        self.used_bytes += _size(blob)
        self.expire(_DROPS_PER_WRITE)
        return {name: blob}, self.due_drops()

    def finish(self, name: bytes) -> None:
        self.running.pop(name, None)
        self._keep(name, self._unacknowledged.pop(name), self._retention.now)

    def abandon(self, name: bytes) -> None:
        self.running.pop(name, None)
        blob = self._unacknowledged.pop(name, None)
        if blob is not None:
            self.used_bytes -= _size(blob)

    def _keep(self, name: bytes, blob: bytes, written: int) -> None:
        self.records[name] = blob
        heapq.heappush(self._order, (written, name))


class KeyedCall:
    """Records of the one call that bears a caller's key.

    Args:
        keys: of its partition.
        name: of its record.
    """

    __slots__ = ("_keys", "_name")

    def __init__(self, keys: CallerKeys, name: bytes) -> None:
        self._keys = keys
        self._name = name

    def check(self, _counter: int, digest: bytes) -> tuple[Seen, Outcome | None]:
        """See Records."""
        blob = self._keys.records.get(self._name)
        if blob is not None:
            _, recorded, status = _RECORD.unpack_from(blob)
            if not is_same_call(recorded, digest):
                return Seen.CONFLICT, None
            return Seen.RECORDED, Outcome(recorded, status, blob[_RECORD.size :])
        running = self._keys.running.get(self._name)
        if running is not None:
            return (Seen.RUNNING if is_same_call(running.digest, digest) else Seen.CONFLICT), None
        return NEW

    def write(self, _counter: int, outcome: Outcome) -> tuple[dict[bytes, bytes], list[bytes]]:
        """See Records."""
        return self._keys.write(self._name, outcome)

    def start(self, _counter: int, running: Running) -> None:
        """See Records."""
        self._keys.running[self._name] = running

    def attached(self, _counter: int) -> Running:
        """See Records."""
        return self._keys.running[self._name]

    def finish(self, _counter: int, _outcome: Outcome) -> None:
        """See Records."""
        self._keys.finish(self._name)

    def abandon(self, _counter: int) -> None:
        """See Records."""
        self._keys.abandon(self._name)
