"""A node's replicas: what each has confirmed, and who waits for it.

A replica confirms once a second, and when it is asked to: by a GETACK in the stream, which a WAIT that
cannot return at once has sent. The last confirmation that arrived is all that a node knows of a replica;
ROLE and WAIT tell nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mesh.testing.sim.store.pieces import GETACK, PING, Piece, joined
from mesh.testing.sim.store.replies import Reply, encode
from mesh.testing.sim.store.session import NO_REPLY, Session
from mesh.testing.sim.store.stream import Stream


class Link:
    """One replica's connection.

    Attributes:
        confirmed: offset that it said it has; -1 until it has said anything, and is `online`.
        synced: offset that it said is on its disk.
        heard_at: when it last said anything.
    """

    __slots__ = ("_place", "client", "confirmed", "heard_at", "host", "port", "synced")

    def __init__(self, client: Session, now: float) -> None:
        self.client = client
        self.host = client.host
        self.port = client.listening_port or client.port
        self.confirmed = -1
        self.synced = 0
        self.heard_at = now
        self._place = b"*3\r\n" + encode(self.host.encode()) + encode(b"%d" % self.port)

    def __repr__(self) -> str:
        return f"<Link {self.host}:{self.port} at {self.confirmed}>"

    @property
    def online(self) -> bool:
        """Whether it has confirmed anything since it attached: only then it is listed and counted."""
        return self.confirmed >= 0

    @property
    def role(self) -> bytes:
        """What ROLE says of it, in RESP."""
        confirmed = b"%d" % self.confirmed
        return b"%b$%d\r\n%b\r\n" % (self._place, len(confirmed), confirmed)


@dataclass(eq=False, slots=True)
class _Waiting:
    """A client in WAIT or WAITAOF."""

    client: Session
    offset: int
    count: int
    reached: Callable[[int], Reply]
    """Its reply as of now, for that offset."""
    enough: Callable[[int, int], bool]
    timer: asyncio.TimerHandle | None = None


class Links:
    """All replicas of a node.

    Args:
        stream: what they are sent.
        later: the loop's call_later, as far as the node is not stopped.
        backlog_bytes: how much of the past is kept for those that come back.
    """

    def __init__(
        self,
        stream: Stream,
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        backlog_bytes: int,
    ) -> None:
        self._stream = stream
        self._later = later
        self._backlog_bytes = backlog_bytes
        self._waiting: list[_Waiting] = []
        self._of: dict[Session, Link] = {}
        self._pending: list[Piece] = []
        """Fed, and not sent yet."""
        self._ask = False
        self._kept = False
        """Whether there ever was a replica: before, offsets count writes, and no past is kept."""
        self.all: list[Link] = []
        self.good = 0
        """How many were heard of lately, as of the last look."""

    @property
    def online(self) -> list[Link]:
        return [link for link in self.all if link.online]

    def attach(self, link: Link) -> None:
        """A replica follows from the present offset."""
        self.flush()  # before this one is among them: what it lacks is sent with the answer
        self._kept = True
        link.client.is_replica = True
        self.all.append(link)
        self._of[link.client] = link

    def of(self, client: Session) -> Link | None:
        """The link of a replica's connection; None: it is none, or not attached any more."""
        return self._of.get(client)

    def detach(self, client: Session) -> None:
        """A client is gone, as a replica or in a WAIT."""
        if self._of.pop(client, None) is not None:
            self.all = [link for link in self.all if link.client is not client]
        for waiting in self._waiting:
            if waiting.client is client and waiting.timer is not None:
                waiting.timer.cancel()
        self._waiting = [waiting for waiting in self._waiting if waiting.client is not client]

    def disconnect(self) -> None:
        """Have all come again: what they follow is another history now."""
        for link in list(self.all):
            link.client.kill()
        self.all = []
        self._of.clear()

    def keep(self) -> None:
        """Keep the past from now on, as a replica does for the case of its promotion."""
        self._kept = True

    def count_write(self) -> None:
        """Something was written that nobody reads."""
        self._stream.offset += 1

    def feed(self, piece: Piece) -> None:
        """Append to the stream."""
        if not self._kept:
            self.count_write()
            return
        self._stream.append(piece.raw, self._backlog_bytes)
        if self.all:
            self._pending.append(piece)

    @property
    def wants_bytes(self) -> bool:
        """Whether anybody reads what is fed."""
        return self._kept

    def flush(self) -> None:
        """Send the links what was fed, behind it the question how far they are."""
        if self._ask:
            self._ask = False
            if self.all:
                self.feed(GETACK)
        if self._pending:
            pieces, self._pending = self._pending, []
            data = joined(pieces)
            for link in self.all:
                link.client.send(data)

    def ping(self) -> None:
        """Show them that this node is there."""
        if self.all:
            self.feed(PING)

    def confirm(self, link: Link, offset: int, synced: int, now: float) -> None:
        """A replica said how far it is."""
        link.confirmed = max(link.confirmed, offset)
        link.synced = max(link.synced, synced)
        link.heard_at = now
        if self._waiting:
            self.settle()

    def look(self, now: float, max_lag_s: int, timeout_s: int) -> None:
        """Count those heard of lately; give up those silent for long."""
        for link in list(self.all):
            if now - link.heard_at > timeout_s:
                link.client.kill()
        self.count(now, max_lag_s)

    def count(self, now: float, max_lag_s: int) -> None:
        """Count those heard of lately."""
        self.good = sum(link.online and now - link.heard_at <= max_lag_s for link in self.all)

    def reached(self, offset: int) -> int:
        """How many replicas have that."""
        count = 0
        for link in self.all:  # for each confirmation and each WAIT: no generator
            if link.confirmed >= offset and link.confirmed >= 0:
                count += 1
        return count

    def synced(self, offset: int) -> int:
        """How many replicas have that on disk."""
        return sum(link.synced >= offset and link.online for link in self.all)

    def wait(
        self,
        client: Session,
        timeout_s: float,
        count: int,
        reached: Callable[[int], Reply],
        enough: Callable[[int, int], bool],
    ) -> Reply:
        """Block the client until `enough(offset, count)`; its reply is `reached(offset)`, late or not."""
        offset = client.written
        waiting = _Waiting(client, offset, count, reached, enough)
        if timeout_s:
            waiting.timer = self._later(timeout_s, lambda: self._end(waiting))
        client.blocked = True
        self._waiting.append(waiting)
        self._ask = True
        return NO_REPLY

    def settle(self) -> None:
        """End the waits that have what they waited for."""
        for waiting in list(self._waiting):
            if waiting in self._waiting and waiting.enough(waiting.offset, waiting.count):
                self._end(waiting)

    def _end(self, waiting: _Waiting) -> None:
        if waiting not in self._waiting:
            return
        self._waiting.remove(waiting)
        if waiting.timer is not None:
            waiting.timer.cancel()
        waiting.client.unblock(waiting.reached(waiting.offset))

    def break_off(self, reply: Reply) -> None:
        """End all waits: this node is no primary any more."""
        for waiting in list(self._waiting):
            self._waiting.remove(waiting)
            if waiting.timer is not None:
                waiting.timer.cancel()
            waiting.client.end()
            waiting.client.unblock(reply)
