"""Talking to one handler process past any routing: what a caller that never heard of its end would see.

Requests are left in the socket of a process that is stopped. When it goes on it finds them there, fresh by
its own reckoning: it must answer no query with less than what others have acknowledged meanwhile, and no
command may take effect once its partitions are another's.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Self

import msgpack

from mesh.codec import PLAIN_CODEC
from mesh.core.keyspace import key_bytes, partition_of
from mesh.core.messages import Hello
from mesh.core.payload import pack_call
from mesh.core.table import Table
from mesh.core.wire import Kind, Request, Status, pack_request, unpack_reply
from mesh.errors import ProtocolError
from mesh.ids import new_session
from mesh.net.connection import Connection
from mesh.net.dial import dial

_DEADLINE_MS = 60_000


@dataclass(slots=True)
class PinnedVerdict:
    """What a process that came back answered.

    Attributes:
        asked: queries and commands that were left with it.
        answered: those that it answered at all, be it with a redirect.
        stale: queries answered with less than had been acknowledged when they were sent.
        acknowledged: commands to which it said that they had taken effect.
    """

    asked: int = 0
    answered: int = 0
    stale: int = 0
    acknowledged: int = 0


class Pinned:
    """A connection to one handler process. Use `Pinned.open` while it still answers."""

    def __init__(self) -> None:
        self.verdict = PinnedVerdict()
        self._closed = False
        self._settled = asyncio.Event()
        """Nothing is asked that may still be answered."""
        self._table: Table | None = None
        self._tabled = asyncio.Event()
        self._session = new_session()
        self._counter = 0
        self._least: dict[int, int | None] = {}
        """What each query has to show; None for a command."""
        self._conn: Connection | None = None

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect and learn the epochs."""
        pinned = cls()
        pinned._conn, _ = await dial(address, pinned, Hello("", "client"))
        async with asyncio.timeout(2.0):
            await pinned._tabled.wait()
        return pinned

    def close(self) -> None:
        """Ask nothing more."""
        if self._conn is not None:
            self._conn.close()

    def leave(self, method: str, key: str, least: int | None) -> None:
        """Send a request for a key under the epoch that the process had when this was opened.

        Args:
            least: what a query has to show at least; None for a command.
        """
        assert self._table is not None and self._conn is not None
        if self._conn.is_closed:
            return
        raw = key_bytes(key)
        partition = partition_of(raw, len(self._table))
        epoch = self._table.owner(partition).epoch
        self._counter += 1
        self._least[self._counter] = least
        self.verdict.asked += 1
        payload = pack_call(PLAIN_CODEC, method, raw, (), {})
        request = Request(
            self._session, self._counter, 1, partition, epoch, _DEADLINE_MS, 0, 0, 100, payload
        )
        self._conn.send(pack_request(request))
        self._conn.flush()

    async def wait(self, within_s: float) -> PinnedVerdict:
        """Until everything is answered, or the process is gone."""
        if self._least and not self._closed:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._settled.wait()
        return self.verdict

    @property
    def is_gone(self) -> bool:
        """It ended the connection, or died."""
        return self._closed

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        for kind, body in frames:
            if kind == Kind.TABLE and self._table is None:
                self._table = Table.decode(body)
                self._tabled.set()
            elif kind == Kind.REPLY:
                self._take(unpack_reply(body))

    def _take(self, reply: Any) -> None:
        if reply.status == Status.TAKEN_UP:
            return
        if reply.counter not in self._least:
            raise ProtocolError(f"a reply to call {reply.counter}, which was not asked")
        least = self._least.pop(reply.counter)
        self.verdict.answered += 1
        if not self._least:
            self._settled.set()
        if reply.status != Status.OK:
            return
        if least is None:
            self.verdict.acknowledged += 1
        elif (msgpack.unpackb(reply.payload) or 0) < least:
            self.verdict.stale += 1

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        self._closed = True
        self._settled.set()
