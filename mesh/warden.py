"""A warden without Ray: one for each node, the witness of its handlers' exits.

It holds a pidfd and a wire on each local handler and reports a death to the supervisors the moment it
is certain. Asked for it, it looks at a handler's loop, and it ends one that the leader has condemned: named
by its nonce, under a token that is not outdated, before the order expires by this warden's own clock, and
only if it still is as it was when it was condemned (schedule F16). It decides nothing, and it holds no
state that a restart could get wrong: what it cannot prove it does not say.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Protocol

from mesh.core.messages import Exited, Hello, Leading, Message, Stop, WardenHere, unpack_message
from mesh.core.pulse import Kill, Look, Seen, Watches
from mesh.core.sightings import Sight, is_still
from mesh.core.wire import Kind
from mesh.errors import MeshError
from mesh.ids import new_nonce, process_id
from mesh.net.clock import SYSTEM, Clock
from mesh.net.connection import Connection
from mesh.net.dial import dial
from mesh.net.pidfd import PidfdReceiver

log = logging.getLogger("mesh.warden")

_RETRY_S = 0.05
_TURN_S = 0.25
_LAG_LASTS_S = 1.0


class Watcher(Protocol):
    """Who knows of exits for certain; see mesh.net.pidfd.PidfdReceiver."""

    @property
    def watching(self) -> list[bytes]:
        """Nonces of the processes that are alive."""
        ...

    def open(self, address: str) -> None:
        """Have handlers come."""
        ...

    def look(self, nonce: bytes, at: float) -> Sight | None:
        """How that process's loop is, seen at that time; None where there is nothing to be seen."""
        ...

    def kill(self, nonce: bytes) -> None:
        """End that process."""
        ...

    def close(self) -> None:
        """Watch nobody any more."""
        ...


Watch = Callable[[Callable[[bytes, str, int], None], Callable[[bytes], None]], Watcher]
"""Makes a watcher that calls these: with (nonce, handler id, pid) of a new process; with an exit's nonce."""


class Warden:
    """The witness on one node.

    Args:
        mesh: the mesh's name.
        id: of this warden.
        address: where handlers hand over their descriptors (abstract local socket).
        supervisors: "host:port" of each.
        clock: what the age of an exit is told by.
        node: name of the machine; empty: what it calls itself.
        watch: makes what watches the processes.
    """

    def __init__(
        self,
        mesh: str,
        id: str,
        address: str,
        supervisors: tuple[str, ...],
        token: str = "",
        clock: Clock = SYSTEM,
        node: str = "",
        watch: Watch = PidfdReceiver,
    ) -> None:
        self._clock = clock
        self._node = node or os.uname().nodename
        self.id = id
        self.address = address
        self.ended = asyncio.Event()
        """Set when the mesh is told to stop."""
        self._mesh = mesh
        self._token = token
        self._supervisors = supervisors
        self._nonce = new_nonce()
        self._loop = asyncio.get_running_loop()
        self._receiver = watch(self._on_watch, self._on_exit)
        self._links: dict[Connection, asyncio.Event] = {}
        """To the supervisors; each with what is set when it is over."""
        self._names: dict[bytes, str] = {}
        """Of the handlers that the watched processes are, by nonce."""
        self._exits: dict[bytes, float] = {}
        self._highest_token = 0
        self._lag_s = 0.0
        """How late this process itself was at worst in the last second."""
        self._lagged_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return (
            f"Warden({self.id}, {len(self._receiver.watching)} processes, {len(self._links)} links)"
        )

    def start(self) -> None:
        """Listen for handlers and keep a connection to each supervisor."""
        self._receiver.open(self.address)
        self._tasks = [self._loop.create_task(self._keep_link(a)) for a in self._supervisors]
        self._tasks.append(self._loop.create_task(self._measure_lag()))

    async def stop(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._receiver.close()
        for conn in list(self._links):
            conn.close()
        self.ended.set()

    def _on_watch(self, nonce: bytes, id_: str, pid: int) -> None:
        log.info("watching %s, pid %d", id_, pid)
        self._names[nonce] = id_
        self._tell_all(Watches(nonce))

    def _on_exit(self, nonce: bytes) -> None:
        self._exits[nonce] = self._clock.now()
        self._tell_all(self._exited(nonce))

    def _tell_all(self, message: Message) -> None:
        for conn in self._links:
            conn.send(message.frame())
            conn.flush()

    def _exited(self, nonce: bytes) -> Exited:
        ago_s = self._clock.now() - self._exits[nonce]
        return Exited(nonce, self._names[nonce], ago_s * 1000)

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        for kind, body in frames:
            message = unpack_message(body) if kind == Kind.CONTROL else None
            if isinstance(message, Leading):
                self._obeys(message.token)
            elif isinstance(message, Stop) and self._obeys(message.token):
                self.ended.set()
            elif isinstance(message, Look) and self._obeys(message.token):
                self._answer(conn, message.nonce)
            elif isinstance(message, Kill) and self._obeys(message.token):
                self._kill(conn, message)

    # ---------------------------------------------------------------- suspects

    def _obeys(self, token: int) -> bool:
        """Whether its sender leads, as far as this warden has heard."""
        self._highest_token = max(self._highest_token, token)
        return token == self._highest_token

    def _answer(self, conn: Connection, nonce: bytes) -> None:
        now = self._clock.now()
        sight = self._receiver.look(nonce, now) or Sight(now, "", 0.0, 0.0, 0, 0.0)
        seen = Seen(
            nonce,
            sight.at * 1000,
            sight.state,
            sight.cpu_s * 1000,
            sight.delay_s * 1000,
            sight.slices,
            sight.process_s * 1000,
            self._lag_s * 1000,
        )
        conn.send(seen.frame())
        conn.flush()

    def _kill(self, conn: Connection, kill: Kill) -> None:
        """Look again, and end it only if nothing has changed: an order may have been under way for long."""
        now = self._clock.now()
        id_ = self._names.get(kill.nonce, "an unknown process")
        age_ms = now * 1000 - kill.seen_ms
        sight = self._receiver.look(kill.nonce, now)
        if age_ms > kill.expires_ms:
            log.warning("not killing %s: the order is %.0f ms old and expired", id_, age_ms)
        elif sight is None or not is_still(sight, kill.condition, kill.slices):
            log.warning("not killing %s: it is not %s any more", id_, kill.condition)
        else:
            log.warning("killing %s: its loop is %s", id_, kill.condition)
            self._receiver.kill(kill.nonce)
            return
        self._answer(conn, kill.nonce)

    async def _measure_lag(self) -> None:
        while True:
            before = self._clock.now()
            await asyncio.sleep(_TURN_S)
            now = self._clock.now()
            lag_s = max(0.0, now - before - _TURN_S)
            if lag_s >= self._lag_s or now - self._lagged_at > _LAG_LASTS_S:
                self._lag_s, self._lagged_at = lag_s, now

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        if (over := self._links.pop(conn, None)) is not None:
            over.set()

    async def _keep_link(self, address: str) -> None:
        while True:
            try:
                hello = Hello(self._mesh, "warden", self._token, self._nonce)
                conn, _ = await dial(address, self, hello)
            except MeshError as error:
                log.debug("no supervisor at %s: %s", address, error)
            else:
                await self._attend(conn)
            await asyncio.sleep(_RETRY_S)

    async def _attend(self, conn: Connection) -> None:
        if conn.is_closed:
            return
        over = self._links[conn] = asyncio.Event()
        here = WardenHere(self.id, self._node, process_id(), self._receiver.watching)
        conn.send(here.frame())
        # A supervisor that was away while someone died has to hear of it.
        for nonce in self._exits:
            conn.send(self._exited(nonce).frame())
        await over.wait()
