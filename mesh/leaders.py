"""A handler's links to all supervisors of its mesh, of which one leads.

It registers with each of them and tells each its counts, so that whoever leads next finds it at hand. It
listens to one: whose `Leading` had the highest token that was ever said. A leader that was deposed, and does
not know it, goes on talking on its link (schedule F9); a standby says nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from mesh.core.messages import Hello, Leading, Message, Register
from mesh.errors import MeshError, Unavailable
from mesh.net.connection import Connection, Receiver
from mesh.net.dial import dial

log = logging.getLogger("mesh.node")

_RETRY_S = 0.02
_MAX_RETRY_S = 0.5
_REPORT_S = 1.0


@dataclass(slots=True)
class _Link:
    token: int = 0  # none was said
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class LeaderLinks:
    """Those of one handler process.

    Args:
        addresses: "host:port" of each supervisor.
        hello: of this process.
        partitions: of the mesh; a supervisor of another one is not talked to.
        receiver: gets what they send, and calls `on_leading` and `on_closed`.
        register: says what this process is and holds.
        report: what each of them is told once a second.
        repeat: what the leader is told along with it, since it may not have heard it.
    """

    def __init__(
        self,
        addresses: tuple[str, ...],
        hello: Hello,
        partitions: int,
        receiver: Receiver,
        register: Callable[[], Register],
        report: Callable[[], Message],
        repeat: Callable[[], Iterable[Message]],
    ) -> None:
        self._addresses = addresses
        self._hello = hello
        self._partitions = partitions
        self._receiver = receiver
        self._register = register
        self._report = report
        self._repeat = repeat
        self._links: dict[Connection, _Link] = {}
        self._highest = 0

    def __repr__(self) -> str:
        return f"LeaderLinks({len(self._links)} of {len(self._addresses)}, token {self._highest})"

    def loops(self) -> Iterable[tuple[str, Coroutine[Any, Any, None]]]:
        """What keeps each link, by a name for people; never over."""
        return [(f"link to {address}", self._keep(address)) for address in self._addresses]

    def close(self) -> None:
        """Close all."""
        for conn in list(self._links):
            conn.close()

    def leads(self, conn: Connection) -> bool:
        """Whether grants, releases and orders are to be taken from there."""
        link = self._links.get(conn)
        return link is not None and self._is_leaders(link)

    def _is_leaders(self, link: _Link) -> bool:
        return 0 < link.token == self._highest

    def tell(self, message: Message) -> None:
        """Say something to the leader, if it can be reached; else it will ask, or hear it repeated."""
        for conn, link in self._links.items():
            if self._is_leaders(link):
                conn.send(message.frame())

    def on_leading(self, conn: Connection, leading: Leading) -> None:
        """A supervisor says that it leads; it hears who this is, once more."""
        link = self._links.setdefault(conn, _Link())
        if leading.token < self._highest:
            log.info("%s leads no more, it has token %d", leading.id, leading.token)
        link.token = leading.token
        self._highest = max(self._highest, leading.token)
        conn.send(self._register().frame())

    def on_closed(self, conn: Connection, reason: str) -> None:
        """A connection is over, of whatever kind."""
        link = self._links.pop(conn, None)
        if link is not None:
            log.info("lost a supervisor: %s", reason)
            link.lost.set()

    async def _keep(self, address: str) -> None:
        delay = _RETRY_S
        while True:
            try:
                conn = await self._open(address)
                delay = _RETRY_S
                await self._attend(conn)
            except MeshError as error:
                log.debug("no supervisor at %s: %s", address, error)
            await asyncio.sleep(delay)
            delay = min(_MAX_RETRY_S, delay * 2)

    async def _open(self, address: str) -> Connection:
        conn, welcome = await dial(address, self._receiver, self._hello)
        if welcome.partitions != self._partitions:
            self._links.pop(conn, None)
            conn.close()
            raise Unavailable(
                f"{address} has {welcome.partitions} partitions, not {self._partitions}"
            )
        return conn

    async def _attend(self, conn: Connection) -> None:
        if conn.is_closed:
            return
        link = self._links.setdefault(conn, _Link())
        conn.send(self._register().frame())
        while not link.lost.is_set():
            conn.send(self._report().frame())
            if self.leads(conn):
                for message in self._repeat():
                    conn.send(message.frame())
            try:
                await asyncio.wait_for(link.lost.wait(), _REPORT_S)
            except TimeoutError:
                continue
