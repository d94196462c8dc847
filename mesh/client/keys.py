"""Listing an entity's keys: one page after the other, partition by partition.

A partition's handler tells its keys in pages of its own, with a position to go on from (mesh.core.listing).
What a user gets is put together of as many of those as it takes, and a cursor, which is where the last
one ended. So nothing is kept anywhere between two pages, and a cursor is good for as long as the mesh is.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgpack

from mesh.builtin import BUILT_IN, MAX_PAGE_KEYS
from mesh.core.keyspace import MAX_KEY_BYTES
from mesh.core.payload import shown
from mesh.entities import MethodRef, spec_of
from mesh.errors import BadRequest, ProtocolError
from mesh.methods import BuiltIn

TIME_SHARE = 1 / 2
"""Of a page's time after which it ends with what it has: a rare prefix is looked for all over the mesh."""


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Some of an entity's keys, in no particular order.

    Attributes:
        keys: as text where they are UTF-8, else as bytes. There may be none, though more follow.
        cursor: for the next page; empty where this is the last one.
    """

    keys: list[str | bytes]
    cursor: str


def built_in(entity: type[Any] | str, which: BuiltIn) -> MethodRef[..., Any] | str:
    """What every entity has, of this one."""
    if isinstance(entity, str):
        return f"{_entity_name(entity)}.{which.value}"
    spec_of(entity)
    return MethodRef(entity, BUILT_IN[which.value])


class Paging:
    """One page on its way: which partition is to be asked for what, and what came of it.

    Args:
        entity: a class, or its name.
        prefix: that keys are to begin with.
        cursor: of the page before; empty for the first.
        limit: keys that it may have.
        partitions: of the mesh.

    Raises:
        BadRequest: an argument is none, or the cursor is of another listing.
    """

    def __init__(
        self,
        entity: type[Any] | str,
        prefix: str | bytes,
        cursor: str,
        limit: int,
        partitions: int,
    ) -> None:
        name = _entity_name(entity) if isinstance(entity, str) else spec_of(entity).name
        if type(limit) is not int or not 1 <= limit <= MAX_PAGE_KEYS:
            raise BadRequest(f"a page has 1 to {MAX_PAGE_KEYS} keys, not {shown(limit)}")
        self.method = f"{name}.{BuiltIn.KEYS.value}"
        self._prefix = _prefix_bytes(prefix)
        self._limit = limit
        self._partitions = partitions
        listing = name.encode() + b"\0" + self._prefix
        self._mark = blake2b(listing, digest_size=4).digest()
        self._partition, self._position = self._read(cursor)
        self._keys: list[bytes] = []

    def __repr__(self) -> str:
        return f"Paging({self.method}, {len(self._keys)} keys, at partition {self._partition})"

    @property
    def is_over(self) -> bool:
        """The page is full, or there are no more keys."""
        return len(self._keys) >= self._limit or self._partition == self._partitions

    def next(self) -> tuple[int, tuple[bytes, bytes, int]]:
        """The partition to be asked, and the arguments."""
        return self._partition, (self._prefix, self._position, self._limit - len(self._keys))

    def take(self, reply: Any) -> None:
        """What it said.

        Raises:
            ProtocolError: that is no page.
        """
        try:
            keys, position = reply
            self._keys += keys
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"this is no page of keys: {shown(reply)}: {error}") from None
        self._position = position
        if not position:
            self._partition += 1

    def page(self) -> KeyPage:
        """What the user gets."""
        keys = [_readable(key) for key in self._keys]
        if self._partition == self._partitions:
            return KeyPage(keys, "")
        place = [self._mark, self._partitions, self._partition, self._position]
        return KeyPage(keys, urlsafe_b64encode(msgpack.packb(place)).decode())

    def _read(self, cursor: Any) -> tuple[int, bytes]:
        if cursor == "":
            return 0, b""
        try:
            mark, partitions, partition, position = msgpack.unpackb(urlsafe_b64decode(cursor))
            is_one = type(position) is bytes and 0 <= partition < partitions
        except (TypeError, ValueError, msgpack.UnpackException) as error:
            raise BadRequest(f"cursor {shown(cursor)} is none: {error!r:.80}") from None
        if not is_one:
            raise BadRequest(f"cursor {shown(cursor)} is none; take it from the page before")
        if mark != self._mark or partitions != self._partitions:
            raise BadRequest(
                f"cursor {shown(cursor)} is of another entity, prefix or mesh than this listing"
            )
        return partition, position


def _entity_name(name: str) -> str:
    if not name or "." in name:
        raise BadRequest(f"an entity is named without a dot, such as Account, not {name!r:.80}")
    return name


def _prefix_bytes(prefix: Any) -> bytes:
    try:
        raw = prefix.encode() if isinstance(prefix, str) else prefix
    except UnicodeEncodeError:
        raise BadRequest(f"prefix {prefix!r:.80} holds a lone surrogate; pass bytes") from None
    if type(raw) is not bytes or len(raw) > MAX_KEY_BYTES:
        raise BadRequest(f"a prefix is str or bytes, up to {MAX_KEY_BYTES}, not {shown(prefix)}")
    return raw


def _readable(key: bytes) -> str | bytes:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
