"""What a node knows of a connection; the connection itself is `client.Client`."""

from __future__ import annotations

from mesh.testing.sim.store.access import User
from mesh.testing.sim.store.replies import Encoded, Reply

NO_REPLY = Encoded(b"")
"""A command that answers later, or never."""


class Session:
    """One connection.

    Attributes:
        host, port: of the other side.
        listening_port: that it announced; a replica's.
        written: the stream's offset behind the last thing that this connection wrote: a WAIT's measure.
        blocked: a WAIT is under way; what is behind it stays unread.
        ending: nothing more is carried out.
        is_replica: it is a replica's, and gets the stream.
        channels: whose messages it gets.
        queued: commands of a MULTI; None: there is none.
        spoilt: one of them was refused; nothing will be carried out.
    """

    __slots__ = (
        "blocked",
        "channels",
        "database",
        "ending",
        "host",
        "id",
        "is_replica",
        "listening_port",
        "name",
        "port",
        "queued",
        "spoilt",
        "user",
        "written",
    )

    def __init__(self, id: int, user: User | None) -> None:
        self.id = id
        self.user = user
        self.host, self.port = "", 0
        self.listening_port = 0
        self.database = 0
        self.name = b""
        self.written = 0
        self.blocked = False
        self.ending = False
        self.is_replica = False
        self.channels: set[bytes] = set()
        self.queued: list[list[bytes]] | None = None
        self.spoilt = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.host}:{self.port}>"

    def send(self, data: bytes) -> None:
        """Send what is no reply."""
        raise NotImplementedError

    def unblock(self, reply: Reply) -> None:
        """The WAIT under way has its answer; go on with what is behind it."""
        raise NotImplementedError

    def end(self) -> None:
        """Carry out nothing more, and close once the replies so far are sent."""
        self.ending = True

    def kill(self) -> None:
        """Close at once."""
        raise NotImplementedError
