"""A replica's side of replication: the connection to its primary.

The protocol is the real one as far as it matters here: AUTH, REPLCONF listening-port, PSYNC; the whole
data or the rest of the stream; then commands, each worth its length in offset. Acknowledgements go back on
the same connection.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import hiredis

from mesh.store.resp import pack
from mesh.testing.sim.store.data_commands import Data
from mesh.testing.sim.store.pieces import GETACK, PING, Piece, known
from mesh.testing.sim.store.replies import Fault
from mesh.testing.sim.store.server import Server


class Follower:
    """What a replica knows of its primary.

    Attributes:
        state: connect, connecting, handshake, sync or connected, as ROLE says it.
        heard_at: when the primary last sent anything.
        down_since: when the link was lost; None while it is up.
    """

    def __init__(self, server: Server, host: str, port: int) -> None:
        self._server = server
        self.host, self.port = host, port
        self.state = "connect"
        self.heard_at = server.now
        self.down_since: float | None = server.now
        self.database = 0
        self._link: _PrimaryLink | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ended = False

    def connect(self) -> None:
        """Try to reach the primary, unless that is under way."""
        if self.state != "connect" or self._ended:
            return
        self.state = "connecting"
        self.heard_at = self._server.now
        self._connecting = self._server.loop.create_task(self._connect())

    async def _connect(self) -> None:
        link = _PrimaryLink(self._server, self)
        try:
            await self._server.loop.create_connection(lambda: link, self.host, self.port)
        except OSError:
            if self._link is None and self.state == "connecting":
                self.state = "connect"
        finally:
            self._connecting = None

    def established(self, link: _PrimaryLink) -> None:
        """A connection is there."""
        self._link = link
        self.state = "handshake"

    def follows(self, link: _PrimaryLink) -> bool:
        """Whether that connection is the one that counts."""
        return self._link is link

    def lost(self, link: _PrimaryLink) -> None:
        """A connection is gone; try again at once, then once a second."""
        if self._link is not link:
            return
        self._link = None
        was_up = self.state == "connected"
        self.state = "connect"
        if was_up:
            self.down_since = self._server.now
            self.connect()

    def up(self) -> None:
        """The stream goes on from here."""
        if self._link is None:
            return
        self.state = "connected"
        self.down_since = None
        self.acknowledge()

    def acknowledge(self) -> None:
        """Say how far this node is."""
        if self._link is not None and self.state == "connected":
            offset, synced = self._server.stream.offset, self._server.synced_offset
            self._link.send(pack("REPLCONF", "ACK", offset, "FACK", synced))

    def look(self, now: float, timeout_s: int) -> None:
        """Once a second."""
        if self.state == "connect":
            self.connect()
        elif now - self.heard_at > timeout_s:
            self.drop()
        elif self.state == "connected":
            self.acknowledge()

    def drop(self) -> None:
        """End the connection; a new one is tried."""
        if self._connecting is not None:
            self._connecting.cancel()
            self.state = "connect"
        if self._link is not None:
            self._link.abort()

    def end(self) -> None:
        """Follow no more."""
        self._ended = True
        self.drop()
        self._link = None


class _PrimaryLink(asyncio.Protocol):
    """One connection to the primary."""

    __slots__ = ("_due", "_follower", "_full", "_reader", "_server", "_transaction", "_transport")

    def __init__(self, server: Server, follower: Follower) -> None:
        self._server = server
        self._follower = follower
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._due = 0
        self._full: tuple[str, int, int] | None = None
        """Of the data on their way: their history, its offset, the database that the stream is about."""
        self._transaction: list[list[bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings, stream = self._server.settings, self._server.stream
        commands = [pack("REPLCONF", "listening-port", self._server.port)]
        if password := settings.text("masterauth"):
            commands.insert(0, pack("AUTH", settings.text("masteruser") or "default", password))
        commands.append(pack("PSYNC", stream.id, stream.offset))
        self._due = len(commands)
        self._follower.established(self)
        self.send(b"".join(commands))

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._follower.lost(self)

    def data_received(self, data: bytes) -> None:
        server, follower = self._server, self._follower
        if (
            not self._due
            and self._full is None
            and self._transaction is None
            and follower is server.follower
            and follower.follows(self)
            and not server.loading
            and not server.paused
            and not self._reader.has_data()
            and (pieces := known(data)) is not None
        ):
            follower.heard_at = server.now
            for piece in pieces:
                self._take(piece)
            server.wake()
            return
        self._reader.feed(data)
        self._read()

    def _read(self) -> None:
        server, follower = self._server, self._follower
        if server.is_held(self._read):
            return
        follower.heard_at = server.now
        # A connection that was given up may still have something to say.
        while follower is server.follower and follower.follows(self):
            if server.loading:
                server.when_loaded.append(self._read)
                break
            said: Any = self._reader.gets()
            if said is False:
                break
            if self._due:
                self._handshake(said)
            elif self._full is not None:
                self._begin(said, *self._full)
            else:
                self._apply(said)
        server.wake()

    def _begin(self, blob: bytes, id: str, offset: int, database: int) -> None:
        """All of the primary's data have arrived; only now this node's history is the primary's."""
        server = self._server
        self._full = None
        server.stream.begin(id, offset)
        server.links.keep()
        server.links.disconnect()
        self._follower.database = database
        server.take_over(Data.load(blob))
        if server.loading:
            server.when_loaded.append(self._follower.up)
        else:
            self._follower.up()

    def _handshake(self, said: Any) -> None:
        server, follower = self._server, self._follower
        self._due -= 1
        if isinstance(said, Exception):
            self.abort()
        elif not self._due:
            word, *rest = bytes(said).split()
            if word == b"FULLRESYNC":
                follower.state = "sync"
                self._full = (rest[0].decode(), int(rest[1]), int(rest[2]))
            else:
                if rest[0].decode() != server.stream.id:
                    server.stream.branch(rest[0].decode())
                    server.links.disconnect()
                follower.up()

    def _apply(self, args: list[bytes]) -> None:
        name, transaction = args[0], self._transaction
        if name == b"MULTI":
            self._transaction = [args]
            return
        if transaction is not None:
            transaction.append(args)
            if name != b"EXEC":
                return
            self._transaction = None
            self._take(
                Piece(b"".join(pack(*command) for command in transaction), transaction[1:-1])
            )
        elif name == b"REPLCONF":
            self._take(GETACK)
        else:
            self._take(PING if name == b"PING" else Piece(pack(*args), [args]))

    def _take(self, piece: Piece) -> None:
        server = self._server
        if piece.asks:
            self._follower.acknowledge()  # of what was before: the question itself is not counted in
        elif piece.commands:
            server.apply(self._follower, piece.commands)
        server.links.feed(piece)


def follow(server: Server, host: str, port: int) -> None:
    """REPLICAOF host port."""
    if server.follower is not None:
        server.follower.end()
    else:
        server.links.break_off(
            Fault(
                "UNBLOCKED force unblock from blocking operation, instance state changed "
                "(master -> replica?)"
            )
        )
    follower = server.follower = Follower(server, host, port)
    follower.connect()
