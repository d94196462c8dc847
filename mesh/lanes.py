"""A handler's commit connections: batches out, verdicts in, and the lease renewed in passing or by itself.

A batch is sent as soon as a lane is free (a fixed delay before a flush costs more than it brings), and one
whose connection broke is sent again as it was, under its old number and a new renewal. Nothing here is
decided: what a verdict means is the core's matter, mesh.core.commits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from mesh.core.handling import HandlerCore
from mesh.core.lanes import LANES, LANES_OF
from mesh.core.outbox import Batch
from mesh.core.records import CommitReply, GrantRef, StoreStatus
from mesh.net.clock import Clock
from mesh.net.watched import WatchedCommits
from mesh.observe import observers
from mesh.store.api import RENEWAL_ONLY, Store, StoreRefused, StoreUnreachable

log = logging.getLogger("mesh.node")

_FIRST_DELAY_S = 0.02
_MAX_DELAY_S = 0.1
"""Between two attempts: a store that has failed over is to be used as soon as it can be."""
_ASK_AGAIN_S = 0.001
_KEPT_S = 0.25
"""After which a batch that waits for the leader is tried all the same: its word may have been lost."""

Step = Callable[..., None]


class Lanes:
    """Those of one handler process.

    Args:
        handler: its id.
        core: what has batches, and hears of them.
        store: its access.
        clock: what the lease goes by.
        turn: called once a lane is free again.
        guard: carries out a step; one that fails in an unforeseen way has to end the process, or a lane would
            stay taken and callers wait for ever.
    """

    def __init__(
        self,
        handler: str,
        core: HandlerCore,
        store: Store,
        clock: Clock,
        turn: Callable[[], None],
        guard: Callable[..., None],
    ) -> None:
        self._core = core
        self._store = store
        self._clock = clock
        self._turn = turn
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._watched = WatchedCommits(handler, clock.now)
        self._idle = {durability: list(lanes) for durability, lanes in LANES_OF.items()}
        self._complaint = ""
        """What was last said of the store; empty while it answers."""
        self._kept: dict[Batch, asyncio.TimerHandle] = {}
        """Refused for their grant: they wait for a newer one."""
        self._stopped = False

    def __repr__(self) -> str:
        return f"Lanes({sum(map(len, self._idle.values()))} idle{', stopped' if self._stopped else ''})"

    def stop(self) -> None:
        """Send nothing more, and hear of nothing more."""
        self._stopped = True

    def send(self, now: float) -> None:
        """Use the lanes that are free: for what has come together, else for the lease where it is time."""
        core = self._core
        if core.comes_first:
            self._send_first()
        else:
            self._send_new()
        idle = self._idle["replicated"]
        if idle and core.renewal_is_due(now):
            lane = idle.pop()
            self._renew(lane, partial(self._free, lane))

    def _send_new(self) -> None:
        core = self._core
        for durability, idle in self._idle.items():
            while idle and core.has_queued_of(durability):
                batch = core.next_batch(idle[-1])
                if batch is None:
                    break
                idle.pop()
                self._commit(batch, _FIRST_DELAY_S)

    def _send_first(self) -> None:
        """What the primary of a new life may lack."""
        core = self._core
        for idle in self._idle.values():
            for lane in list(idle):
                batch = core.next_first(lane)
                if batch is not None:
                    idle.remove(lane)
                    self._commit(batch, _FIRST_DELAY_S)

    def _free(self, lane: int) -> None:
        self._idle[LANES[lane]].append(lane)
        self._turn()

    # -------------------------------------------------------------------- batches

    def _commit(self, batch: Batch, delay: float) -> None:
        """Send a batch; it holds its lane until it has its verdict."""
        if self._stopped:
            return
        core = self._core
        if core.waits(batch):
            self._free(batch.lane)
            return
        if observers.wanted:
            self._watched.sent(batch)
        renewal = core.send(batch, self._clock.now())
        # Packed before this returns: what is cut out of the batch later was in this send.
        written = self._store.commit(batch.lane, core.grant, batch.seq, renewal, batch.entries)
        written.add_done_callback(partial(self._guard, partial(self._on_committed, batch, delay)))

    def _on_committed(
        self, batch: Batch, delay: float, written: asyncio.Future[CommitReply]
    ) -> None:
        if self._is_cut_off(written):
            return
        again: Step = self._commit
        try:
            reply = written.result()
        except StoreUnreachable as error:
            self._core.on_failed(batch, unsent=error.executed is False)
            self._complain(f"store unreachable, commits wait: {error}")
        except StoreRefused as error:
            self._complain(f"store refused, commits wait: {error}")
            self._core.on_refused(batch, str(error), self._clock.now(), transient=error.transient)
            again = self._renew_first
        else:
            if self._complaint and reply.status is StoreStatus.OK:
                log.warning("the store answers again")
                self._complaint = ""
            if observers.wanted and reply.acknowledged:
                self._watched.acknowledged(batch)
            if self._core.on_commit(batch, reply, self._clock.now()):
                if batch.is_kept and self._core.resent and not self._core.is_behind:
                    log.warning(
                        "the store's primary lacked %d batches that were acknowledged: sent again",
                        self._core.resent,
                    )
                self._free(batch.lane)
                return
            if reply.acknowledged:
                # The set that did so is short, and there is no room to keep what only it has.
                self._complain("fewer replicas than asked for are in sync, commits wait for them")
                self._later(_MAX_DELAY_S, again, batch, delay)
                return
            if reply.status is StoreStatus.OK:
                # Written, and short of a replica: sending it again asks anew. A store may say so
                # without any delay of its own, and calls have to go on.
                self._later(_ASK_AGAIN_S, again, batch, delay)
                return
            self._keep(batch, reply.status)
            return
        self._later(delay, again, batch, min(_MAX_DELAY_S, delay * 2))

    def _keep(self, batch: Batch, status: StoreStatus) -> None:
        """The store does not know the life, or the version, of the grant: wait for the leader's next word."""
        if batch.grant != self._core.grant:
            self._later(_ASK_AGAIN_S, self._commit, batch, _FIRST_DELAY_S)
            return
        self._complain(f"the store says {status.value}, commits wait for the leader")
        again = partial(self._take_up, batch)
        self._kept[batch] = self._loop.call_later(_KEPT_S, self._guard, again)

    def _take_up(self, batch: Batch) -> None:
        self._kept.pop(batch).cancel()
        self._commit(batch, _FIRST_DELAY_S)

    def on_grant(self) -> None:
        """The leader has told the grant: whatever waits for that goes out again."""
        for batch in [b for b in self._kept if b.grant != self._core.grant]:
            self._take_up(batch)

    def _later(self, delay: float, step: Step, *arguments: Any) -> None:
        self._loop.call_later(delay, self._guard, step, *arguments)

    def _complain(self, of: str) -> None:
        """Say what is wrong with the store once, and not for each attempt of each lane."""
        if of != self._complaint:
            log.warning("%s", of)
            self._complaint = of

    # ------------------------------------------------------------------ the lease

    def _renew_first(self, batch: Batch, delay: float) -> None:
        """A batch is to be sent again that the server has refused. One that is out of memory takes renewals
        all the same, and as long as it does queries go on.
        """
        again = partial(self._commit, batch, delay)
        if LANES[batch.lane] == "replicated" and self._core.renewal_is_due(self._clock.now()):
            self._renew(batch.lane, again)
        else:
            again()

    def _renew(self, lane: int, then: Callable[[], None]) -> None:
        """Renew the lease by a call that writes nothing else; the lane is in use until `then` is called."""
        if self._stopped:
            return
        core = self._core
        grant, renewal = core.grant, core.renew(self._clock.now())
        written = self._store.commit(lane, grant, RENEWAL_ONLY, renewal, ())
        written.add_done_callback(
            partial(self._guard, partial(self._on_renewed, renewal, grant, then))
        )

    def _on_renewed(
        self,
        renewal: int,
        grant: GrantRef,
        then: Callable[[], None],
        written: asyncio.Future[CommitReply],
    ) -> None:
        if self._is_cut_off(written):
            return
        reply = None
        try:
            reply = written.result()
        except (StoreUnreachable, StoreRefused) as error:
            log.debug("the lease was not renewed: %s", error)
        self._core.on_renewed(renewal, grant, reply, self._clock.now())
        then()

    def _is_cut_off(self, written: asyncio.Future[CommitReply]) -> bool:
        """This process stops: nobody hears of that call any more."""
        if self._stopped and not written.cancelled():
            written.exception()  # looked at, or the loop would complain of it
        return self._stopped or written.cancelled()
