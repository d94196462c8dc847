"""One pinned connection to the primary.

WAIT covers only what its own connection wrote, so the parts of a call must never be spread over a
pool. A call that writes is one write: FCALL, ROLE, WAIT, ROLE; one round trip, 20 us more than
FCALL and WAIT alone (counterexamples, "Measured").
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mesh.core.records import StoreStatus
from mesh.core.syncset import InSyncSet, Role, is_acknowledged
from mesh.specs import Durability
from mesh.store.address import StoreAddress
from mesh.store.api import StoreUnreachable
from mesh.store.confirming import Asked, Confirming, Seen, Written, count
from mesh.store.nudge import Nudger
from mesh.store.primary import ROLE, find_primary
from mesh.store.refusal import ServerError, refusal
from mesh.store.resp import Connection

_STATUS = {status.value.encode(): status for status in StoreStatus}
_NOT_PRIMARY = ("READONLY", "MASTERDOWN", "NOREPLICAS")
"""Who says so is no primary; or the last of its replicas has left it, which may follow another one by now."""


def status_of(reply: list[Any]) -> StoreStatus:
    """The verdict that a function's reply begins with."""
    return _STATUS[reply[0]]


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
        self._confirming = Confirming(seen, durability, call_timeout_s)
        self._life_closed = closed
        self._connection: Connection | None = None
        self._proven: Connection | None = None
        """The one on which a function has carried something out."""
        self._opening = asyncio.Lock()
        self._closed = False
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
        """A function's first call on a connection goes alone. Where its life is not open there, as on a node
        that was just promoted, or the set that it returns is another one, a WAIT for what this process last
        heard of would block the connection until its time is over.
        """
        if connection is self._proven:
            self._send(connection, call, [], changed or self._seen.sync_set, read, done)
            return

        def then(replies: list[Any] | StoreUnreachable) -> None:
            if isinstance(replies, StoreUnreachable):
                _fail(done, replies)
                return
            try:
                reply = self._checked(replies[0])
                if status_of(reply) is StoreStatus.OK:
                    self._proven = connection
                    self._send(connection, b"", [reply], self._seen.decoded(reply[1]), read, done)
                elif not done.done():
                    done.set_result(read(self._refused(reply)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to hear it
                _fail(done, error)

        try:
            connection.send(call, 1, self._call_timeout_s, then)
        except StoreUnreachable as error:
            _fail(done, error)

    def _send(
        self,
        connection: Connection,
        call: bytes,
        had: list[Any],
        expected: InSyncSet,
        read: Callable[[Written], Result],
        done: asyncio.Future[Result],
    ) -> None:
        """Send a call, unless its reply is what is had already, and what is to be waited for."""
        asked = self._confirming.ask(expected)
        nudger = self._nudger
        nudged = nudger.begin() if nudger else 0

        def then(replies: list[Any] | StoreUnreachable) -> None:
            if nudger:
                nudger.end(nudged)
            if isinstance(replies, StoreUnreachable):
                _fail(done, replies)
                return
            try:
                reply, *said = had + replies
                written, more = self._judge(self._checked(reply), asked, said)
                if more:
                    waiting = self._wait_for_more(connection, written, asked, said)
                    self._later(_pass_on(waiting, read, done))
                elif not done.done():
                    done.set_result(read(written))
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller has to hear it
                _fail(done, error)

        try:
            connection.send(call + asked.packed, asked.due + (not had), self._call_timeout_s, then)
        except StoreUnreachable as error:
            if nudger:
                nudger.end(nudged)
            _fail(done, _carried_out(error) if had else error)

    def _judge(self, reply: list[Any], asked: Asked, said: list[Any]) -> tuple[Written, bool]:
        before, after = self._role(said[0]), self._role(said[-1])
        if status_of(reply) is not StoreStatus.OK:
            return self._refused(reply), False
        return self._confirming.judge(reply, asked, said, before, after)

    def _refused(self, reply: list[Any]) -> Written:
        status = status_of(reply)
        if status is StoreStatus.CLOSED:
            self._life_closed()
        return Written(status, reply)

    async def _wait_for_more(
        self, connection: Connection, written: Written, asked: Asked, replies: list[Any]
    ) -> Written:
        """WAIT counts any links. Where some need not confirm and were faster than a member, wait for
        one link more: the first answer was not short, it was somebody else's.
        """
        current = self._seen.decoded(written.reply[1])
        before, after = Role.from_reply(replies[0]), Role.from_reply(replies[-1])
        on_disk = self._confirming.is_on_disks(asked, replies, after)
        acknowledged, links, counted = False, 0, count(replies[1])
        while not acknowledged and after and links <= counted < len(after.links):
            links = counted + 1
            try:
                waited, said = await connection.execute(
                    self._confirming.wait(links), ROLE, within_s=self._call_timeout_s
                )
            except StoreUnreachable as error:
                raise _carried_out(error) from error
            counted, after = count(waited), self._role(said)
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
            life=self._seen.life,
        )
        try:
            self._refuse_when_closed()
        except StoreUnreachable:
            primary.connection.abort()
            raise
        self._seen.found(primary)
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


def _carried_out(error: StoreUnreachable) -> StoreUnreachable:
    """Where nothing more could be sent, the connection says False, of the WAIT alone: the call itself was
    carried out.
    """
    return StoreUnreachable(error.message, executed=None)
