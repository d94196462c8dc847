"""One pinned connection to the primary, and the judgement whether what was written over it is
acknowledged.

WAIT covers only what its own connection wrote, so the parts of a call must never be spread over a
pool. A call that writes is one write: FCALL, ROLE, WAIT, ROLE; one round trip, 20 us more than
FCALL and WAIT alone (counterexamples, "Measured").
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, NamedTuple

from mesh.core.records import StoreStatus
from mesh.core.syncset import InSyncSet, Role, is_acknowledged, links_to_wait_for
from mesh.store.address import StoreAddress
from mesh.store.api import StoreUnreachable
from mesh.store.primary import ROLE, find_primary
from mesh.store.refusal import ServerError, refusal
from mesh.store.resp import Connection, pack

_STATUS = {status.value.encode(): status for status in StoreStatus}
_NOT_PRIMARY = ("READONLY", "MASTERDOWN")
_UNKNOWN_SET = InSyncSet(0, frozenset())


def status_of(reply: list[Any]) -> StoreStatus:
    """The verdict that a function's reply begins with."""
    return _STATUS[reply[0]]


@dataclass(slots=True)
class Seen:
    """What this process's connections saw last. It decides how many links a WAIT waits for, never
    whether a write is acknowledged.
    """

    wait_timeout_ms: int
    role: Role | None = None
    sync_set: InSyncSet = _UNKNOWN_SET
    blob: bytes = b""

    def decoded(self, blob: bytes) -> InSyncSet:
        """The set in a reply; nearly always the same as before."""
        if blob != self.blob:
            self.sync_set, self.blob = InSyncSet.decode(blob), blob
        return self.sync_set


class Written(NamedTuple):
    """A call's reply, and whether every node that must have what it wrote has it."""

    status: StoreStatus
    reply: list[Any]
    set_version: int = 0
    acknowledged: bool = False


class PinnedConnection:
    """A connection that is opened where a call begins, and never again within one call."""

    def __init__(
        self,
        address: StoreAddress,
        seen: Seen,
        *,
        life_key: bytes,
        tls: ssl.SSLContext | None,
        call_timeout_s: float,
        connect_timeout_s: float,
    ) -> None:
        self._address = address
        self._seen = seen
        self._life_key = life_key
        self._tls = tls
        self._call_timeout_s = call_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._wait_disk = pack("WAITAOF", 1, 0, seen.wait_timeout_ms)

    def __repr__(self) -> str:
        return f"<PinnedConnection {self._connection}>"

    async def ask(self, command: bytes) -> Any:
        """One packed command's reply.

        Raises:
            StoreRefused: it is an error.
            StoreUnreachable: the connection could not be made, or broke.
        """
        connection = await self._open()
        (reply,) = await connection.execute(command, within_s=self._call_timeout_s)
        return self._checked(reply)

    async def write(self, call: bytes) -> Written:
        """Carry out a function call and learn whether it is acknowledged; raises as `ask` does.

        StoreUnreachable says `executed` False only where nothing of the call was ever sent.
        """
        connection = await self._open()
        seen = self._seen
        fsynced = seen.sync_set.durability == "fsynced"
        links = links_to_wait_for(seen.sync_set, seen.role)
        commands = [call, ROLE]
        if links:
            commands.append(self._wait(links))
        if fsynced:
            commands.append(self._wait_disk)
        if links or fsynced:
            commands.append(ROLE)
        replies = await connection.execute(*commands, within_s=self._call_timeout_s)
        reply = self._checked(replies[0])
        before, after = self._role(replies[1]), self._role(replies[-1])
        status = status_of(reply)
        if status is not StoreStatus.OK:
            return Written(status, reply)
        current = seen.decoded(reply[1])
        on_disk = fsynced and _count(replies[-2]) >= 1
        counted = _count(replies[2]) if links else 0
        acknowledged = is_acknowledged(current, before, after, fsynced=on_disk)
        # WAIT counts any links. Where some need not confirm and were faster than a member, wait for
        # one link more: the first answer was not short, it was somebody else's.
        while not acknowledged and after and links <= counted < len(after.links):
            links = counted + 1
            try:
                waited, said = await connection.execute(
                    self._wait(links), ROLE, within_s=self._call_timeout_s
                )
            except StoreUnreachable as error:
                # Where nothing more could be sent, the connection says False, of the WAIT alone: the
                # call itself was carried out.
                raise StoreUnreachable(error.message, executed=None) from error
            counted, after = _count(waited), self._role(said)
            acknowledged = is_acknowledged(current, before, after, fsynced=on_disk)
        return Written(status, reply, current.version, acknowledged)

    async def close(self) -> None:
        """End the connection for good; calls under way end with StoreUnreachable."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    def drop(self, why: str) -> None:
        """End the connection; the next call looks for the primary."""
        if self._connection is not None:
            self._connection.abort(why)

    def _wait(self, links: int) -> bytes:
        return pack("WAIT", links, self._seen.wait_timeout_ms)

    def _role(self, reply: object) -> Role | None:
        role = Role.from_reply(reply) if isinstance(reply, list) else None
        if role is None:
            self.drop("not the primary any more")
        else:
            self._seen.role = role
        return role

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, ServerError):
            refused = refusal(str(self._address), reply)
            if refused.code in _NOT_PRIMARY:
                self.drop(refused.message)
            raise refused
        return reply

    async def _open(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await self._opened()
            return self._connection

    async def _opened(self) -> Connection:
        self._refuse_when_closed()
        primary = await find_primary(
            self._address,
            tls=self._tls,
            life_key=self._life_key,
            within_s=self._connect_timeout_s,
        )
        try:
            self._refuse_when_closed()
        except StoreUnreachable:
            primary.connection.abort()
            raise
        seen = self._seen
        seen.role, seen.sync_set, seen.blob = primary.role, primary.sync_set or _UNKNOWN_SET, b""
        return primary.connection

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnreachable(f"store {self._address}: closed here", executed=False)


def _count(reply: object) -> int:
    """What WAIT or WAITAOF counted; nothing where it failed."""
    match reply:
        case int(count) | [int(count), *_]:
            return count
        case _:
            return 0
