"""Who is connected to a supervisor, and what they are sent.

A handler has one link that counts, its newest: what is still under way on an earlier one, were it read behind
the new one's words, would take us back to a connection on which nobody listens.
"""

from __future__ import annotations

from typing import Protocol

from mesh.core.messages import Beat, Hello, Message, Stop, WardenHere, Welcome, unpack_message
from mesh.core.table import Table
from mesh.core.wire import Kind, pack_frame
from mesh.errors import ProtocolError
from mesh.ids import new_nonce
from mesh.net.connection import Connection
from mesh.net.listener import Listener
from mesh.supervisor.settings import SupervisorSettings


class Heard(Protocol):
    """Who gets what is said on the links."""

    def on_message(self, conn: Connection, message: Message) -> None:
        """Somebody says this."""
        ...

    def on_lost(self, conn: Connection, reason: str) -> None:
        """That link is over. It was a handler's newest, or not a handler's."""
        ...


class Links:
    """The listener and its connections, by what they are.

    Args:
        settings: where the supervisor stands.
        heard: gets what is said.
    """

    def __init__(self, settings: SupervisorSettings, heard: Heard) -> None:
        self.nonce = new_nonce()
        """Of this supervisor's process."""
        self._settings = settings
        self._heard = heard
        self.listener = Listener(self, settings.mesh, settings.token, settings.limits)
        self._newest: dict[bytes, Connection] = {}
        """The newest connection of each handler process; it may not have registered yet."""
        self.handlers: dict[bytes, Connection] = {}
        """Those that have registered, by nonce."""
        self.wardens: dict[Connection, WardenHere] = {}
        self.beats: dict[bytes, Beat] = {}
        """The last of each handler process."""
        self.table: bytes | None = None
        """The frame that every client gets."""

    def __repr__(self) -> str:
        return (
            f"Links(port {self.port}, {len(self.handlers)} handlers, {len(self.wardens)} wardens)"
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.listener.port

    async def open(self) -> None:
        """Take the port.

        Raises:
            SetupError: the address is taken, or not this machine's.
        """
        await self.listener.open(self._settings.host, self._settings.port)

    async def close(self) -> None:
        """Close every socket."""
        await self.listener.close()

    # ------------------------------------------------------------- listener

    def on_hello(self, conn: Connection, hello: Hello) -> Message:
        """See Service."""
        s = self._settings
        if conn.role == "handler":
            earlier = self._newest.get(conn.tag)
            if earlier is not None:
                earlier.abort()  # its process has given it up
            self._newest[conn.tag] = conn
        return Welcome(s.mesh, "supervisor", s.id, self.nonce, s.partitions)

    def on_ready(self, conn: Connection) -> None:
        """See Service."""
        if conn.role == "client" and self.table is not None:
            conn.send(self.table)

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Service."""
        for kind, body in frames:
            if kind != Kind.CONTROL:
                raise ProtocolError("a supervisor takes no requests; the table names the handlers")
            self._heard.on_message(conn, unpack_message(body))

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Service."""
        if self._newest.get(conn.tag) is conn:
            del self._newest[conn.tag]
        if conn.role != "handler":
            self._heard.on_lost(conn, reason)
        elif self.handlers.get(conn.tag) is conn:
            del self.handlers[conn.tag]
            self._heard.on_lost(conn, reason)

    # ----------------------------------------------------------------- telling

    def tell(self, nonce: bytes, message: Message) -> None:
        """Say something to a handler process, at once, if it is connected."""
        conn = self.handlers.get(nonce)
        if conn is not None:
            conn.send(message.frame())
            conn.flush()

    def tell_table(self, nonce: bytes, table: Table) -> None:
        """Give a handler process the table."""
        if conn := self.handlers.get(nonce):
            conn.send(pack_frame(Kind.TABLE, table.encode()))

    def publish(self, table: Table) -> None:
        """Give everybody the table: owners first, since a client that is quicker would only be held there."""
        self.table = frame = pack_frame(Kind.TABLE, table.encode())
        for conn in self.handlers.values():
            conn.send(frame)
            conn.flush()
        for conn in self.listener.connections:
            if conn.role == "client":
                conn.send(frame)
                conn.flush()

    def stop_everyone(self, token: int) -> None:
        """Have every handler and warden end."""
        for conn in self.listener.connections:
            if conn.role in ("handler", "warden"):
                conn.send(Stop(token).frame())
