"""Which calls a handler takes up, holds for a moment, or sends elsewhere.

A call for a partition that is held runs against memory (mesh.core.execution). Where memory lacks its key, or
a run holds that, it waits in the tenure, behind those that came before it. A call for any other partition
is redirected to the owner that the table names, or held (mesh.core.held) where this handler is about to
become, or has just stopped being, the owner.
"""

from __future__ import annotations

from collections import deque
from itertools import chain

from mesh.core import execution
from mesh.core.epochs import NOT_HELD
from mesh.core.execution import (
    ANSWERED,
    LISTS,
    NEEDS_LEASE,
    NEEDS_LOAD,
    NEEDS_TURN,
    NOT_WRITTEN,
    Step,
)
from mesh.core.held import Held, HeldCalls
from mesh.core.runs import Run
from mesh.core.table import Table
from mesh.core.tenure import Conn, Pending, Slot, Tenure
from mesh.core.wire import Redirect, Request, Status, pack_reply
from mesh.core.workings import Workings
from mesh.errors import BadRequest


class Calls:
    """Those of one handler.

    Args:
        workings: of the handler.

    Attributes:
        table: the newest that is known; it tells where else a call belongs, and gives nothing.
    """

    def __init__(self, workings: Workings) -> None:
        self.table: Table | None = None
        self._nonce = workings.nonce
        self._config = workings.config
        self._max_pending = workings.config.max_pending
        self._limits = workings.config.limits
        self._registry = workings.registry
        self._retention = workings.retention
        self._tenures = workings.tenures
        self._in_memory = workings.tenures.in_memory
        self._partitions = len(workings.tenures.epochs)
        self._answers = workings.answers
        self._outbox = workings.outbox
        self._runs = workings.runs
        self._cache = workings.cache
        self._expiry = workings.expiry
        self._reading = workings.reading
        self._listings = workings.listings
        self._gate = workings.gate
        self._home = workings.home
        self._unleased = workings.unleased
        self._held = HeldCalls()
        self._waiting: dict[tuple[int, bytes], Tenure] = {}
        """Where calls wait for a read or for their turn; swept by the timer."""

    def __repr__(self) -> str:
        return f"Calls({self._held!r}, {len(self._waiting)} keys waited for)"

    @property
    def is_any_held(self) -> bool:
        """Some call waits for its partition to come."""
        return self._held.count > 0

    def on_request(self, conn: Conn, request: Request, now: float) -> None:
        """A client's call arrived."""
        tenure = self._in_memory.get(request.partition) or self._tenures.take(request.partition)
        if tenure is None or tenure.release_token is not None or request.epoch > tenure.epoch:
            self.send_elsewhere(conn, request, now, now + request.deadline_ms / 1000)
        elif self._answers.pending + self._held.count >= self._max_pending:
            self._refuse_surplus(conn, request)
        elif not request.deadline_ms:
            self._answers.refuse(conn, request, Status.EXPIRED, "its deadline passed on the way")
        elif request.age_ms > self._retention.oldest_ms:
            # Its record may have been dropped by now: running it again could be a second effect.
            reason = "first sent too long ago to be run now"
            self._answers.refuse(conn, request, Status.UNKNOWN, reason)
        else:
            if request.deadline_ms > self._retention.queue_ms:
                request = request._replace(deadline_ms=self._retention.queue_ms)
            self._admit(tenure, conn, request, now)

    def _admit(self, tenure: Tenure, conn: Conn, request: Request, now: float) -> None:
        if request.deaths:
            # Told before the first step that runs a user's code, decoding included, since any of these
            # may be what kills. What its client never hears of was not begun here.
            conn.send(pack_reply(request.counter, Status.TAKEN_UP, b""))
            conn.flush()
        try:
            pending = execution.admit(
                tenure, conn, request, self._registry, self._partitions, now, self._limits
            )
        except BadRequest as error:
            self._answers.refuse(conn, request, Status.BAD_REQUEST, str(error))
            return
        self._begin(tenure, pending)

    def _begin(self, tenure: Tenure, pending: Pending) -> None:
        """Run a call, or have it wait behind those that came before it."""
        queue = tenure.waiting.get(pending.field)
        if queue is None:
            step = self._step(tenure, pending)
        elif pending.field in tenure.held:
            # Queries need not wait for the run that holds the key, and copies of its call join it.
            step = self._step(tenure, pending)
        else:
            step = NEEDS_LOAD
        if step is NEEDS_LOAD or step is NEEDS_TURN:
            self._answers.pending += 1
            self._waiting[tenure.partition, pending.field] = tenure
            if queue is not None:
                queue.append(pending)
                return
            tenure.waiting[pending.field] = deque((pending,))
            if step is NEEDS_LOAD:
                self._reading.want(tenure, pending.field)

    def _step(self, tenure: Tenure, pending: Pending) -> Step:
        """Run a call as far as memory allows."""
        if tenure.stored and pending.field in tenure.stored:
            self._reading.bring_in(tenure, pending)
        lasts = pending.spec.ttl_s is None
        if not lasts:
            self._expiry.look(tenure, pending.field)
        step, made = execution.step(tenure, pending)
        if made is not None:
            self._answers.pending += 1
            if isinstance(made, Run):
                self._runs.add(made)
            else:
                self._outbox.add(made)
            slot: Slot | None = made.slot
        elif step is NEEDS_LOAD or step is NEEDS_TURN:
            return step
        elif step is LISTS:
            self._list(pending)
            return ANSWERED
        elif step is NOT_WRITTEN:
            self._answers.refuse_writing(pending, self._gate.reason)
            return ANSWERED
        elif step is NEEDS_LEASE:
            self._answers.pending += 1
            self._unleased.add(pending)
            return ANSWERED
        else:
            self._answers.done += pending.method.query
            slot = tenure.slots.get(pending.field)
        if slot is not None:
            self._cache.touch(tenure, pending.field, slot)
            if not lasts:
                self._expiry.watch(tenure, pending.field, slot)
        return step

    def _list(self, pending: Pending) -> None:
        """A page of a partition's keys."""
        try:
            reply = self._listings.begin(pending)
        except BadRequest as error:
            self._answers.refuse(pending.conn, pending.request, Status.BAD_REQUEST, str(error))
            return
        if reply is not None and self._home.is_leased():
            self._answers.reply(pending, reply)
            return
        self._answers.pending += 1
        if reply is not None:
            self._unleased.add(pending)

    # ------------------------------------------------------------- waiting for the lease

    def retry_unleased(self, now: float) -> None:
        """The lease is there again: queries that waited for it are run anew."""
        for pending in self._unleased.take():
            self._answers.pending -= 1
            if pending.deadline <= now:
                self._refuse_unleased(pending)
            else:
                self._begin(pending.tenure, pending)

    def _refuse_unleased(self, pending: Pending) -> None:
        reason = "its deadline passed while this handler could not renew its lease"
        self._answers.refuse(pending.conn, pending.request, Status.EXPIRED, reason)

    # ------------------------------------------------------------- waiting for a key

    def run_waiting(self, tenure: Tenure, field: bytes, now: float) -> None:
        """Calls that wait for that key may go on."""
        if field in tenure.held or tenure.release_token is not None:
            return  # the run's end comes here again; what is released goes to the next owner
        queue = tenure.waiting.get(field)
        while queue:
            pending = queue[0]
            if pending.deadline <= now:
                reason = "its deadline passed in a queue"
                self._answers.refuse(pending.conn, pending.request, Status.EXPIRED, reason)
            elif self._step(tenure, pending) is NEEDS_LOAD:
                self._reading.want(tenure, field)
                return
            queue.popleft()
            self._answers.pending -= 1
            if field in tenure.held:
                return
        tenure.waiting.pop(field, None)

    def refuse_waiting(self, tenure: Tenure, field: bytes, status: Status, reason: str) -> None:
        """Calls that wait for that key wait in vain."""
        self._answers.refuse_all(tenure.waiting.pop(field, ()), status, reason)

    def forget(self, tenure: Tenure) -> list[Pending]:
        """The tenure is over: calls that waited in it, to be ended or sent elsewhere."""
        waiting = list(chain.from_iterable(tenure.waiting.values()))
        tenure.waiting.clear()
        waiting += self._listings.forget(tenure)
        waiting += self._unleased.forget(tenure)
        self._answers.pending -= len(waiting)
        return waiting

    # ------------------------------------------------------- waiting for a partition

    def send_elsewhere(self, conn: Conn, request: Request, now: float, deadline: float) -> None:
        """The partition of that call is not held, or is on its way out."""
        partition = request.partition
        if partition >= self._partitions:
            reason = f"partition {partition} of a mesh that has {self._partitions}"
            self._answers.refuse(conn, request, Status.BAD_REQUEST, reason)
            return
        if self._tenures.revoked:
            reason = "this handler's grant was revoked"
            self._answers.refuse(conn, request, Status.NOT_READY, reason)
            return
        if self._redirect(conn, request):
            return
        if self._answers.pending + self._held.count >= self._max_pending:
            self._refuse_surplus(conn, request)
            return
        tenure = self._in_memory.get(partition)
        giving_up = tenure is not None and tenure.release_token is not None
        giving_up = giving_up or partition in self._tenures.released
        known = giving_up or self._is_coming(partition, request.epoch)
        wait = self._config.release_wait_s if known else self._config.hint_wait_s
        self._held.add(Held(conn, request, deadline, min(deadline, now + wait)))

    def _is_coming(self, partition: int, asked: int) -> bool:
        """The table gives it to this handler, at the epoch asked for, and the leader's word is still to come:
        it waits for another's lease to be out.
        """
        if self.table is None:
            return False
        owner, epoch = self.table.owner(partition)
        known = max(self._tenures.epochs[partition], asked - 1)
        return owner.nonce == self._nonce and epoch > known

    def _refuse_surplus(self, conn: Conn, request: Request) -> None:
        reason = f"{self._answers.pending + self._held.count} calls are in progress"
        self._answers.refuse(conn, request, Status.OVERLOADED, reason)

    def _redirect(self, conn: Conn, request: Request) -> bool:
        """Name the owner, where the table knows one that is newer than what the caller knows."""
        if self.table is None:
            return False
        owner, epoch = self.table.owner(request.partition)
        if owner.nonce == self._nonce or epoch < request.epoch:
            return False
        partition = request.partition
        known = self._tenures.released.get(partition, NOT_HELD), self._tenures.epochs[partition]
        if epoch <= max(known):
            return False
        redirect = Redirect(partition, epoch, owner.id, owner.nonce, owner.host, owner.port)
        conn.send(pack_reply(request.counter, Status.REDIRECT, redirect.encode()))
        return True

    def on_table(self, table: Table, now: float) -> None:
        """A table arrived; older ones are ignored. A table gives nothing: only a grant does."""
        if self.table is not None and table.version <= self.table.version:
            return
        self.table = table
        self.retry_held(now)

    def retry_held(self, now: float) -> None:
        """What is held, or who owns what, has changed."""
        for partition in self._held.partitions():
            tenure = self._tenures.take(partition)
            for held in self._held.take(partition):
                self._retry(held, tenure, now)

    def _retry(self, held: Held, tenure: Tenure | None, now: float) -> None:
        conn, request, deadline, _ = held
        serves = (
            tenure is not None and tenure.release_token is None and request.epoch <= tenure.epoch
        )
        if deadline <= now:
            self._answers.refuse(conn, request, Status.EXPIRED, "its deadline passed")
        elif serves:
            left_ms = int((deadline - now) * 1000)
            self.on_request(conn, request._replace(deadline_ms=left_ms), now)
        elif not self._redirect(conn, request):
            # Each for itself: another one may name no epoch that this handler lacks.
            self._held.add(held)

    def send_waiting_elsewhere(self, partition: int, waiting: list[Pending], now: float) -> None:
        """A partition was released: what waited in it comes before what came later."""
        came_later = self._held.take(partition)
        for pending in waiting:
            self.send_elsewhere(pending.conn, pending.request, now, pending.deadline)
        for held in came_later:
            self._held.add(held)

    def refuse_held(self) -> None:
        """No partition will come any more."""
        for partition in self._held.partitions():
            for held in self._held.take(partition):
                reason = "the grant was revoked"
                self._answers.refuse(held.conn, held.request, Status.NOT_READY, reason)

    # -------------------------------------------------------------------- the timer

    def on_timer(self, now: float) -> None:
        """End calls that waited too long for an owner, for the store or for their turn."""
        for held in self._held.due(now):
            status = Status.EXPIRED if held.deadline <= now else Status.NOT_READY
            self._answers.refuse(held.conn, held.request, status, "no owner is known yet")
        for (partition, field), tenure in list(self._waiting.items()):
            queue = tenure.waiting.get(field)
            if not queue or not self._tenures.has(tenure):
                del self._waiting[partition, field]
            elif any(pending.deadline <= now for pending in queue):
                self._expire(tenure, field, now)
        for pending in self._unleased.overdue(now):
            self._answers.pending -= 1
            self._refuse_unleased(pending)
        for listing in self._listings.overdue(now):
            reason = "its deadline passed while the store was to be read"
            self._listings.end(listing)
            self._answers.refuse_all([listing.pending], Status.EXPIRED, reason)

    def _expire(self, tenure: Tenure, field: bytes, now: float) -> None:
        queue = tenure.waiting[field]
        left = deque(pending for pending in queue if pending.deadline > now)
        over = [pending for pending in queue if pending.deadline <= now]
        what = (
            "another command held its key" if field in tenure.held else "the store was to be read"
        )
        self._answers.refuse_all(over, Status.EXPIRED, f"its deadline passed while {what}")
        if left:
            tenure.waiting[field] = left
        else:
            del tenure.waiting[field]
