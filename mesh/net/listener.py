"""Accepting connections: nothing is read beyond a hello until the hello is right.

A connection without a valid hello is closed after a few seconds, and there are only so many of
them at a time. One more ends the one that has been silent longest, since a peer that means it says hello at
once: a thousand silent strangers cost a few small objects, and keep nobody out. Nor does a peer that said
hello hold memory with a frame that it never finishes.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from typing import Protocol

from mesh.core.messages import Hello, Message, unpack_message
from mesh.core.wire import Kind, Limits
from mesh.errors import ProtocolError, SetupError
from mesh.net.connection import Connection


class Service(Protocol):
    """What stands behind a listener."""

    def on_hello(self, conn: Connection, hello: Hello) -> Message:
        """A peer with the right token; returns the welcome."""
        ...

    def on_ready(self, conn: Connection) -> None:
        """The welcome is on its way: whatever follows it may be sent."""
        ...

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """Frames of a peer that said hello."""
        ...

    def on_closed(self, conn: Connection, reason: str) -> None:
        """A peer that said hello is gone."""
        ...


class Listener:
    """A listening socket and its connections.

    Args:
        service: gets what peers with a valid hello send.
        mesh: name; a peer of another mesh is refused.
        token: a peer has to know it; empty accepts everyone.
    """

    def __init__(
        self, service: Service, mesh: str, token: str = "", limits: Limits | None = None
    ) -> None:
        self._service = service
        self._mesh = mesh
        self._token = token
        self._limits = limits or Limits()
        self._server: asyncio.Server | None = None
        self._silent: dict[Connection, asyncio.TimerHandle] = {}
        self._connections: dict[Connection, None] = {}  # in order, so that runs can be repeated
        self._sweep: asyncio.TimerHandle | None = None
        self.port = 0

    def __repr__(self) -> str:
        return (
            f"Listener(port {self.port}, {len(self._connections)} connections, "
            f"{len(self._silent)} without a hello)"
        )

    async def open(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            SetupError: the address is taken, or not this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, host, port, backlog=1024)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweep = loop.call_later(self._limits.frame_s, self._end_stuck)

    def _accept(self) -> Connection:
        return Connection(self, self._limits, self._opened, self._limits.hello_bytes)

    def _opened(self, conn: Connection) -> None:
        if len(self._silent) >= self._limits.unauthenticated:
            oldest = next(iter(self._silent))
            self._forget(oldest)
            oldest.refuse(
                f"{self._limits.unauthenticated} others wait without a hello, this one for longest"
            )
        self._silent[conn] = asyncio.get_running_loop().call_later(
            self._limits.hello_s, conn.refuse, f"no hello within {self._limits.hello_s:g} s"
        )

    def _end_stuck(self) -> None:
        limit = self._limits.frame_s
        for conn in [conn for conn in self._connections if conn.is_stuck()]:
            conn.refuse(f"a frame was begun and not finished within {limit:g} s")
        self._sweep = asyncio.get_running_loop().call_later(limit, self._end_stuck)

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        if conn not in self._connections:
            kind, body = frames.pop(0)
            self._greet(conn, kind, body)
            if not frames or conn not in self._connections:
                return
        self._service.on_frames(conn, frames)

    def _greet(self, conn: Connection, kind: int, body: bytes) -> None:
        hello = unpack_message(body) if kind == Kind.HELLO else None
        if not isinstance(hello, Hello):
            raise ProtocolError("the first frame on a connection has to be a hello")
        if not hmac.compare_digest(str(hello.token).encode(), self._token.encode()):
            self._forget(conn)
            conn.refuse("wrong token: pass the one that the mesh was started with", auth=True)
            return
        if hello.mesh and hello.mesh != self._mesh:
            self._forget(conn)
            conn.refuse(f"this is mesh {self._mesh!r}, not {hello.mesh!r}")
            return
        self._forget(conn)
        conn.trust()
        conn.role = hello.role
        conn.tag = hello.nonce
        self._connections[conn] = None
        conn.send(self._service.on_hello(conn, hello).frame())
        self._service.on_ready(conn)

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        self._forget(conn)
        if conn in self._connections:
            del self._connections[conn]
            self._service.on_closed(conn, reason)

    def _forget(self, conn: Connection) -> None:
        timer = self._silent.pop(conn, None)
        if timer is not None:
            timer.cancel()

    @property
    def connections(self) -> list[Connection]:
        """Those that said hello."""
        return list(self._connections)

    async def close(self) -> None:
        """Stop listening and close every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        if self._server is not None:
            self._server.close()
        for conn in (*self._silent, *self._connections):
            conn.close("the service is shutting down")
        await asyncio.sleep(0)


def _cannot_listen(host: str, port: int, error: OSError) -> SetupError:
    return SetupError(
        f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port"
    )


async def check_port(host: str, port: int) -> None:
    """Find out whether a listener could be opened there, before anything slow is started.

    Raises:
        SetupError: the address is taken, or not this machine's.
    """
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    server.close()
    await server.wait_closed()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port
