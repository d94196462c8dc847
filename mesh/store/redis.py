"""The store on Redis (7.0 or newer) and Valkey (7.2 or newer).

A call that writes is one write on one pinned connection: FCALL, ROLE, WAIT, ROLE; one round trip,
20 us more than FCALL and WAIT (counterexamples, "Measured"). WAIT covers only what its own
connection wrote, so a call's parts must never be spread over a pool, and a lane's batches must not
overtake each other: each lane has its own connection, and so have reads and a leader's calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mesh.core.records import (
    CommitReply,
    Entry,
    GrantRef,
    LoadReply,
    OpenLife,
    Recorded,
    ScanReply,
    StoreStatus,
    Takeover,
    TakeoverReply,
    Verdict,
    Want,
)
from mesh.core.syncset import InSyncSet, Role, is_acknowledged, links_to_wait_for
from mesh.errors import SetupError
from mesh.store.address import StoreAddress
from mesh.store.api import LANES, StoreUnreachable
from mesh.store.calls import Calls, pairs_of, read_recorded, read_takeover
from mesh.store.library import ensure_loaded
from mesh.store.primary import ROLE, NoPrimary, find_primary
from mesh.store.refusal import ServerError, refusal
from mesh.store.resp import Connection, pack
from mesh.store.server import ServerInfo

_READS = LANES
_ADMIN = LANES + 1
_STATUS = {status.value.encode(): status for status in StoreStatus}
_NOT_PRIMARY = ("READONLY", "MASTERDOWN")
_UNKNOWN_SET = InSyncSet(0, frozenset())


class RedisStore:
    """One process's connections to the store.

    Args:
        address: nodes, login, database and mesh.
        wait_timeout_s: how long a write waits for its replicas before it is reported as not
        acknowledged.
        call_timeout_s: a reply later than this ends the connection; above `wait_timeout_s`.
        connect_timeout_s: for connecting and logging in to one node.
    """

    def __init__(
        self,
        address: StoreAddress,
        *,
        wait_timeout_s: float = 0.2,
        call_timeout_s: float = 2.0,
        connect_timeout_s: float = 1.0,
    ) -> None:
        if call_timeout_s <= wait_timeout_s:
            raise ValueError(
                f"call_timeout_s {call_timeout_s} must be above wait_timeout_s {wait_timeout_s}"
            )
        self.address = address
        self._call_timeout_s = call_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._wait_timeout_ms = max(1, round(wait_timeout_s * 1000))
        self._tls = address.tls.context() if address.tls else None
        self._calls = Calls(address.prefix)
        self._connections: list[Connection | None] = [None] * (_ADMIN + 1)
        self._opening = [asyncio.Lock() for _ in self._connections]
        self._closed = False
        # What decides how many links the next WAIT waits for; never whether a write is
        # acknowledged.
        self._last_role: Role | None = None
        self._last_set = _UNKNOWN_SET
        self._last_set_bytes = b""
        self._waits: dict[int, bytes] = {}
        self._wait_disk = pack("WAITAOF", 1, 0, self._wait_timeout_ms)

    def __repr__(self) -> str:
        kept = [connection for connection in self._connections if connection]
        return f"<RedisStore {self.address}, {'closed' if self._closed else kept}>"

    async def commit(
        self, lane: int, grant: GrantRef, seq: int, renewal: int, entries: Sequence[Entry]
    ) -> CommitReply:
        if not 0 <= lane < LANES:
            raise ValueError(f"lane {lane} is not one of 0…{LANES - 1}")
        call = self._calls.commit(lane, grant, seq, renewal, entries)
        status, reply, acknowledged = await self._write(lane, call)
        if status is not StoreStatus.OK:
            return CommitReply(status, detail=_detail(reply))
        _, _, duplicate, verdicts, detail = reply
        return CommitReply(
            status,
            tuple(map(Verdict, verdicts)),
            bool(duplicate),
            acknowledged,
            self._last_set.version,
            detail.decode(errors="replace"),
        )

    async def load(self, grant: GrantRef, wants: Sequence[Want]) -> LoadReply:
        reply = await self._read(self._calls.load(grant, wants))
        status = _STATUS[reply[0]]
        if status is not StoreStatus.OK:
            return LoadReply(status)
        return LoadReply(
            status, tuple(None if values is None else tuple(values) for values in reply[1])
        )

    async def scan(self, grant: GrantRef, partition: int, epoch: int, cursor: int) -> ScanReply:
        reply = await self._read(self._calls.scan(grant, partition, epoch, cursor))
        status = _STATUS[reply[0]]
        if status is not StoreStatus.OK:
            return ScanReply(status)
        return ScanReply(status, int(reply[1]), tuple(pairs_of(reply[2])))

    async def takeover(self, call: Takeover) -> TakeoverReply:
        # The function declares every key that it looks at, also to learn that nobody holds a
        # partition.
        from_nobody = any(move.from_nonce is None for move in call.moves)
        others = await self._grants() if from_nobody else ()
        status, reply, acknowledged = await self._write(_ADMIN, self._calls.takeover(call, others))
        if status is not StoreStatus.OK:
            return TakeoverReply(status, detail=_detail(reply))
        versions, renewals = read_takeover(reply[2])
        return TakeoverReply(status, acknowledged, renewals, versions)

    async def open_life(self, call: OpenLife) -> TakeoverReply:
        nonces = await self._grants()
        status, reply, acknowledged = await self._write(_ADMIN, self._calls.open_life(call, nonces))
        if status is not StoreStatus.OK:
            return TakeoverReply(status, detail=_detail(reply))
        return TakeoverReply(status, acknowledged)

    async def recorded(self) -> Recorded:
        return read_recorded(await self.administer(self._calls.recorded()))

    async def renewals(self, life: int, nonces: Sequence[bytes]) -> dict[bytes, int] | None:
        reply = await self.administer(self._calls.renewals(life, nonces))
        if _STATUS[reply[0]] is not StoreStatus.OK:
            return None
        numbers = zip(nonces, reply[1], strict=True)
        return {nonce: int.from_bytes(number, "big") for nonce, number in numbers if number}

    async def links(self) -> tuple[str, ...]:
        role = Role.from_reply(await self.administer(ROLE))
        if role is None:
            self._drop(_ADMIN, "not the primary any more")
            raise StoreUnreachable(
                f"store {self.address}: not the primary any more", executed=False
            )
        return tuple(name for name, _ in role.links)

    async def close(self) -> None:
        self._closed = True
        for connection in self._connections:
            if connection is not None:
                await connection.close()

    async def administer(self, command: bytes) -> Any:
        """Run one packed command on the connection of a leader's calls; for set-up and status."""
        return await self._plain(_ADMIN, command)

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
            return ServerInfo.from_info(str(self.address), await self.administer(pack("INFO")))
        except NoPrimary as error:
            raise SetupError(f"{error.message}; name the primary too") from error

    async def _grants(self) -> list[bytes]:
        nonces: list[bytes] = await self.administer(pack("HKEYS", self._calls.grants_key))
        return nonces

    async def _read(self, call: bytes) -> Any:
        return await self._plain(_READS, call)

    async def _plain(self, which: int, call: bytes) -> Any:
        connection = await self._connection(which)
        (reply,) = await connection.execute(call, within_s=self._call_timeout_s)
        return self._checked(which, reply)

    async def _write(self, which: int, call: bytes) -> tuple[StoreStatus, Any, bool]:
        """Carry out a call and learn whether all that must have it has it."""
        connection = await self._connection(which)
        fsynced = self._last_set.durability == "fsynced"
        links = links_to_wait_for(self._last_set, self._last_role)
        commands = [call, ROLE]
        if links:
            commands.append(self._wait(links))
        if fsynced:
            commands.append(self._wait_disk)
        if links or fsynced:
            commands.append(ROLE)
        replies = await connection.execute(*commands, within_s=self._call_timeout_s)
        reply = self._checked(which, replies[0])
        before, after = _role(replies[1]), _role(replies[-1])
        if after is None:
            self._drop(which, "not the primary any more")
        else:
            self._last_role = after
        status = _STATUS[reply[0]]
        if status is not StoreStatus.OK:
            return status, reply, False
        current = self._set(reply[1])
        on_disk = replies[-2] if fsynced else None
        acknowledged = is_acknowledged(
            current, before, after, fsynced=isinstance(on_disk, list) and on_disk[0] >= 1
        )
        return status, reply, acknowledged

    def _set(self, blob: bytes) -> InSyncSet:
        if blob != self._last_set_bytes:
            self._last_set, self._last_set_bytes = InSyncSet.decode(blob), blob
        return self._last_set

    def _wait(self, links: int) -> bytes:
        command = self._waits.get(links)
        if command is None:
            command = self._waits[links] = pack("WAIT", links, self._wait_timeout_ms)
        return command

    def _checked(self, which: int, reply: Any) -> Any:
        if isinstance(reply, ServerError):
            refused = refusal(str(self.address), reply)
            if refused.code in _NOT_PRIMARY:
                self._drop(which, refused.message)
            raise refused
        return reply

    def _drop(self, which: int, why: str) -> None:
        connection = self._connections[which]
        if connection is not None:
            connection.abort(why)

    async def _connection(self, which: int) -> Connection:
        """The pinned connection; a new one only where a call begins."""
        connection = self._connections[which]
        if connection is not None and not connection.closed:
            return connection
        async with self._opening[which]:
            connection = self._connections[which]
            if connection is not None and not connection.closed:
                return connection
            self._refuse_when_closed()
            primary = await find_primary(
                self.address,
                tls=self._tls,
                life_key=self._calls.life_key,
                within_s=self._connect_timeout_s,
            )
            try:
                self._refuse_when_closed()
            except StoreUnreachable:
                primary.connection.abort()
                raise
            self._connections[which] = primary.connection
            self._last_role = primary.role
            self._last_set = primary.sync_set or _UNKNOWN_SET
            self._last_set_bytes = b""
            return primary.connection

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnreachable(f"store {self.address}: closed here", executed=False)


def _role(reply: object) -> Role | None:
    return Role.from_reply(reply) if isinstance(reply, list) else None


def _detail(reply: Sequence[Any]) -> str:
    return reply[1].decode(errors="replace") if len(reply) > 1 else ""
