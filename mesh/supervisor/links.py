"""Who is connected to a supervisor, and what they are sent.

Whoever leads says so first on every link to a handler, a warden or another supervisor, so nothing that a
leader says arrives before its token is known. A handler has one link that counts, its newest: what is still
under way on an earlier one, were it read behind the new one's words, would take us back to a connection on
which nobody listens.
"""

from __future__ import annotations

from typing import Protocol

from mesh.core.messages import (
    Beat,
    Hello,
    Leading,
    Message,
    Register,
    Stop,
    SupervisorHere,
    WardenHere,
    Welcome,
    unpack_message,
)
from mesh.core.table import Table
from mesh.core.wire import Kind, pack_frame
from mesh.errors import ProtocolError
from mesh.ids import new_nonce
from mesh.net.connection import Connection
from mesh.net.listener import Listener
from mesh.supervisor.settings import SupervisorSettings

FOLLOWERS = ("handler", "warden", "supervisor")
"""Roles of those who want to know who leads."""


class Heard(Protocol):
    """Who gets what is said on the links."""

    def on_new(self, conn: Connection) -> None:
        """Somebody has come."""
        ...

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
        self.registered: dict[bytes, Register] = {}
        """What each of them last said of itself."""
        self.wardens: dict[Connection, WardenHere] = {}
        self.supervisors: dict[Connection, SupervisorHere] = {}
        """Others that have come, to hear who leads."""
        self.beats: dict[bytes, Beat] = {}
        """The last of each handler process."""
        self.leading: Leading | None = None
        """What a leader says first; None while this supervisor is none."""
        self.table: bytes | None = None
        """The table that every client gets."""

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
        if conn.role in FOLLOWERS and self.leading is not None:
            conn.send(self.leading.frame())
        if conn.role in ("client", "supervisor") and self.table is not None:
            conn.send(pack_frame(Kind.TABLE, self.table))
        self._heard.on_new(conn)

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
            del self.registered[conn.tag]
            self._heard.on_lost(conn, reason)

    # ----------------------------------------------------------------- telling

    def register(self, conn: Connection, register: Register) -> None:
        """A handler process is at the other end of that connection."""
        self.handlers[register.nonce] = conn
        self.registered[register.nonce] = register

    def lead(self, leading: Leading | None) -> None:
        """Say to everybody who wants to know it that this supervisor leads, from now on; None: no more."""
        self.leading = leading
        if leading is not None:
            frame = leading.frame()
            for conn in self.listener.connections:
                if conn.role in FOLLOWERS:
                    conn.send(frame)
                    conn.flush()

    def spread(self, message: Message) -> None:
        """Say something to every other supervisor."""
        if self.supervisors:
            frame = message.frame()
            for conn in self.supervisors:
                conn.send(frame)

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
        self.table = body = table.encode()
        frame = pack_frame(Kind.TABLE, body)
        for conn in self.handlers.values():
            conn.send(frame)
            conn.flush()
        self._tell_clients(frame)
        for conn in self.supervisors:
            conn.send(frame)

    def pass_on(self, body: bytes) -> None:
        """Another supervisor has this table: so have those who ask this one."""
        if self.table is None or Table.peek(body) > Table.peek(self.table):
            self.table = body
            self._tell_clients(pack_frame(Kind.TABLE, body))

    def _tell_clients(self, frame: bytes) -> None:
        for conn in self.listener.connections:
            if conn.role == "client":
                conn.send(frame)
                conn.flush()

    def stop_everyone(self, token: int) -> None:
        """Have every handler, warden and other supervisor end."""
        for conn in self.listener.connections:
            if conn.role in FOLLOWERS:
                conn.send(Stop(token).frame())
