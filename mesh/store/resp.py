"""One connection to a Redis or Valkey server, as thin as it can be.

Commands come in as packed RESP bytes, several of them leave in one write, and their replies are
returned in order. redis-py's asyncio pipeline costs 0.1 ms more per round trip (facts.md), a fifth
of a commit; and it reconnects and repeats by itself, which a sequence of batches must never be
subject to: once lost, a connection here stays lost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

import hiredis

from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.refusal import ServerError, refusal


def pack(*arguments: bytes | str | int) -> bytes:
    """One command in RESP."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # its stub wants one
    return packed


def bulk(argument: bytes) -> bytes:
    """One argument in RESP, for a command put together from parts packed beforehand."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


Then = Callable[[list[object] | StoreUnreachable], None]
"""Gets the replies to what was sent, errors as `ServerError` values; or why there will be none."""


class _Pending:
    """Replies still due to one `send`."""

    __slots__ = ("deadline", "due", "replies", "then", "within_s")

    def __init__(self, due: int, within_s: float, deadline: float, then: Then) -> None:
        self.due = due
        self.within_s = within_s
        self.deadline = deadline
        self.then = then
        self.replies: list[object] = []


class Connection(asyncio.Protocol):
    """A connection that answers in order; see `connect`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(
            replyError=cast("type[Exception]", ServerError), notEnoughData=Ellipsis
        )
        self._pending: deque[_Pending] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._watch_at = 0.0
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._why = ""
        self.complaint: ServerError | None = None
        """What the server said at the start that may explain why it hangs up."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._pending)} pending"
        return f"<Connection to {self.name}, {state}>"

    @property
    def peer(self) -> str:
        """HOST:PORT as the socket has it, so as ROLE and Sentinels name a node."""
        found = self._transport.get_extra_info("peername") if self._transport else None
        return f"{found[0]}:{found[1]}" if found else self.name

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def send(self, commands: bytes, due: int, within_s: float, then: Then) -> None:
        """Send packed commands in one write; `then` is called once, with their `due` replies.

        Replies overdue after `within_s` seconds end the connection: what was sent may be carried
        out later, and no reply behind it could be told from a late one.

        Raises:
            StoreUnreachable: nothing was sent; `executed` is False. A connection that breaks later is
                told to `then`, and leaves it None.
        """
        if self._transport is None or self._transport.is_closing():
            raise StoreUnreachable(
                f"store {self.name}: the connection is closed ({self._why})", executed=False
            )
        deadline = self._loop.time() + within_s
        self._pending.append(_Pending(due, within_s, deadline, then))
        self._transport.write(commands)
        # One timer for all calls, looked at when it rings: nearly every reply is there long before.
        if self._watch is None or deadline < self._watch_at:
            self._ring_at(deadline)

    async def execute(self, *commands: bytes, within_s: float) -> list[object]:
        """`send`, awaited.

        Raises:
            StoreUnreachable: `executed` False if nothing was sent, None if the connection broke.
        """
        done: asyncio.Future[list[object]] = self._loop.create_future()

        def then(replies: list[object] | StoreUnreachable) -> None:
            if done.done():  # its caller was cancelled
                return
            if isinstance(replies, StoreUnreachable):
                done.set_exception(replies)
            else:
                done.set_result(replies)

        self.send(b"".join(commands), len(commands), within_s, then)
        return await done

    def abort(self, why: str = "closed here") -> None:
        """End the connection at once; calls under way end with StoreUnreachable."""
        if self._transport is not None and not self._transport.is_closing():
            self._why = self._why or why
            self._transport.abort()

    async def close(self) -> None:
        """End the connection and wait until its socket is closed."""
        self.abort()
        if self._transport is not None:
            await self._lost

    def _ring_at(self, deadline: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch_at = deadline
        self._watch = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._watch = None
        if not self._pending:
            return
        first = min(self._pending, key=lambda pending: pending.deadline)
        if first.deadline <= self._loop.time():
            self.abort(f"no reply within {first.within_s:g} s")
        else:
            self._ring_at(first.deadline)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # TCP_NODELAY is set by asyncio and by uvloop themselves.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not Ellipsis:
                pending = self._pending[0]
                pending.replies.append(reply)
                if len(pending.replies) == pending.due:
                    self._pending.popleft()
                    pending.then(pending.replies)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(f"not a RESP reply: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._why = self._why or str(exc or f"closed by the server{self._last_words()}")
        if self._watch is not None:
            self._watch.cancel()
        while self._pending:
            pending = self._pending.popleft()
            pending.then(StoreUnreachable(f"store {self.name}: {self._why}", executed=None))
        if not self._lost.done():
            self._lost.set_result(None)

    def _last_words(self) -> str:
        """Why a server hangs up it says in an error, such as that it has as many clients as it may."""
        unfinished = self._pending[0].replies if self._pending else []
        said = next((r for r in unfinished if isinstance(r, ServerError)), self.complaint)
        return "" if said is None else f", which had said: {said}"


_SCHEMES = "rediss:// is with TLS, redis:// without"


def _why(error: OSError, within_s: float, tls: ssl.SSLContext | None) -> str:
    match error:
        case ConnectionRefusedError():
            return "nothing listens there"
        case socket.gaierror():
            return f"the name of its host is not known ({error.strerror})"
        case TimeoutError():
            # A server without TLS takes the greeting for half a command, and waits for the rest.
            return f"no answer within {within_s:g} s" + (f" ({_SCHEMES})" if tls else "")
        case ssl.SSLError() if not isinstance(error, ssl.SSLCertVerificationError):
            return f"no TLS could be agreed on: {error.reason or error} ({_SCHEMES})"
    return str(error)


async def connect(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    username: str | None = None,
    password: str | None = None,
    database: int = 0,
    client_name: str = "raymesh",
    within_s: float,
) -> Connection:
    """Open a connection, log in and choose the database.

    Raises:
        StoreUnreachable: nobody answered there within `within_s` seconds.
        StoreRefused: the server did not accept the user, the password or the database.
    """
    name = f"{host}:{port}"
    connection = Connection(name)
    try:
        async with asyncio.timeout(within_s):
            await asyncio.get_running_loop().create_connection(
                lambda: connection, host, port, ssl=tls
            )
    except (OSError, TimeoutError) as error:
        connection.abort()
        raise StoreUnreachable(
            f"store {name}: {_why(error, within_s, tls)}", executed=False
        ) from error
    commands = [pack("CLIENT", "SETNAME", client_name)]  # for CLIENT LIST; may be refused
    if database:
        commands.insert(0, pack("SELECT", database))
    if password is not None:
        commands.insert(0, pack("AUTH", username or "default", password))
    try:
        replies = await connection.execute(*commands, within_s=within_s)
    except BaseException:
        connection.abort()
        raise
    for reply in replies[:-1]:
        if isinstance(reply, ServerError):
            connection.abort()
            raise refusal(name, reply)
    if isinstance(replies[-1], ServerError):
        connection.complaint = replies[-1]
    return connection


async def ask_once(
    host: str, port: int, *commands: bytes, password: str | None, within_s: float = 1.0
) -> list[object]:
    """Replies of one server to packed commands, over a connection of its own; [] when it does not answer."""
    try:
        connection = await connect(host, port, password=password, within_s=within_s)
    except (StoreUnreachable, StoreRefused):
        return []
    try:
        replies: list[object] = await connection.execute(*commands, within_s=within_s)
        return replies
    except StoreUnreachable:
        return []
    finally:
        await connection.close()
