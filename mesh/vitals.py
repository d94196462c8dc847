"""What a handler's beats tell of it: gathered on its loop, read by whatever thread beats.

Nothing here costs a call anything. The loop counts its turns by a timer of its own; of the calls only a few
in each turn are timed, from their arrival to the reply on its way; and which method keeps the loop is seen
from outside, by looking at what runs each time the heart beats. All that another thread reads are single
attributes.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable
from typing import NamedTuple

from mesh.core.answers import Counts
from mesh.core.pulse import Pulse
from mesh.core.sightings import Sight
from mesh.core.tenure import Conn
from mesh.core.wire import Status

_TIMED_A_TURN = 4
_STATUS = struct.Struct(">16xB")
_TAKEN_UP = int(Status.TAKEN_UP)

Now = Callable[[], float]


class Running(NamedTuple):
    """What keeps a loop: something that stays the same for as long as it runs, its name, its limit."""

    what: object
    name: str
    limit_s: float


class Vitals:
    """Of one handler process.

    Args:
        nonce: of the process.
        now: the handler's clock.
        counts: of its calls.
        lease_until: when its lease is out.
        running: what keeps the loop at this moment; asked from any thread.
        limit_s: longest that any method may.

    Attributes:
        turns: that the loop has counted.
        wants_sample: the next call is to be timed.
        health_port: where it answers /healthz; 0 for nowhere.
    """

    def __init__(
        self,
        nonce: bytes,
        now: Now,
        counts: Callable[[], Counts],
        lease_until: Callable[[], float],
        running: Callable[[], Running | None],
        limit_s: float,
    ) -> None:
        self.turns = 0
        self.wants_sample = False
        self.health_port = 0
        self._nonce = nonce
        self._now = now
        self._counts = counts
        self._lease_until = lease_until
        self._running = running
        self._limit_s = limit_s
        self._lag_s = 0.0
        self._every_s = 0.0
        self._due_at = math.inf
        """When the next turn is to be counted."""
        self._left = 0
        self._timed = 0
        self._took_s = 0.0
        self._read = (0, 0.0)
        """Number and sum of the times that the last beat told."""
        self._number = 0
        self._kept_by: object = None
        self._kept_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Vitals(turn {self.turns}, beat {self._number})"

    # ------------------------------------------------------------------- on the loop

    def count_turns(self, every_s: float) -> None:
        """Count the loop's turns from now on."""
        loop = asyncio.get_running_loop()
        self._every_s = every_s

        def turn(due: float) -> None:
            self.turned(max(0.0, loop.time() - due))
            self._timer = loop.call_later(every_s, turn, loop.time() + every_s)

        self._timer = loop.call_later(every_s, turn, loop.time() + every_s)

    def stop(self) -> None:
        """Count no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def turned(self, late_s: float) -> None:
        """The loop has turned, and was so late."""
        self.turns += 1
        self._due_at = self._now() + self._every_s
        self._lag_s = max(self._lag_s, late_s)
        self._left = _TIMED_A_TURN
        self.wants_sample = True

    def sample(self, conn: Conn) -> Conn:
        """Time the call that came by `conn`: answered by what this returns."""
        self._left -= 1
        self.wants_sample = self._left > 0
        return _Timed(conn, self)

    def answered(self, took_s: float) -> None:
        """A call that was timed is answered."""
        self._timed += 1
        self._took_s += took_s

    # ------------------------------------------------------------------- in any thread

    def beat(self, thread: Sight | None, memory_mib: float) -> Pulse:
        """The next beat.

        Args:
            thread: how the loop's thread is; None where nobody can tell.
        """
        now = self._now()
        self._number += 1
        running = self._running()
        if running is None:
            self._kept_by = None
        elif running.what is not self._kept_by:
            self._kept_by, self._kept_since = running.what, now
        # A turn that is not over yet is as late as it is: a loop that is busy for long counts none.
        lag_s, self._lag_s = max(self._lag_s, now - self._due_at), 0.0
        timed, took_s = self._timed, self._took_s
        told, told_s = self._read
        self._read = (timed, took_s)
        number = timed - told
        counts = self._counts()
        lease_s = self._lease_until() - now
        seen = thread or Sight(now, "", 0.0, 0.0, 0, 0.0)
        return Pulse(
            self._nonce,
            self._number,
            self.turns,
            seen.at * 1000,
            seen.state,
            seen.cpu_s * 1000,
            seen.delay_s * 1000,
            seen.slices,
            seen.process_s * 1000,
            lag_s * 1000,
            running.name if running is not None else "",
            (now - self._kept_since) * 1000 if running is not None else 0.0,
            (running.limit_s if running is not None else self._limit_s) * 1000,
            memory_mib,
            counts.pending,
            counts.done,
            counts.errors,
            (took_s - told_s) / number * 1000 if number > 0 else 0.0,
            number,
            lease_s * 1000 if math.isfinite(lease_s) else -1.0,
            self.health_port,
        )

    @property
    def now(self) -> float:
        """By the handler's clock."""
        return self._now()


class _Timed:
    """The connection that a call came by, as the handler's core sees it: hears the answer leave."""

    __slots__ = ("_arrived", "_conn", "_vitals")

    def __init__(self, conn: Conn, vitals: Vitals) -> None:
        self._conn = conn
        self._vitals = vitals
        self._arrived = vitals.now

    def flush(self) -> None:
        """See Conn."""
        self._conn.flush()

    def send(self, frame: bytes) -> None:
        """See Conn."""
        self._conn.send(frame)
        if _STATUS.unpack_from(frame)[0] != _TAKEN_UP:  # or the answer is still to come
            self._vitals.answered(self._vitals.now - self._arrived)
