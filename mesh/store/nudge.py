"""Getting a replica's confirmation off the ground when TCP holds it back.

A replica's link to its primary runs with Nagle's algorithm on (Valkey 8.1 and 9.1, read off the socket;
valkey#1758 has the history). Its second small confirmation in a row then stays in its kernel until the
primary's TCP acknowledges the first, and the primary's kernel delays that, up to 40 ms, until
it has something to send. Measured: with two connections writing every 10 ms in turn, each WAIT returned just
when the next write was sent. No setting of the server turns it off.

So whoever waits longer than confirmations usually take has the primary send something: a PUBLISH that nobody
listens to goes to every replica, writes nothing, and is in no append-only file. It is repeated when the write
has waited for as long again, since no nudge wakes a replica that is not there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mesh.store.api import StoreRefused, StoreUnreachable
from mesh.store.resp import pack

log = logging.getLogger("mesh.store")

FIRST_S = 0.002
AGAIN_S = 0.01
ALARM_AGAIN_S = 0.1


class Nudger:
    """Watches one process's writes and nudges the replicas when one of them takes long.

    Args:
        ask: sends a command on a connection that no WAIT blocks.
        channel: nobody listens to it.
        silence_s: a write without any answer for that long is not one that waits for replicas.
        alarm: called while there is such a write.
    """

    def __init__(
        self,
        ask: Callable[[bytes], Awaitable[Any]],
        channel: bytes,
        silence_s: float,
        alarm: Callable[[], None],
    ) -> None:
        self._ask = ask
        self._silence_s = silence_s
        self._alarm = alarm
        self._alarmed_at = 0.0
        self._began: dict[int, float] = {}
        self._command = pack("PUBLISH", channel, b"")
        self._due: dict[int, float] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._allowed = True

    def begin(self) -> int:
        """A write is under way; returns what `end` wants."""
        loop = asyncio.get_running_loop()
        self._last += 1
        now = self._began[self._last] = loop.time()
        self._due[self._last] = now + FIRST_S
        if self._timer is None and self._allowed:
            self._timer = loop.call_later(FIRST_S, self._look)
        return self._last

    def end(self, write: int) -> None:
        """That write has its answer."""
        del self._due[write], self._began[write]
        if not self._due and self._timer is not None:
            # A timer that nobody needs is a wake-up of the whole process.
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Nudge no more."""
        self._allowed = False
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _look(self) -> None:
        self._timer = None
        if not self._due or not self._allowed:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        overdue = [write for write, due in self._due.items() if due <= now]
        for write in overdue:
            self._due[write] = now + max(AGAIN_S, now - self._began[write])
        oldest = next(iter(self._began.values()))
        alarm_at = max(oldest + self._silence_s, self._alarmed_at + ALARM_AGAIN_S)
        if now >= alarm_at:
            self._alarmed_at = now
            self._alarm()
            alarm_at = now + ALARM_AGAIN_S
        if overdue and self._task is None:
            self._task = loop.create_task(self._nudge())
        pause = max(FIRST_S / 2, min(alarm_at, *self._due.values()) - now)
        self._timer = loop.call_later(pause, self._look)

    async def _nudge(self) -> None:
        try:
            await self._ask(self._command)
        except StoreRefused as error:
            if error.transient:
                log.debug("not nudged this time: %s", error)
            else:
                self._allowed = False
                log.warning("commits may take up to 40 ms longer, PUBLISH was refused: %s", error)
        except StoreUnreachable:
            pass  # the write itself finds out, and says so
        finally:
            self._task = None
