"""One pinned connection to the primary, and the judgement whether what was written over it is
acknowledged.

WAIT covers only what its own connection wrote, so the parts of a call must never be spread over a
pool. A call that writes is one write: FCALL, ROLE, WAIT, ROLE; one round trip, 20 us more than
FCALL and WAIT alone (counterexamples, "Measured").
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from mesh.core.lag import Lag
from mesh.core.records import StoreStatus
from mesh.core.syncset import InSyncSet, Role, is_acknowledged, links_to_wait_for
from mesh.specs import Durability
from mesh.store.address import StoreAddress
from mesh.store.api import StoreUnreachable
from mesh.store.nudge import Nudger
from mesh.store.primary import ROLE, find_primary
from mesh.store.refusal import ServerError, refusal
from mesh.store.resp import Connection, pack

_STATUS = {status.value.encode(): status for status in StoreStatus}
_NOT_PRIMARY = ("READONLY", "MASTERDOWN", "NOREPLICAS")
"""Who says so is no primary; or the last of its replicas has left it, which may follow another one by now."""
_UNKNOWN_SET = InSyncSet(0, frozenset())
_DISK_SHARE = 0.75
"""Of the time for a whole call, for the disks; later than that the connection would be given up."""


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
    preferred: str = ""
    """The node that was the primary when somebody looked; no word of another is waited for."""
    lag: Lag = field(default_factory=Lag)

    def heard(self, role: Role) -> None:
        """The primary said how far its replicas are."""
        self.role = role
        self.lag.heard(role, self.sync_set.members)

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
    members: int = 0
    """Of the in-sync set by which that is judged."""


Result = TypeVar("Result")


class PinnedConnection:
    """A connection that is opened where a call begins, and never again within one call.

    Args:
        nudger: told of each write; None where nothing writes.
        durability: what `acknowledged` stands for (mesh.core.lanes).
        closed: called where a function says that its life is not open there.
    """

    def __init__(
        self,
        address: StoreAddress,
        seen: Seen,
        *,
        life_key: bytes,
        tls: ssl.SSLContext | None,
        call_timeout_s: float,
        connect_timeout_s: float,
        nudger: Nudger | None = None,
        durability: Durability = "replicated",
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._seen = seen
        self._life_key = life_key
        self._tls = tls
        self._call_timeout_s = call_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._nudger = nudger
        self._durability = durability
        self._life_closed = closed
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._waits: dict[tuple[int, bool], tuple[bytes, int]] = {}
        self._slow: set[asyncio.Task[None]] = set()

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

    def write(
        self, call: bytes, read: Callable[[Written], Result], changed: InSyncSet | None = None
    ) -> asyncio.Future[Result]:
        """Carry out a function call and learn whether it is acknowledged; raises as `ask` does.

        On an open connection the call has left when this returns, and its replies are judged where
        they arrive: no task and no wake-up lie between (a process that is woken among others pays
        for each with cold caches). StoreUnreachable says `executed` False only where nothing
        of the call was ever sent.

        Args:
            read: makes the caller's result of what was written.
            changed: the set that this very call makes the one to acknowledge it; waiting for a member that
                it takes out would only cost the time-out.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        connection = self._connection
        if connection is None or connection.closed:
            self._later(self._open_and_begin(call, read, changed, done))
        else:
            self._begin(connection, call, read, changed, done)
        return done

    async def _open_and_begin(
        self,
        call: bytes,
        read: Callable[[Written], Result],
        changed: InSyncSet | None,
        done: asyncio.Future[Result],
    ) -> None:
        try:
            connection = await self._open()
        except asyncio.CancelledError:
            _fail(done, self._closed_here())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to hear it
            _fail(done, error)
        else:
            self._begin(connection, call, read, changed, done)

    def _begin(
        self,
        connection: Connection,
        call: bytes,
        read: Callable[[Written], Result],
        changed: InSyncSet | None,
        done: asyncio.Future[Result],
    ) -> None:
        seen = self._seen
        expected = changed or seen.sync_set
        is_async = self._durability == "async"
        fsynced = not is_async and "fsynced" in (self._durability, expected.durability)
        links = 0 if is_async else links_to_wait_for(expected, seen.role)
        waits = self._waits.get((links, fsynced))
        if waits is None:
            waits = self._waits[links, fsynced] = self._packed_waits(links, fsynced=fsynced)
        nudger = self._nudger
        nudged = nudger.begin() if nudger else 0

        def then(replies: list[Any] | StoreUnreachable) -> None:
            if nudger:
                nudger.end(nudged)
            if isinstance(replies, StoreUnreachable):
                _fail(done, replies)
                return
            try:
                written, more = self._judge(replies, links, fsynced=fsynced)
                if more:
                    waiting = self._wait_for_more(connection, written, replies, fsynced=fsynced)
                    self._later(_pass_on(waiting, read, done))
                elif not done.done():
                    done.set_result(read(written))
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to hear it
                _fail(done, error)

        try:
            connection.send(call + waits[0], waits[1], self._call_timeout_s, then)
        except StoreUnreachable as error:
            if nudger:
                nudger.end(nudged)
            _fail(done, error)

    def _packed_waits(self, links: int, *, fsynced: bool) -> tuple[bytes, int]:
        """What follows a call, and the number of replies to all of it."""
        commands = [ROLE]
        if links:
            commands.append(self._wait(links))
        if fsynced:
            # By default disks are synced once a second, those of the replicas, too.
            timeout_ms = round(self._call_timeout_s * _DISK_SHARE * 1000)
            on_disks = links if self._durability == "fsynced" else 0
            commands.append(pack("WAITAOF", 1, on_disks, timeout_ms))
        if links or fsynced:
            commands.append(ROLE)
        return b"".join(commands), 1 + len(commands)

    def _judge(self, replies: list[Any], links: int, *, fsynced: bool) -> tuple[Written, bool]:
        """What the replies say, and whether waiting for one link more may say better."""
        reply = self._checked(replies[0])
        before, after = self._role(replies[1]), self._role(replies[-1])
        status = status_of(reply)
        if status is not StoreStatus.OK:
            if status is StoreStatus.CLOSED:
                self._life_closed()
            return Written(status, reply), False
        current = self._seen.decoded(reply[1])
        if self._durability == "async":
            if before is not None:
                self._seen.lag.wrote(before.offset, asyncio.get_running_loop().time())
                self._seen.heard(before)
            return Written(status, reply, current.version, before is not None), False
        on_disk = fsynced and self._is_on_disks(replies[-2], after)
        if self._durability == "fsynced" and not on_disk:
            return Written(status, reply, current.version), False
        acknowledged = is_acknowledged(current, before, after, fsynced=on_disk)
        more = bool(
            not acknowledged and links and after and links <= _count(replies[2]) < len(after.links)
        )
        members = len(current.members)
        return Written(status, reply, current.version, acknowledged, members), more

    def _is_on_disks(self, reply: object, after: Role | None) -> bool:
        """Whether the disks have it that must: the primary's own, and for the class "fsynced" that of every
        replica that is attached, since WAITAOF counts links and does not name them.
        """
        disks = len(after.links) if after and self._durability == "fsynced" else 0
        match reply:
            case [int(own), int(replicas)]:
                return own >= 1 and replicas >= disks
            case _:
                return False

    async def _wait_for_more(
        self, connection: Connection, written: Written, replies: list[Any], *, fsynced: bool
    ) -> Written:
        """WAIT counts any links. Where some need not confirm and were faster than a member, wait for
        one link more: the first answer was not short, it was somebody else's.
        """
        current = self._seen.decoded(written.reply[1])
        before, after = Role.from_reply(replies[1]), Role.from_reply(replies[-1])
        on_disk = fsynced and self._is_on_disks(replies[-2], after)
        acknowledged, links, counted = False, 0, _count(replies[2])
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
        return written._replace(acknowledged=acknowledged)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._slow.add(task)
        task.add_done_callback(self._slow.discard)

    async def close(self) -> None:
        """End the connection for good; calls under way end with StoreUnreachable."""
        self._closed = True
        for task in self._slow:
            task.cancel()
        if self._connection is not None:
            await self._connection.close()

    def leave_unless(self, primary: str) -> None:
        """End the connection unless it leads to that node."""
        connection = self._connection
        if connection is not None and not connection.closed and connection.peer != primary:
            connection.abort(f"{primary} is the primary")

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
            self._seen.heard(role)
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
            preferred=self._seen.preferred,
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
            raise self._closed_here()

    def _closed_here(self) -> StoreUnreachable:
        return StoreUnreachable(f"store {self._address}: closed here", executed=False)


async def _pass_on(
    waiting: Coroutine[Any, Any, Written],
    read: Callable[[Written], Result],
    done: asyncio.Future[Result],
) -> None:
    try:
        result = read(await waiting)
    except asyncio.CancelledError:
        _fail(done, StoreUnreachable("closed while a link more was waited for", executed=None))
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to hear it
        _fail(done, error)
    else:
        if not done.done():
            done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():  # its caller was cancelled
        done.set_exception(error)


def _count(reply: object) -> int:
    """What WAIT or WAITAOF counted; nothing where it failed."""
    match reply:
        case int(count) | [int(count), *_]:
            return count
        case _:
            return 0
