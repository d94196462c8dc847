"""Listing a partition's keys, a page at a time: every key that is there from the first page to the last is
returned, at least once, in no particular order.

A partition that is wholly in memory, and not large, is listed from there, by the order of its names: where a
page ends is a name, and names stay where they are. Any other is listed from the store, by the pages of its
hash (HSCAN), and the shell carries them here. They hold what is acknowledged and perhaps what is not:
what memory knows of a key counts.

How to go on is told to the caller and not kept here, so it outlives this handler:

    ["m", name]                            the last name that was returned
    ["s", life, cursor, next, name]        a cursor of the primary of that life; a later one has others

A page of the store may hold more keys than were asked for. Then its cursor is read again, and the names up to
the last one are passed over, if it leads to the same `next` as before: two cursors bound the same part of
the hash whenever it is read (Redis' dictScan goes by the reversed bits of the hash), and so do the places of
the store in memory. If it leads elsewhere, nothing is passed over and keys are returned again. A position
that is of no use any more begins the partition anew.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

import msgpack

from mesh.builtin import MAX_PAGE_KEYS, MAX_POSITION_BYTES
from mesh.core.expiry import Expiry
from mesh.core.keyspace import MAX_KEY_BYTES
from mesh.core.records import ScanReply
from mesh.core.tenure import Pending, Tenure
from mesh.errors import BadRequest

MOST_IN_MEMORY = 10_000
"""Keys of a partition that is listed from memory: finding a page among them takes 3 ms."""
MOST_SCANS = 32
"""Pages of the store that one call may take; then it returns with what it has found, perhaps nothing."""


class Listing:
    """One call for a page of a partition's keys that is on its way through the store.

    Attributes:
        cursor: of the store, to be read next.
    """

    __slots__ = (
        "_expected",
        "_found",
        "_last",
        "_scans",
        "cursor",
        "life",
        "limit",
        "pending",
        "start",
    )

    def __init__(self, pending: Pending, start: bytes, limit: int, life: int) -> None:
        self.pending = pending
        self.start = start
        self.limit = limit
        self.life = life
        self.cursor = 0
        self._expected = 0
        self._last = b""
        self._found: dict[bytes, None] = {}
        self._scans = 0

    def __repr__(self) -> str:
        return f"Listing(partition {self.pending.tenure.partition}, {len(self._found)} found)"

    def go_on_from(self, cursor: int, expected: int, last: bytes) -> None:
        """As an earlier page was told to."""
        self.cursor, self._expected, self._last = cursor, expected, last

    def take(self, reply: ScanReply, expiry: Expiry) -> bytes | None:
        """A page of the store came: the call's reply, once there is one."""
        tenure, spec = self.pending.tenure, self.pending.spec
        names = sorted(
            name
            for name, value in reply.pairs
            if name.startswith(self.start) and expiry.shows(tenure, spec, name, value)
        )
        if self._last and reply.cursor == self._expected:
            names = [name for name in names if name > self._last]
        last, self._last = self._last, b""
        self._scans += 1
        for name in names:
            if len(self._found) == self.limit and name not in self._found:
                return self._reply([b"s", self.life, self.cursor, reply.cursor, last])
            self._found[name] = None
            last = name
        if reply.cursor == 0:
            return self._reply(None)
        self.cursor = reply.cursor
        if len(self._found) == self.limit or self._scans == MOST_SCANS:
            return self._reply([b"s", self.life, self.cursor, 0, b""])
        return None

    def _reply(self, position: list[Any] | None) -> bytes:
        return _pack(self.pending, list(self._found), position)


class Listings:
    """Those of one handler.

    Args:
        expiry: knows which keys are past their time.
        life: of the store, as this handler's grant says.
    """

    def __init__(self, expiry: Expiry, life: Callable[[], int]) -> None:
        self._expiry = expiry
        self._life = life
        self._under_way: deque[Listing] = deque()

    def __repr__(self) -> str:
        return f"Listings({len(self._under_way)} under way)"

    @property
    def is_due(self) -> bool:
        """Some page of the store has to be read."""
        return bool(self._under_way)

    def begin(self, pending: Pending) -> bytes | None:
        """The call's reply, where memory has it; else it takes its turn with the others.

        Raises:
            BadRequest: an argument is none.
        """
        bound = pending.method.signature.bind(*pending.args, **pending.kwargs)
        prefix, position, limit = _checked(*bound.args)
        start = pending.field + prefix
        tenure = pending.tenure
        in_memory = tenure.warm and tenure.complete and tenure.keys <= MOST_IN_MEMORY
        in_store = position is not None and position[:2] == [b"s", self._life()]
        if in_memory and not in_store:
            after = position[1] if position is not None and position[0] == b"m" else b""
            return self._from_memory(pending, start, after, limit)
        listing = Listing(pending, start, limit, self._life())
        if in_store and position is not None:
            listing.go_on_from(*position[2:])
        self._under_way.append(listing)
        return None

    def next(self) -> Listing | None:
        """The one whose turn it is: the shell reads its cursor and comes back with what it found."""
        if not self._under_way:
            return None
        self._under_way.rotate(-1)
        return self._under_way[-1]

    def take(self, listing: Listing, reply: ScanReply) -> bytes | None:
        """A page of the store came: the call's reply, once there is one."""
        return listing.take(reply, self._expiry)

    def end(self, listing: Listing) -> bool:
        """Its call is answered now; False: it was before."""
        if listing not in self._under_way:
            return False
        self._under_way.remove(listing)
        return True

    def overdue(self, now: float) -> list[Listing]:
        """Those whose callers have stopped waiting."""
        return [each for each in self._under_way if each.pending.deadline <= now]

    def forget(self, tenure: Tenure) -> list[Pending]:
        """The tenure is over: calls that the next owner has to answer."""
        mine = [each for each in self._under_way if each.pending.tenure is tenure]
        for listing in mine:
            self._under_way.remove(listing)
        return [listing.pending for listing in mine]

    def _from_memory(self, pending: Pending, start: bytes, after: bytes, limit: int) -> bytes:
        tenure, spec = pending.tenure, pending.spec
        names = [
            name
            for name in chain(tenure.slots, tenure.stored)
            if name.startswith(start) and name > after and self._expiry.shows(tenure, spec, name)
        ]
        page = heapq.nsmallest(limit, names)
        return _pack(pending, page, [b"m", page[-1]] if len(names) > len(page) else None)


def _pack(pending: Pending, names: list[bytes], position: list[Any] | None) -> bytes:
    keys = [name[len(pending.field) :] for name in names]
    packed: bytes = msgpack.packb([keys, b"" if position is None else msgpack.packb(position)])
    return packed


def _checked(prefix: Any, position: Any, limit: Any) -> tuple[bytes, list[Any] | None, int]:
    if type(prefix) is not bytes or len(prefix) > MAX_KEY_BYTES:
        raise BadRequest(f"a prefix is up to {MAX_KEY_BYTES} bytes, not {prefix!r:.120}")
    if type(limit) is not int or not 1 <= limit <= MAX_PAGE_KEYS:
        raise BadRequest(f"a page has 1 to {MAX_PAGE_KEYS} keys, not {limit!r:.80}")
    if type(position) is not bytes or len(position) > MAX_POSITION_BYTES:
        raise BadRequest(f"{position!r:.120} is no position in a listing")
    if not position:
        return prefix, None, limit
    try:
        read = msgpack.unpackb(position)
        kinds = [type(part) for part in read]
        is_one = kinds == [bytes, bytes] and read[0] == b"m"
        if kinds == [bytes, int, int, int, bytes]:
            is_one = read[0] == b"s" and min(read[1:4]) >= 0
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadRequest(f"{position!r:.120} is no position in a listing: {error!r:.80}") from None
    if not is_one:
        raise BadRequest(f"{position!r:.120} is no position in a listing")
    return prefix, read, limit
