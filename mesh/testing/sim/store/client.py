"""One client's connection to a node: commands in, replies out, in order; a WAIT holds up what is behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import hiredis

from mesh.testing.sim.store.access import User
from mesh.testing.sim.store.replies import Encoded, Fault, Reply, encode

if TYPE_CHECKING:
    from mesh.testing.sim.store.links import Link
    from mesh.testing.sim.store.server import Server

NO_REPLY = Encoded(b"")


class Client(asyncio.Protocol):
    """A connection.

    Attributes:
        written: the stream's offset behind the last thing that this connection wrote: a WAIT's measure.
        blocked: a WAIT is under way; what is behind it stays unread.
        ending: nothing more is carried out.
        link: set once it is a replica's.
    """

    __slots__ = (
        "blocked",
        "database",
        "ending",
        "host",
        "id",
        "link",
        "listening_port",
        "name",
        "out",
        "port",
        "reader",
        "server",
        "transport",
        "user",
        "written",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.id = server.next_client_id()
        self.reader = hiredis.Reader()
        self.user: User | None = server.users.at_first
        self.database = 0
        self.name = b""
        self.written = 0
        self.blocked = False
        self.ending = False
        self.link: Link | None = None
        self.listening_port = 0
        self.out: list[bytes] = []
        self.host, self.port = "", 0
        self.transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        return f"<Client {self.id} {self.host}:{self.port}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.host, self.port = transport.get_extra_info("peername")[:2]
        self.server.clients[self.id] = self

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        self.serve()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ending = True
        self.server.forget(self)

    def serve(self) -> None:
        """Carry out what was received, up to a command that blocks."""
        server = self.server
        if server.is_held(self.serve):
            return
        gets, out = self.reader.gets, self.out
        while not self.blocked and not self.ending:
            try:
                args: Any = gets()
            except hiredis.ProtocolError as error:
                out.append(encode(Fault(f"ERR Protocol error: {error}")))
                self.end()
                break
            if args is False:
                break
            if args and isinstance(args, list):
                reply = server.execute(self, args)
                if reply is not NO_REPLY:
                    out.append(encode(reply))
        self.flush()

    def unblock(self, reply: Reply) -> None:
        """The WAIT under way has its answer; go on with what is behind it."""
        self.blocked = False
        self.out.append(encode(reply))
        self.serve()

    def flush(self) -> None:
        """Send the replies; close, if that was asked for."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.out:
            transport.write(b"".join(self.out))
            self.out.clear()
        if self.ending:
            transport.close()

    def end(self) -> None:
        """Carry out nothing more, and close once the replies so far are sent."""
        self.ending = True

    def kill(self) -> None:
        """Close at once."""
        self.ending = True
        if self.transport is not None:
            self.transport.abort()
