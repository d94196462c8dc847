"""A client's connections: one to each handler process and one to each endpoint, kept up.

A handler is named by its nonce, so that another process on a dead one's port is not taken for it, and dropped
once no table names it. An endpoint is kept for the tables that it pushes. Both are dialed again for as
long as they are wanted, ever later and with jitter, so that a thousand clients of a mesh that comes
back do not come in step. Names are resolved at each attempt: what moved is found where it is now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from random import Random
from typing import Any

from mesh.core.messages import Hello
from mesh.core.table import HandlerRow
from mesh.errors import MeshError, Unavailable
from mesh.net.connection import Connection, Receiver
from mesh.net.dial import dial

log = logging.getLogger("mesh.client")

_RECONNECT_S = 0.02
_MAX_RECONNECT_S = 1.0
_DIAL_S = 1.0
_RESOLVE_S = 5.0
_CLOSE_S = 0.5
"""A peer that does not read what it was sent is not waited for any longer than this."""


class Links:
    """Connections, and the tasks that make them. Also what the core's Ports are.

    Args:
        receiver: gets frames; on the end of a connection it calls `drop`.
        hello: how this client greets.
        on_up: told the nonce of a handler that is connected.
        on_refused: told an endpoint and why it was not reached.
        dice: for jitter.
    """

    def __init__(
        self,
        receiver: Receiver,
        hello: Hello,
        on_up: Callable[[bytes], None],
        on_refused: Callable[[str, MeshError], None],
        dice: Random,
    ) -> None:
        self._receiver = receiver
        self._hello = hello
        self._on_up = on_up
        self._on_refused = on_refused
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._handlers: dict[bytes, Connection] = {}
        self._endpoints: dict[str, Connection] = {}
        self._dialing: dict[bytes | str, asyncio.Task[None]] = {}
        self._connected_at: dict[bytes | str, float] = {}
        self._sockets: dict[Connection, None] = {}  # in order, so that runs can be repeated
        self._over = False
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"Links({len(self._handlers)} handlers, {len(self._dialing)} being dialed)"

    @property
    def handlers(self) -> int:
        """How many handlers are connected."""
        return len(self._handlers)

    # ------------------------------------------------- what the core asks for

    def send(self, nonce: bytes, frame: bytes) -> None:
        """See Ports."""
        self._handlers[nonce].send(frame)

    def connect(self, row: HandlerRow) -> None:
        """See Ports."""
        if row.nonce not in self._handlers:
            self._want(row.nonce, row.address)

    def disconnect(self, nonce: bytes) -> None:
        """See Ports."""
        conn = self._handlers.pop(nonce, None)
        if conn is not None:
            conn.close()
        self._connected_at.pop(nonce, None)
        task = self._dialing.pop(nonce, None)
        if task is not None:
            task.cancel()

    # ------------------------------------------------------ what the client asks for

    def keep(self, address: str) -> None:
        """Have a connection to that endpoint, from now on."""
        if address not in self._endpoints:
            self._want(address, address)

    def tell(self, frame: bytes) -> None:
        """Send the same to every handler."""
        for conn in self._handlers.values():
            conn.send(frame)

    def drop(self, conn: Connection) -> bytes | None:
        """A connection is over; an endpoint is dialed again. Returns the nonce if it was a handler's."""
        self._sockets.pop(conn, None)
        if self._over and not self._sockets:
            self._gone.set()
        for address, other in list(self._endpoints.items()):
            if other is conn:
                del self._endpoints[address]
                self.keep(address)
        if self._handlers.get(conn.tag) is not conn:
            return None
        del self._handlers[conn.tag]
        return conn.tag

    async def close(self) -> None:
        """End every connection, and every attempt at one."""
        self._over = True
        tasks = list(self._dialing.values())
        for task in tasks:
            task.cancel()
        for conn in list(self._sockets):
            conn.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._prune()
        if self._sockets:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._gone.wait()
        for conn in list(self._sockets):
            conn.abort()
        await asyncio.sleep(0)

    def orphan(self) -> list[int]:
        """In a forked child: dial nobody; the descriptors of all connections."""
        self._over = True
        for task in self._dialing.values():
            task.cancel()
        return [conn.descriptor for conn in self._sockets if conn.descriptor >= 0]

    # -------------------------------------------------------------- dialing

    def _want(self, peer: bytes | str, address: str) -> None:
        """A handler by its nonce, or an endpoint by its address."""
        if peer in self._dialing or self._over:
            return
        task = self._dialing[peer] = self._loop.create_task(self._reach(peer, address))

        def ended(task: asyncio.Task[None]) -> None:
            # Whatever it ended of: an entry that stays would mean that this peer is never dialed again.
            if self._dialing.get(peer) is task:
                del self._dialing[peer]
            if not task.cancelled() and task.exception() is not None:
                log.error("connecting to %s failed", address, exc_info=task.exception())

        task.add_done_callback(ended)

    async def _reach(self, peer: bytes | str, address: str) -> None:
        """Try until it is there; cancelled once nobody wants it any more."""
        delay = _RECONNECT_S
        await self._not_at_once(peer)
        while (conn := await self._try(peer, address)) is None:
            await asyncio.sleep(delay * self._dice.uniform(0.5, 1.0))
            delay = min(_MAX_RECONNECT_S, delay * 2)
        self._dialing.pop(peer, None)
        if isinstance(peer, str):
            self._endpoints[peer] = conn
        else:
            self._handlers[peer] = conn
        if conn.is_closed:
            self._receiver.on_closed(conn, "closed while connecting")
        elif isinstance(peer, bytes):
            self._on_up(peer)

    async def _try(self, peer: bytes | str, address: str) -> Connection | None:
        """One attempt, at each of the addresses that a name stands for."""
        refused: MeshError | None = None
        try:
            for place in await _resolve(address):
                try:
                    return await self._dial(peer, place)
                except MeshError as error:
                    refused = refused or error
        except MeshError as error:
            refused = error
        except Exception:  # an address that is none, out of a redirect or a table
            log.exception("%s was not reached", address)
        if refused is not None and isinstance(peer, str):
            self._on_refused(peer, refused)
        log.debug("%s was not reached: %s", address, refused)
        return None

    async def _dial(self, peer: bytes | str, place: str) -> Connection:
        conn, welcome = await dial(
            place, self._receiver, self._hello, timeout_s=_DIAL_S, opened=self._opened
        )
        if isinstance(peer, bytes) and welcome.nonce != peer:
            conn.close()
            raise Unavailable(f"another process has {place}: {welcome.role} {welcome.id}")
        return conn

    def _opened(self, conn: Connection) -> None:
        self._prune()
        self._sockets[conn] = None

    def _prune(self) -> None:
        """Forget connections that ended before their welcome: nobody is told of those."""
        self._sockets = dict.fromkeys(conn for conn in self._sockets if not conn.is_closed)

    async def _not_at_once(self, peer: bytes | str) -> None:
        """A peer that welcomes and then hangs up, again and again, is not dialed in a tight loop."""
        if self._loop.time() - self._connected_at.get(peer, -_MAX_RECONNECT_S) < _MAX_RECONNECT_S:
            await asyncio.sleep(_RECONNECT_S)
        self._connected_at[peer] = self._loop.time()


async def _resolve(address: str) -> Iterable[str]:
    """Where a "host:port" is right now, best first.

    Raises:
        Unavailable: the name stands for nothing, or nobody says so in time.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        return (f"{ip_address(host)}:{port}",)
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await _look_up(host, int(port))
    except TimeoutError:
        raise Unavailable(f"the name {host!r} was not resolved within {_RESOLVE_S:g} s") from None
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"the name {host!r} cannot be resolved: {error}") from None
    return dict.fromkeys(f"{where[0]}:{port}" for *_, where in found)


async def _look_up(host: str, port: int) -> list[Any]:
    """What the resolver says."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
