"""What a warden watches in a simulation: processes themselves, in the place of pidfds and local sockets.

The real `mesh.warden.Warden` gets a `Witness` where it would have a PidfdReceiver, and the real
`mesh.node.Node` gets `Witnesses.hand_over`. As there, a warden that is stopped acknowledges nothing, one
that is dead refuses, and the proof of an exit comes some milliseconds after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

from mesh.core.sightings import Sight
from mesh.errors import SetupError
from mesh.testing.sim.loop import current
from mesh.testing.sim.process import Process
from mesh.warden import Watch

OnWatch = Callable[[bytes, str, int], None]
OnExit = Callable[[bytes], None]


class Witness:
    """One warden's; a `mesh.warden.Watcher`."""

    def __init__(
        self, all_: Witnesses, process: Process, on_watch: OnWatch, on_exit: OnExit
    ) -> None:
        self.process = process
        self._all = all_
        self._on_watch = on_watch
        self._on_exit = on_exit
        self._watched: dict[bytes, Process] = {}

    def __repr__(self) -> str:
        return f"<Witness {self.process.name}, {len(self._watched)} processes>"

    @property
    def watching(self) -> list[bytes]:
        """See Watcher."""
        return list(self._watched)

    def open(self, address: str) -> None:
        """See Watcher."""
        self._all.by_address[address] = self

    def close(self) -> None:
        """See Watcher."""
        self._watched.clear()

    def look(self, nonce: bytes, at: float) -> Sight | None:
        """See Watcher. One that starves is given a CPU once a step; nothing else keeps its loop."""
        process = self._watched.get(nonce)
        if process is None or not process.alive:
            return None
        if process.is_paused:
            return Sight(at, "T", 0.0, 0.0, 0, 0.0)
        if process.is_starved:
            return Sight(at, "R", 0.0, 0.0, 0, 0.0)
        return Sight(at, "S", 0.001 * at, 0.0, int(at * 1000), 0.001 * at)

    def kill(self, nonce: bytes) -> None:
        """See Watcher."""
        process = self._watched.get(nonce)
        if process is not None:
            process.loop.kernel_later(0.0, process.kill)

    def take(self, nonce: bytes, id_: str, process: Process, taken: asyncio.Future[None]) -> None:
        """In a step of the warden: a process has come."""
        self._watched[nonce] = process
        self._on_watch(nonce, id_, process.pid)
        if not taken.done():
            taken.set_result(None)
        if process.alive:
            process.on_exit.append(partial(self._ended, nonce))
        else:
            self._ended(nonce, process)

    def _ended(self, nonce: bytes, process: Process) -> None:
        post = partial(self._all.step, self.process, self._exited, nonce)
        process.loop.kernel_later(self._all.proof_s(), post)

    def _exited(self, nonce: bytes) -> None:
        if self._watched.pop(nonce, None) is not None:
            self._on_exit(nonce)


class SimBond:
    """See mesh.net.pidfd.Bond: ends when the warden's process does."""

    def __init__(self, process: Process, warden: Process) -> None:
        self._gone: asyncio.Future[None] = process.loop.create_future()
        if warden.alive:
            warden.on_exit.append(lambda _: Witnesses.step(process, self._end))
        else:
            self._end()

    async def broken(self) -> None:
        """See mesh.presence.Bonded."""
        await self._gone

    def _end(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)


class Witnesses:
    """All wardens' of a simulation.

    Args:
        dice: for how long a proof takes.
        least_s, most_s: between which it takes.
    """

    def __init__(self, dice: Random, *, least_s: float = 0.001, most_s: float = 0.015) -> None:
        self.by_address: dict[str, Witness] = {}
        self._dice = dice
        self._least_s = least_s
        self._most_s = most_s

    def of(self, process: Process) -> Watch:
        """What that warden's process makes its watcher with."""
        return partial(Witness, self, process)

    async def hand_over(
        self, address: str, nonce: bytes, id_: str, *, timeout_s: float = 5.0
    ) -> SimBond:
        """See mesh.net.pidfd.hand_over."""
        witness = self.by_address.get(address)
        if witness is None or not witness.process.alive:
            raise SetupError(f"no warden at {address!r}")
        me = current.get()
        assert isinstance(me, Process)
        taken: asyncio.Future[None] = me.loop.create_future()
        self.step(witness.process, witness.take, nonce, id_, me, taken)
        try:
            async with asyncio.timeout(timeout_s):
                await taken
        except TimeoutError:
            raise SetupError(f"the warden at {address!r} did not answer") from None
        return SimBond(me, witness.process)

    def proof_s(self) -> float:
        """How long the next proof takes."""
        return self._dice.uniform(self._least_s, self._most_s)

    @staticmethod
    def step(process: Process, callback: Callable[..., None], *args: object) -> None:
        """Have a process take a step, as the kernel wakes it."""
        process.loop.post(process, process.context.copy(), callback, *args)
