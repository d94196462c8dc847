"""The store in this process's memory: for tests, and for a mesh that lives in one process.

`MemoryServer` is the primary with its replicas, shared by all; each process has its own
`MemoryStore`. Time does not pass in here: a replica that is paused leaves a call unacknowledged at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from mesh.core.lanes import LANES
from mesh.core.records import (
    Bid,
    ChangeSet,
    CommitReply,
    Entry,
    GrantRef,
    LoadReply,
    OpenLife,
    Recorded,
    ScanReply,
    StoreStatus,
    SweepReply,
    Takeover,
    TakeoverReply,
    Want,
)
from mesh.core.syncset import is_acknowledged
from mesh.store.api import StoreUnreachable
from mesh.store.memory_nodes import MemoryNodes
from mesh.store.memory_server import MemoryServer

__all__ = ["MemoryServer", "MemoryStore"]

_Reply = TypeVar("_Reply")


class MemoryStore:
    """One process's access to a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._closed = False
        self._ahead_of = 0
        """Offset of a write of class "async" that some replica lacks as far as is known."""

    def __repr__(self) -> str:
        return f"<MemoryStore of life {self._server.life and self._server.life.number}>"

    def commit(
        self, lane: int, grant: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> asyncio.Future[CommitReply]:
        if not 0 <= lane < len(LANES):
            raise ValueError(f"lane {lane} is not one of 0…{len(LANES) - 1}")
        done: asyncio.Future[CommitReply] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(self.commit_at_once(lane, grant, seq, renewal, entries))
        except StoreUnreachable as error:
            done.set_exception(error)
        return done

    def commit_at_once(
        self, lane: int, grant: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> CommitReply:
        """`commit`, for where no event loop runs."""
        reply = self._call(lambda: self._server.commit(lane, grant, seq, renewal, entries))
        if reply.status is not StoreStatus.OK:
            return reply
        life = self._server.life
        version = life.sync_set.version if life else 0
        members = len(life.sync_set.members) if life else 0
        if LANES[lane] == "async":
            self._ahead_of = max(self._ahead_of, self._server.offset)
            return reply._replace(acknowledged=True, set_version=version)
        acknowledged = self._acknowledged()
        return reply._replace(acknowledged=acknowledged, set_version=version, members=members)

    def async_lag_s(self) -> float:
        if self._ahead_of and all(at >= self._ahead_of for _, at in self._server.role().links):
            self._ahead_of = 0
        return 0.001 if self._ahead_of else 0.0  # no time passes in here

    async def load(self, grant: GrantRef, wants: Sequence[Want]) -> LoadReply:
        return self._call(lambda: self._server.load(grant, wants))

    async def scan(self, grant: GrantRef, partition: int, epoch: int, cursor: int) -> ScanReply:
        return self._call(lambda: self._server.scan(grant, partition, epoch, cursor))

    async def sweep(self, grant: GrantRef, tenures: Sequence[tuple[int, int]]) -> SweepReply:
        return self._call(lambda: self._server.sweep(grant, tenures))

    async def takeover(self, call: Takeover) -> TakeoverReply:
        return self._judged(self._call(lambda: self._server.takeover(call)))

    async def open_life(self, call: OpenLife) -> TakeoverReply:
        return self._judged(self._call(lambda: self._server.open_life(call)))

    async def bid(self, call: Bid) -> TakeoverReply:
        return self._judged(self._call(lambda: self._server.bid(call)))

    async def change_set(self, call: ChangeSet) -> TakeoverReply:
        return self._judged(self._call(lambda: self._server.change_set(call)))

    async def clock_us(self) -> int:
        return self._call(lambda: self._server.clock_us)

    async def recorded(self) -> Recorded:
        return self._call(self._server.recorded)

    async def renewals(self, life: int, nonces: Sequence[bytes]) -> dict[bytes, int] | None:
        return self._call(lambda: self._server.renewals(life, nonces))

    async def links(self) -> tuple[str, ...]:
        return self._call(lambda: tuple(self._server.links))

    def nodes(self) -> MemoryNodes:
        return MemoryNodes(self._server)

    def use(self, node: str) -> None:
        """There is one primary."""

    async def close(self) -> None:
        self._closed = True

    def _call(self, function: Callable[[], _Reply]) -> _Reply:
        if self._closed or not self._server.reachable:
            why = "closed here" if self._closed else "unreachable"
            raise StoreUnreachable(f"memory store: {why}", executed=False)
        breaks = self._server.breaks
        if breaks:
            if breaks.pop(0):
                function()
            raise StoreUnreachable("memory store: the connection broke", executed=None)
        return function()

    def _judged(self, reply: TakeoverReply) -> TakeoverReply:
        if reply.status is not StoreStatus.OK:
            return reply
        return replace(reply, acknowledged=self._acknowledged())

    def _acknowledged(self) -> bool:
        role, life = self._server.role(), self._server.life
        return life is not None and is_acknowledged(life.sync_set, role, role, fsynced=True)
