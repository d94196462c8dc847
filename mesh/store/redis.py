"""The store on Redis (7.0 or newer) and Valkey (7.2 or newer).

Each lane has a pinned connection of its own, since a lane's batches must not overtake each other;
so have reads, which need not wait behind a WAIT, and a leader's calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

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
    Unreadable,
    Verdict,
    Want,
)
from mesh.core.syncset import Role
from mesh.errors import SetupError
from mesh.specs import Durability
from mesh.store.address import StoreAddress
from mesh.store.api import StoreNodes, StoreUnreachable
from mesh.store.calls import Calls, pairs_of, read_recorded, read_takeover
from mesh.store.confirming import Seen, Written
from mesh.store.library import ensure_loaded
from mesh.store.nodes import RedisNodes
from mesh.store.nudge import Nudger
from mesh.store.pinned import PinnedConnection, status_of
from mesh.store.primary import ROLE, NoPrimary, Primary, find_primary
from mesh.store.resp import pack
from mesh.store.scout import Scout
from mesh.store.server import ServerInfo

_SILENCE_S = 0.2
_TIME = pack("TIME")
_VERDICTS = tuple(Verdict)  # by number; making each from its number costs 20 us for 64 partitions


class RedisStore:
    """One process's connections to the store.

    Args:
        address: nodes, login, database and mesh.
        wait_timeout_s: how long a write waits for its replicas until it is reported as not
        acknowledged.
        call_timeout_s: a reply later than this ends the connection; above `wait_timeout_s`.
        connect_timeout_s: for connecting and logging in to one node.
    """

    def __init__(
        self,
        address: StoreAddress,
        *,
        wait_timeout_s: float = 0.1,
        call_timeout_s: float = 2.0,
        connect_timeout_s: float = 1.0,
    ) -> None:
        if call_timeout_s <= wait_timeout_s:
            raise ValueError(
                f"call_timeout_s {call_timeout_s} must be above wait_timeout_s {wait_timeout_s}"
            )
        self.address = address
        self._calls = Calls(address.prefix)
        self._tls = tls = address.tls.context() if address.tls else None
        self._seen = seen = Seen(max(1, round(wait_timeout_s * 1000)))
        self._connect_timeout_s = connect_timeout_s
        self._scout = Scout(self._find, self.use)

        def connection(
            nudger: Nudger | None, durability: Durability = "replicated"
        ) -> PinnedConnection:
            return PinnedConnection(
                address,
                seen,
                life_key=self._calls.life_key,
                tls=tls,
                call_timeout_s=call_timeout_s,
                connect_timeout_s=connect_timeout_s,
                nudger=nudger,
                durability=durability,
                closed=self._scout.go,
            )

        # On the connection of the reads, which no WAIT ever blocks.
        self._reads = connection(None)
        # A primary that lives answers a WAIT when its time is over, at the latest.
        silence_s = wait_timeout_s + _SILENCE_S
        channel = address.prefix + b"nudge"
        self._nudger = Nudger(self._reads.ask, channel, silence_s, self._scout.go)
        self._admin = connection(self._nudger)
        self._lanes = tuple(
            # What waits for a disk is silent for longer, and needs no nudge either.
            connection(None if durability == "fsynced" else self._nudger, durability)
            for durability in LANES
        )

    def __repr__(self) -> str:
        return f"<RedisStore {self.address}>"

    def commit(
        self, lane: int, grant: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> asyncio.Future[CommitReply]:
        if not 0 <= lane < len(LANES):
            raise ValueError(f"lane {lane} is not one of 0…{len(LANES) - 1}")
        self._seen.life = grant.life
        call = self._calls.commit(lane, grant, seq, renewal, entries)
        return self._lanes[lane].write(call, _read_commit)

    def async_lag_s(self) -> float:
        return self._seen.lag.seconds(asyncio.get_running_loop().time())

    async def load(self, grant: GrantRef, wants: Sequence[Want]) -> LoadReply:
        reply = await self._reads.ask(self._calls.load(grant, wants))
        status = self._status(reply)
        if status is not StoreStatus.OK:
            return LoadReply(status)
        return LoadReply(status, tuple(map(_values, reply[1])))

    async def scan(self, grant: GrantRef, partition: int, epoch: int, cursor: int) -> ScanReply:
        reply = await self._reads.ask(self._calls.scan(grant, partition, epoch, cursor))
        status = self._status(reply)
        if status is not StoreStatus.OK:
            return ScanReply(status)
        if len(reply) > 3:
            return ScanReply(status, unreadable=_unreadable(reply[3]))
        return ScanReply(status, int(reply[1]), tuple(pairs_of(reply[2])))

    async def sweep(self, grant: GrantRef, tenures: Sequence[tuple[int, int]]) -> SweepReply:
        reply = await self._reads.ask(self._calls.sweep(grant, tenures))
        status = self._status(reply)
        if status is not StoreStatus.OK:
            return SweepReply(status)
        pages = (None if page is None else tuple(pairs_of(page)) for page in reply[1])
        return SweepReply(status, tuple(pages))

    async def takeover(self, call: Takeover) -> TakeoverReply:
        # The function declares every key it looks at, also to learn that nobody holds a partition.
        others = await self._grants() if None in call.moves.givers else ()
        return await self._admin.write(self._calls.takeover(call, others), _read_takeover)

    async def open_life(self, call: OpenLife) -> TakeoverReply:
        packed = self._calls.open_life(call, await self._grants())
        return await self._admin.write(packed, _read_takeover, call.sync_set)

    async def bid(self, call: Bid) -> TakeoverReply:
        packed = self._calls.bid(call, await self._grants())
        changed = call.change.sync_set if call.change else None
        return await self._admin.write(packed, _read_takeover, changed)

    async def change_set(self, call: ChangeSet) -> TakeoverReply:
        packed = self._calls.change_set(call)
        return await self._admin.write(packed, _read_change, call.change.sync_set)

    async def clock_us(self) -> int:
        seconds, microseconds = await self._admin.ask(_TIME)
        return int(seconds) * 1_000_000 + int(microseconds)

    async def recorded(self) -> Recorded:
        return read_recorded(await self._admin.ask(self._calls.recorded()))

    async def renewals(self, life: int, nonces: Sequence[bytes]) -> dict[bytes, int] | None:
        reply = await self._reads.ask(self._calls.renewals(life, nonces))
        if self._status(reply) is not StoreStatus.OK:
            return None
        numbers = zip(nonces, reply[1], strict=True)
        return {nonce: int.from_bytes(number, "big") for nonce, number in numbers if number}

    async def links(self) -> tuple[str, ...]:
        role = Role.from_reply(await self._admin.ask(ROLE))
        if role is None:
            self._admin.drop("not the primary any more")
            raise StoreUnreachable(
                f"store {self.address}: not the primary any more", executed=False
            )
        return tuple(name for name, _ in role.links)

    def nodes(self) -> StoreNodes:
        return RedisNodes(
            self.address,
            tls=self._tls,
            life_key=self._calls.life_key,
            leader_key=self._calls.leader_key,
        )

    def use(self, node: str) -> None:
        self._seen.preferred = node
        for connection in (*self._lanes, self._reads, self._admin):
            connection.leave_unless(node)

    async def close(self) -> None:
        await self._scout.close()
        await self._nudger.close()
        for connection in (*self._lanes, self._reads, self._admin):
            await connection.close()

    async def administer(self, command: bytes) -> Any:
        """Run one packed command on the connection of a leader's calls; for set-up and status."""
        return await self._admin.ask(command)

    async def ensure_functions(self) -> bool:
        """Load the function library unless this very one is there; whether it was loaded."""
        return await ensure_loaded(self.administer)

    async def check_server(self) -> ServerInfo:
        """Learn what the primary is, before anything is written to it.

        Raises:
            SetupError: too old, or no primary among the nodes.
            StoreUnreachable: no node answered.
            StoreRefused: the server did not accept the login.
        """
        try:
            info = await self.administer(pack("INFO"))
        except NoPrimary as error:
            raise SetupError(f"{error.message}; name the primary too") from error
        # Anybody may answer here, with a number just as well.
        said = info if isinstance(info, bytes) else repr(info).encode()
        return ServerInfo.from_info(str(self.address), said)

    def _status(self, reply: list[Any]) -> StoreStatus:
        """The verdict on a read. A node that was the primary and says that a life is closed would say so for
        ever: a connection on which nothing is written is not ended when that node becomes a replica.
        """
        status = status_of(reply)
        if status is StoreStatus.CLOSED:
            self._scout.go()
        return status

    async def _find(self) -> Primary:
        return await find_primary(
            self.address,
            tls=self._tls,
            life_key=self._calls.life_key,
            within_s=self._connect_timeout_s,
            life=self._seen.life,
        )

    async def _grants(self) -> list[bytes]:
        nonces: list[bytes] = await self.administer(pack("HKEYS", self._calls.grants_key))
        return nonces


def _read_commit(written: Written) -> CommitReply:
    if written.status is not StoreStatus.OK:
        return CommitReply(written.status, detail=_detail(written.reply))
    _, _, duplicate, verdicts, detail = written.reply
    return CommitReply(
        written.status,
        tuple(map(_VERDICTS.__getitem__, verdicts)),
        bool(duplicate),
        written.acknowledged,
        written.set_version,
        detail.decode(errors="replace") if detail else "",
        written.members,
    )


def _read_takeover(written: Written) -> TakeoverReply:
    if written.status is not StoreStatus.OK:
        return TakeoverReply(written.status, detail=_detail(written.reply))
    versions, renewals = read_takeover(written.reply[2])
    return TakeoverReply(written.status, written.acknowledged, renewals, versions)


def _read_change(written: Written) -> TakeoverReply:
    if written.status is not StoreStatus.OK:
        return TakeoverReply(written.status, detail=_detail(written.reply))
    return TakeoverReply(written.status, written.acknowledged)


def _values(found: Any) -> tuple[bytes | None, ...] | Unreadable | None:
    if found is None:
        return None
    return _unreadable(found) if isinstance(found, bytes) else tuple(found)


def _unreadable(error: bytes) -> Unreadable:
    return Unreadable(error.decode(errors="replace").removeprefix("-"))


def _detail(reply: Sequence[Any]) -> str:
    return reply[1].decode(errors="replace") if len(reply) > 1 else ""
