"""How a handler lets itself be watched: a bond with its machine's warden, a heart, answers to probes.

All of it is for the day on which its loop hangs, or its machine is cut off: then others have to know of it
what it can no longer say. It hands itself to the warden before it owns anything, and again whenever the
warden is another; it beats from then on; and it probes other handlers for the leader, by a connection made
for that one probe, so that an answer says that both directions are open.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from mesh.core.messages import Hello, Message, unpack_message
from mesh.core.pulse import Echo, Probe, Probed, ProbeFor
from mesh.core.wire import Kind
from mesh.errors import MeshError, ProtocolError, SetupError
from mesh.heart import Heart, MakeHeart
from mesh.net.connection import Connection
from mesh.net.dial import dial
from mesh.vitals import Vitals

log = logging.getLogger("mesh.node")

_RETRY_S = 0.1
_MAX_RETRY_S = 1.0
_SUCCESSOR_S = 10.0


class Bonded(Protocol):
    """A process's connection to the warden that watches it; see mesh.net.pidfd.Bond."""

    async def broken(self) -> None:
        """Returns when the warden is gone."""
        ...


HandOver = Callable[[str, bytes, str], Awaitable[Bonded]]
"""Has the warden at an address watch this process; called with the process's nonce and the handler's id."""

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class Presence:
    """Of one handler process.

    Args:
        id: of the handler.
        hello: how it greets supervisors, and other handlers.
        supervisors: "host:port" of each.
        warden: address of the machine's warden; empty: nobody watches.
        vitals: what it tells of itself.
        hand_over: has the warden watch this process.
        make_heart: None: it does not beat, and is watched by its exit alone.
        beat_s: seconds between two beats.
        spawn: runs a task for as long as the handler lives.
    """

    def __init__(
        self,
        id: str,
        hello: Hello,
        supervisors: tuple[str, ...],
        warden: str,
        vitals: Vitals,
        hand_over: HandOver,
        make_heart: MakeHeart | None,
        beat_s: float,
        spawn: Spawn,
    ) -> None:
        self.vitals = vitals
        self._id = id
        self._hello = hello
        self._warden = warden
        self._hand_over = hand_over
        self._spawn = spawn
        self._probing: set[asyncio.Task[None]] = set()
        self._heart: Heart | None = None
        if make_heart is not None:
            beating = Hello(hello.mesh, "heart", hello.token, hello.nonce)
            self._heart = make_heart(vitals, supervisors, beating, beat_s)

    def __repr__(self) -> str:
        return f"Presence({self._id}, {self._heart!r})"

    async def begin(self) -> None:
        """Be watched from now on, before anyone can own anything: a death that nobody sees is the one that
        costs seconds. A warden that has just died is replaced: its successor is waited for.

        Raises:
            SetupError: there is no warden.
        """
        if self._warden:
            bond = await self._find_warden(_SUCCESSOR_S)
            self._spawn(self._keep_bond(bond), "warden's bond")
        if self._heart is not None:
            self._heart.start()

    def end(self) -> None:
        """Fall silent."""
        for task in self._probing:
            task.cancel()
        self.vitals.stop()
        if self._heart is not None:
            self._heart.stop()

    async def _keep_bond(self, bond: Bonded) -> None:
        while True:
            await bond.broken()
            log.info("the warden of %s is gone; its successor is awaited", self._id)
            bond = await self._find_warden(math.inf)

    async def _find_warden(self, within_s: float) -> Bonded:
        delay_s, waited_s = _RETRY_S, 0.0
        while True:
            try:
                return await self._hand_over(self._warden, self._hello.nonce, self._id)
            except SetupError as error:
                if waited_s >= within_s:
                    raise
                log.debug("no warden yet: %s", error)
            await asyncio.sleep(delay_s)
            waited_s += delay_s
            delay_s = min(_MAX_RETRY_S, delay_s * 2)

    def on_probe(self, conn: Connection, message: Message) -> None:
        """Answer whoever has connected for that.

        Raises:
            ProtocolError: it was something else.
        """
        if not isinstance(message, Probe):
            raise ProtocolError(f"a probe does not send {type(message).__name__}")
        self._echo(conn, message)

    def on_leader(self, conn: Connection, message: Message) -> None:
        """Probes of the leader, and its orders to probe others; what else it says is not for here."""
        if isinstance(message, Probe):
            self._echo(conn, message)
        elif isinstance(message, ProbeFor):
            task = asyncio.get_running_loop().create_task(self._probe(conn, message))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)

    def _echo(self, conn: Connection, message: Probe) -> None:
        conn.send(Echo(self._hello.nonce, message.number).frame())
        conn.flush()

    async def _probe(self, conn: Connection, order: ProbeFor) -> None:
        hello, within_s = self._hello, order.within_ms / 1000
        reason = await probe(order.address, hello.mesh, hello.token, order.nonce, within_s)
        conn.send(Probed(order.number, order.nonce, hello.nonce, not reason, reason).frame())


async def probe(address: str, mesh: str, token: str, nonce: bytes, within_s: float) -> str:
    """Ask the loop of a handler for an echo, by a connection of its own.

    Args:
        address: "host:port" of the handler.
        token: the mesh's secret.
        nonce: of the process that has to be there.
        within_s: seconds for all of it.

    Returns:
        What went wrong; empty if it answered.
    """
    listener = _Listening()
    conn: Connection | None = None
    try:
        async with asyncio.timeout(within_s):
            hello = Hello(mesh, "probe", token)
            conn, welcome = await dial(address, listener, hello, timeout_s=within_s)
            if welcome.nonce != nonce:
                return "another process answers there"
            conn.send(Probe(1).frame())
            await listener.heard.wait()
            return "" if listener.echoed else "the connection broke"
    except TimeoutError:
        return f"no echo within {within_s:g} s"
    except MeshError as error:
        return error.message
    finally:
        if conn is not None:
            conn.close()


class _Listening:
    """Waits for an echo."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.echoed = False

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        """See Receiver."""
        for kind, body in frames:
            if kind == Kind.CONTROL and isinstance(unpack_message(body), Echo):
                self.echoed = True
                self.heard.set()

    def on_closed(self, conn: Connection, reason: str) -> None:
        """See Receiver."""
        self.heard.set()
