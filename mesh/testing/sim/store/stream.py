"""The replication stream of a node: its offset, its backlog, and which other history it continues.

Offsets are bytes of the stream, commands in RESP. A replica appends what it receives to a stream of its
own, so that, once promoted, it can go on where its primary ended.
"""

from __future__ import annotations

import random
from bisect import bisect_right


def new_id(dice: random.Random) -> str:
    """A run id or replication id."""
    return f"{dice.getrandbits(160):040x}"


class Stream:
    """What replicas are sent.

    Attributes:
        id: of the history that this node writes or follows.
        offset: bytes written so far.
        former_id, former_offset: the history that this one continues, and up to where they are one.
    """

    __slots__ = ("_bytes", "_chunks", "_starts", "former_id", "former_offset", "id", "offset")

    def __init__(self, id: str) -> None:
        self.id = id
        self.offset = 0
        self.former_id = ""
        self.former_offset = -1
        self._chunks: list[bytes] = []
        self._starts: list[int] = []
        self._bytes = 0

    def append(self, data: bytes, most_bytes: int) -> None:
        """Write, keeping no more than `most_bytes` of the past."""
        self._starts.append(self.offset)
        self._chunks.append(data)
        self.offset += len(data)
        self._bytes += len(data)
        if self._bytes > 2 * most_bytes:
            cut = 0
            while self._bytes > most_bytes and cut < len(self._chunks) - 1:
                self._bytes -= len(self._chunks[cut])
                cut += 1
            del self._chunks[:cut], self._starts[:cut]

    def since(self, id: str, offset: int) -> bytes | None:
        """What a replica at `offset` of the history `id` lacks; None: it has to be sent everything."""
        known = id == self.id or (id == self.former_id and offset <= self.former_offset)
        if not known or offset > self.offset:
            return None
        if offset == self.offset:
            return b""
        if not self._starts or offset < self._starts[0]:
            return None
        at = bisect_right(self._starts, offset) - 1
        first = self._chunks[at][offset - self._starts[at] :]
        return b"".join((first, *self._chunks[at + 1 :]))

    def begin(self, id: str, offset: int) -> None:
        """Follow another history from here on; what was kept of the past is worth nothing."""
        self.id, self.offset = id, offset
        self.former_id, self.former_offset = "", -1
        self._chunks, self._starts, self._bytes = [], [], 0

    def branch(self, id: str) -> None:
        """Continue under a new id: whoever followed the former history to this point may go on here."""
        self.former_id, self.former_offset = self.id, self.offset
        self.id = id
