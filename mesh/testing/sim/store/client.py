"""One client's connection to a node: commands in, replies out, in order.

A WAIT holds up what is behind it.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis

from mesh.testing.sim.store.replies import Fault, Reply, encode
from mesh.testing.sim.store.server import Server
from mesh.testing.sim.store.session import NO_REPLY, Session


class Client(Session, asyncio.Protocol):
    """A connection, with its socket."""

    __slots__ = ("_out", "_reader", "_server", "_transport")

    def __init__(self, server: Server) -> None:
        super().__init__(server.next_client_id(), server.users.at_first)
        self._server = server
        self._reader = hiredis.Reader()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.host, self.port = transport.get_extra_info("peername")[:2]
        self._server.clients[self.id] = self

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._serve()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ending = True
        self._server.forget(self)

    def _serve(self) -> None:
        """Carry out what was received, up to a command that blocks."""
        server = self._server
        if server.paused and server.is_held(self._serve):
            return
        gets, out = self._reader.gets, self._out
        while not self.blocked and not self.ending and not server.paused:
            try:
                args: Any = gets()
            except hiredis.ProtocolError as error:
                out.append(encode(Fault(f"ERR Protocol error: {error}")))
                self.end()
                break
            if args is False:
                break
            if type(args) is list and args:
                reply = server.execute(self, args)
                if reply is not NO_REPLY:
                    out.append(encode(reply))
        if server.paused:
            server.is_held(self._serve)  # a DEBUG SLEEP among them
        if out or self.ending:
            self._flush()

    def unblock(self, reply: Reply) -> None:
        self.blocked = False
        self._out.append(encode(reply))
        self._serve()

    def _flush(self) -> None:
        """Send the replies; close, if that was asked for."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._out:
            transport.write(b"".join(self._out))
            self._out.clear()
        if self.ending:
            transport.close()

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def kill(self) -> None:
        self.ending = True
        if self._transport is not None:
            self._transport.abort()
