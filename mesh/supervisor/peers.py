"""The links that a supervisor keeps to the others: there it hears who leads, and asks who does.

Every supervisor dials every other one. On a link that it has made it only hears: that the other leads, its
beats, its tables and events. So what breaks when the leader dies is one connection, and nothing of it has to
be sorted out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from typing import Any, Protocol

from mesh.core.messages import Answer, Ask, Hello, Message, SupervisorHere, unpack_message
from mesh.core.wire import Kind
from mesh.errors import MeshError, ProtocolError, Unavailable
from mesh.net.connection import Connection
from mesh.net.dial import dial
from mesh.supervisor.settings import SupervisorSettings
from mesh.tasks import Tasks

log = logging.getLogger("mesh.supervisor")

_RETRY_S = 0.02
_MAX_RETRY_S = 0.5
_ANSWER_S = 2.0


class PeersHeard(Protocol):
    """Who gets what other supervisors say."""

    def on_peer(self, message: Message) -> None:
        """One of them says this."""
        ...

    def on_peer_table(self, body: bytes) -> None:
        """One of them has this table."""
        ...

    def on_peer_lost(self, id: str) -> None:
        """The link to that supervisor broke."""
        ...


class Peers:
    """Links to other supervisors.

    Args:
        settings: of this one.
        nonce: of this process.
        heard: gets what they say.
        tasks: where their links are kept up.
    """

    def __init__(
        self, settings: SupervisorSettings, nonce: bytes, heard: PeersHeard, tasks: Tasks
    ) -> None:
        self._settings = settings
        self._nonce = nonce
        self._heard = heard
        self._tasks = tasks
        self._links: dict[str, _Link] = {}
        """By the id of who is at the other end."""

    def __repr__(self) -> str:
        return f"Peers({', '.join(self._links) or 'none'})"

    def meet(self, addresses: tuple[str, ...], here: SupervisorHere) -> None:
        """Keep a link to each of these from now on.

        Args:
            addresses: "host:port" of the others.
            here: how this supervisor introduces itself.
        """
        for address in addresses:
            _ = self._tasks.spawn(self._keep_link(address, here), f"link to {address}")

    async def ask(self, id: str, what: str, *args: Any) -> Any:
        """Put a question to that supervisor.

        Raises:
            Unavailable: it is not there, does not answer, or says that it cannot.
        """
        link = self._links.get(id)
        if link is None:
            raise Unavailable(f"supervisor {id} is not connected")
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await link.ask(what, list(args))
        except TimeoutError:
            raise Unavailable(
                f"supervisor {id} did not answer {what!r} within {_ANSWER_S:g} s"
            ) from None

    async def _keep_link(self, address: str, here: SupervisorHere) -> None:
        s, delay = self._settings, _RETRY_S
        hello = Hello(s.mesh, "supervisor", s.token, self._nonce)
        while True:
            link = _Link(self._heard)
            try:
                conn, welcome = await dial(address, link, hello, limits=s.limits)
            except MeshError as error:
                log.debug("no supervisor at %s: %s", address, error)
                await asyncio.sleep(delay)
                delay = min(_MAX_RETRY_S, delay * 2)
                continue
            delay = _RETRY_S
            link.conn = conn
            self._links[welcome.id] = link
            try:
                conn.send(here.frame())
                await link.lost.wait()
            finally:
                conn.close()
                if self._links.get(welcome.id) is link:
                    del self._links[welcome.id]
            self._heard.on_peer_lost(welcome.id)


class _Link:
    """One connection, from its making to its end; a mesh.net.connection.Receiver."""

    def __init__(self, heard: PeersHeard) -> None:
        self.conn: Connection | None = None
        """Once the other has welcomed us."""
        self.lost = asyncio.Event()
        self._heard = heard
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    def __repr__(self) -> str:
        return f"_Link({self.conn!r})"

    async def ask(self, what: str, args: list[Any]) -> Any:
        assert self.conn is not None
        if self.lost.is_set():
            raise Unavailable("that supervisor has just gone away")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.conn.send(Ask(number, what, args).frame())
        try:
            return await answer
        finally:
            del self._answers[number]

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        for kind, body in frames:
            if kind == Kind.TABLE:
                self._heard.on_peer_table(body)
            elif kind == Kind.CONTROL:
                message = unpack_message(body)
                if isinstance(message, Answer):
                    self._on_answer(message)
                else:
                    self._heard.on_peer(message)
            else:
                raise ProtocolError(f"a supervisor does not send frames of kind {kind}")

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        self.lost.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"that supervisor went away: {reason}"))

    def _on_answer(self, message: Answer) -> None:
        answer = self._answers.get(message.number)
        if answer is None or answer.done():
            return
        if message.error:
            answer.set_exception(Unavailable(message.error))
        else:
            answer.set_result(json.loads(message.value))
