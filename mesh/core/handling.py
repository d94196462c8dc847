"""The handler's brain: which calls it takes up, holds, redirects; what it commits; when it lets go.

Theory of operation. A partition is held from the leader's grant (never from a table, never from a client's
word) until it is released or lost; that span is a Tenure. A call for a held partition runs against
memory (mesh.core.execution) and is answered once its commit is acknowledged; an async or blocking method is
handed to the shell (mesh.core.runs) and holds its key until it is back. A call for any other partition is
redirected to the owner that the table names, or held for a moment (mesh.core.held) where this handler is
about to become, or has just stopped being, the owner.

Pure: frames, store replies and `now` come in; frames go out through the connection they came from. Batches,
reads, runs and messages are fetched by the shell (`next_batch`, `take_wants`, `take_runs`, `take_messages`),
which owns every socket, task and thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from mesh.core import execution
from mesh.core.cache import Cache
from mesh.core.epochs import NOT_HELD, unpack_epochs
from mesh.core.execution import ANSWERED, LISTS, NEEDS_LOAD, NEEDS_TURN, NOT_WRITTEN, Step
from mesh.core.expiry import Expiry
from mesh.core.forgetting import Forgetting
from mesh.core.held import Held, HeldCalls
from mesh.core.listing import Listing, Listings
from mesh.core.messages import (
    Adopted,
    Beat,
    Dropped,
    Grant,
    Message,
    Release,
    Released,
    in_parts,
)
from mesh.core.outbox import Batch, Change, Outbox
from mesh.core.reading import Load, Reading
from mesh.core.records import (
    CommitReply,
    GrantRef,
    LoadReply,
    ScanReply,
    StoreStatus,
    SweepReply,
    Unreadable,
    Verdict,
)
from mesh.core.retention import DEFAULT_CALLER_BYTES, DEFAULT_WINDOW_S, Retention
from mesh.core.running import TimeLimitExceeded, begin_run, finish_command, finish_query
from mesh.core.runs import Run, Runs
from mesh.core.table import Table
from mesh.core.tenure import (
    MAX_VALUE_BYTES,
    STATE_PREFIX,
    Conn,
    Effect,
    Home,
    Pending,
    Slot,
    Tenure,
)
from mesh.core.tenures import Tenures
from mesh.core.wire import Limits, Redirect, Request, Status, pack_reply
from mesh.core.writing import TRY_AGAIN_S, WriteGate
from mesh.entities import Registry
from mesh.errors import BadRequest


@dataclass(frozen=True, slots=True)
class HandlingConfig:
    """What a handler holds and for how long.

    Attributes:
        lanes: commit connections that take turns.
        limit_s: seconds that a run of an async or blocking method may take which names no limit of its own.
        threads: that blocking methods may take; one that is stuck is lost until it comes back.
        health_s: between two health checks of the entities, and the time that one may take.
        max_state_bytes: of one key's state.
        max_reply_bytes: of one call's reply.
        hint_wait_s: how long a call waits that names an epoch this handler has not been granted.
        release_wait_s: how long a call waits for the next owner of a partition that is being given up.
        window_s: how long outcomes are kept; a request older than half of this, counted from its first
            attempt, is never executed (mesh.core.retention).
        caller_bytes: of one partition's records under callers' keys; calls with further keys are refused.
        max_pending: calls in memory at the same time, held ones too; the next ones are refused.
        max_wants: keys read with one call to the store; a primary must not stand still for one read.
        cache_bytes: state kept in memory; unacknowledged state is never evicted.
        limits: of the wire.
    """

    lanes: int = 2
    limit_s: float = 30.0
    threads: int = 32
    health_s: float = 1.0
    max_state_bytes: int = MAX_VALUE_BYTES
    max_reply_bytes: int = MAX_VALUE_BYTES
    hint_wait_s: float = 0.1
    release_wait_s: float = 5.0
    window_s: float = DEFAULT_WINDOW_S
    caller_bytes: int = DEFAULT_CALLER_BYTES
    max_pending: int = 16_384
    max_wants: int = 512
    cache_bytes: int = 512 * 1024 * 1024
    limits: Limits = Limits()  # noqa: RUF009 - frozen


_MISPLACED = msgpack.packb("the partition is on its way to or from this handler")


class HandlerCore:
    """One handler process, from its first grant to its end.

    Args:
        nonce: of this process.
        partitions: of the mesh.
        registry: the entities it runs.
    """

    def __init__(
        self,
        nonce: bytes,
        partitions: int,
        registry: Registry,
        config: HandlingConfig | None = None,
    ) -> None:
        self.nonce = nonce
        self.partitions = partitions
        self.config = config or HandlingConfig()
        self.home = Home(
            run_limit_s=self.config.limit_s,
            max_state_bytes=self.config.max_state_bytes,
            max_reply_bytes=self.config.max_reply_bytes,
        )
        """What methods get from this handler; the shell adds what only it has."""
        self.health = "ok"
        """What the entities' own checks say, as the shell last heard it."""
        self.table: Table | None = None
        self.grant = GrantRef(nonce, 0, 0)
        self.revoked = False
        """The grant has ended for good: this process serves nothing any more."""
        self._registry = registry
        self._token = 0
        self.retention = Retention(self.config.window_s, self.config.caller_bytes)
        """What it remembers and for how long; the shell tells it the time."""
        self._tenures = Tenures(partitions, self.retention, self.home)
        self._in_memory = self._tenures.in_memory
        self._released: dict[int, int] = {}
        self._dropped: dict[int, int] = {}
        """Epochs lost without a release, that the leader's grant still names."""
        self._untold: dict[int, int] = {}
        self._held = HeldCalls()
        self._outbox = Outbox(self.config.lanes)
        self.runs = Runs(self.config.threads)
        """Async and blocking methods that wait to be begun, or are under way."""
        self._waiting: dict[tuple[int, bytes], Tenure] = {}
        """Where calls wait for a read or for their turn; swept by the timer."""
        self._messages: list[Message] = []
        self._settling: set[int] = set()
        self._cache = Cache(self.config.cache_bytes)
        self._expiry = Expiry(self._in_memory, self._cache, registry, self.wall, self._commit)
        self._reading = Reading(
            self._tenures, registry, self._cache, self._expiry, self.config.max_wants
        )
        self._listings = Listings(self._expiry, lambda: self.grant.life)
        self._gate = WriteGate()
        self._renewal = 0
        self._forgetting = Forgetting(self._in_memory, self.retention)
        self._pending = 0
        self._done = self._entity_errors = self._not_executed = self._unknown = 0
        self.on_tenure: Callable[[str, int, int], None] = lambda *_: None
        """Told of each partition that is "adopted", "released" or "lost", with its epoch."""

    def __repr__(self) -> str:
        return (
            f"HandlerCore({self.nonce.hex()}, grant {self.grant.life}.{self.grant.version}, "
            f"{len(self._tenures)} partitions, {self._outbox!r})"
        )

    # ---------------------------------------------------------------- calls

    def on_request(self, conn: Conn, request: Request, now: float) -> None:
        """A client's call arrived."""
        tenure = self._in_memory.get(request.partition) or self._tenures.take(request.partition)
        if tenure is None or tenure.release_token is not None or request.epoch > tenure.epoch:
            self._elsewhere(conn, request, now, now + request.deadline_ms / 1000)
        elif self._is_full:
            self._refuse_surplus(conn, request)
        elif not request.deadline_ms:
            self._refuse(conn, request, Status.EXPIRED, "its deadline passed on the way")
        elif request.age_ms > self.retention.oldest_ms:
            # Its record may have been dropped by now: running it again could be a second effect.
            self._refuse(conn, request, Status.UNKNOWN, "first sent too long ago to be run now")
        else:
            if request.deadline_ms > self.retention.queue_ms:
                request = request._replace(deadline_ms=self.retention.queue_ms)
            self._admit(tenure, conn, request, now)

    def _admit(self, tenure: Tenure, conn: Conn, request: Request, now: float) -> None:
        if request.deaths:
            # Told before the first step that runs a user's code, decoding included, since any of these
            # may be what kills. What its client never hears of was not begun here.
            conn.send(pack_reply(request.counter, Status.TAKEN_UP, b""))
            conn.flush()
        try:
            pending = execution.admit(
                tenure, conn, request, self._registry, self.partitions, now, self.config.limits
            )
        except BadRequest as error:
            self._refuse(conn, request, Status.BAD_REQUEST, str(error))
            return
        queue = tenure.waiting.get(pending.field)
        if queue is None:
            step = self._step(tenure, pending)
        elif pending.field in tenure.held:
            # Queries need not wait for the run that holds the key, and copies of its call join it.
            step = self._step(tenure, pending)
        else:
            step = NEEDS_LOAD
        if step is NEEDS_LOAD or step is NEEDS_TURN:
            self._pending += 1
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
            self._pending += 1
            if isinstance(made, Run):
                self.runs.add(made)
            else:
                self._outbox.add(made)
            slot: Slot | None = made.slot
        elif step is NEEDS_LOAD or step is NEEDS_TURN:
            return step
        elif step is LISTS:
            self._list(pending)
            return ANSWERED
        elif step is NOT_WRITTEN:
            self._refuse_writing(pending)
            return ANSWERED
        else:
            self._done += pending.method.query
            slot = tenure.slots.get(pending.field)
        if slot is not None:
            self._cache.touch(tenure, pending.field, slot)
            if not lasts:
                self._expiry.watch(tenure, pending.field, slot)
        return step

    def _elsewhere(self, conn: Conn, request: Request, now: float, deadline: float) -> None:
        partition = request.partition
        if partition >= self.partitions:
            self._refuse(
                conn,
                request,
                Status.BAD_REQUEST,
                f"partition {partition} of a mesh that has {self.partitions}",
            )
            return
        if self.revoked:
            self._refuse(conn, request, Status.NOT_READY, "this handler's grant was revoked")
            return
        if self._redirect(conn, request):
            return
        if self._is_full:
            self._refuse_surplus(conn, request)
            return
        tenure = self._in_memory.get(partition)
        giving_up = tenure is not None and tenure.release_token is not None
        giving_up = giving_up or partition in self._released
        wait = self.config.release_wait_s if giving_up else self.config.hint_wait_s
        held = Held(conn, request, deadline, min(deadline, now + wait))
        self._held.add(held)

    @property
    def _is_full(self) -> bool:
        return self._pending + len(self._held) >= self.config.max_pending

    def _refuse_surplus(self, conn: Conn, request: Request) -> None:
        reason = f"{self._pending + len(self._held)} calls are in progress"
        self._refuse(conn, request, Status.OVERLOADED, reason)

    def _refuse_writing(self, pending: Pending) -> None:
        self._not_executed += 1
        why = msgpack.packb(
            [f"not executed, nothing can be written: {self._gate.reason}", TRY_AGAIN_S]
        )
        pending.conn.send(pack_reply(pending.request.counter, Status.OVERLOADED, why))

    def _redirect(self, conn: Conn, request: Request) -> bool:
        """Name the owner, where the table knows one that is newer than what the caller knows."""
        if self.table is None:
            return False
        owner, epoch = self.table.owner(request.partition)
        if owner.nonce == self.nonce or epoch < request.epoch:
            return False
        partition = request.partition
        if epoch <= max(self._released.get(partition, NOT_HELD), self._tenures.epochs[partition]):
            return False
        redirect = Redirect(partition, epoch, owner.id, owner.nonce, owner.host, owner.port)
        conn.send(pack_reply(request.counter, Status.REDIRECT, redirect.encode()))
        return True

    def _refuse(self, conn: Conn, request: Request, status: Status, reason: str) -> None:
        self._not_executed += status is not Status.UNKNOWN
        self._unknown += status is Status.UNKNOWN
        conn.send(pack_reply(request.counter, status, msgpack.packb(reason)))

    # ------------------------------------------------------- leader's words

    def on_grant(self, message: Grant, now: float) -> None:
        """The leader tells what this process's grant holds. Older words and lower tokens are ignored."""
        if self.revoked or message.nonce != self.nonce or message.token < self._token:
            return
        self._token = message.token
        if not message.active:
            self._end()
            return
        if (message.life, message.version) < (self.grant.life, self.grant.version):
            return
        self.grant = GrantRef(self.nonce, message.life, message.version)
        epochs = unpack_epochs(message.epochs)
        adopted: list[int] = []
        for partition in self._tenures.compare(epochs):
            if partition in self._tenures:
                self._drop(partition)
            self._dropped.pop(partition, None)
            self._untold.pop(partition, None)
            # A released epoch is never taken up again, whoever says so (schedule M2).
            epoch = epochs[partition]
            if epoch > self._released.get(partition, NOT_HELD):
                self._tenures.adopt(partition, epoch)
                adopted.append(partition)
                self.on_tenure("adopted", partition, epoch)
        self._reading.adopted(adopted)
        self._messages.append(Adopted(self.nonce, message.life, message.version))
        for partition in self._held.partitions():
            self._retry_held(partition, now)

    def on_table(self, table: Table, now: float) -> None:
        """A table arrived; older ones are ignored. A table gives nothing: only a grant does."""
        if self.table is not None and table.version <= self.table.version:
            return
        self.table = table
        for partition in self._held.partitions():
            self._retry_held(partition, now)

    def on_release(self, message: Release) -> None:
        """The leader asks for partitions back: admit nothing more, settle, then give them up."""
        if message.token < self._token:
            return
        self._token = message.token
        not_held: list[tuple[int, int]] = []
        again: list[tuple[int, int]] = []
        for partition, epoch in message.partitions:
            tenure = self._tenures.take(partition)
            if tenure is not None and tenure.epoch == epoch:
                tenure.release_token = message.token
                self._settling.add(partition)
            elif self._released.get(partition) == epoch:
                again.append((partition, epoch))
            else:
                not_held.append((partition, epoch))
        if again or not_held:
            self._messages.append(Released(self.nonce, message.token, again, not_held))

    def _finish_releases(self, now: float) -> None:
        by_token: dict[int, list[tuple[int, int]]] = {}
        for partition in list(self._settling):
            tenure = self._in_memory.get(partition)
            if tenure is None or tenure.release_token is None:
                self._settling.discard(partition)
            elif self._outbox.is_settled(partition) and not self.runs.of(tenure):
                self._settling.discard(partition)
                self._released[partition] = tenure.epoch
                by_token.setdefault(tenure.release_token, []).append((partition, tenure.epoch))
                waiting = self._forget(partition)
                self.on_tenure("released", partition, tenure.epoch)
                came_later = self._held.take(partition)
                for pending in waiting:
                    self._elsewhere(pending.conn, pending.request, now, pending.deadline)
                for held in came_later:
                    self._held.add(held)
        for token, partitions in by_token.items():
            for part in in_parts(partitions):
                self._messages.append(Released(self.nonce, token, part, []))

    # -------------------------------------------------------------- commits

    def next_batch(self, lane: int) -> tuple[Batch, int] | None:
        """What to send on a free lane, with the renewal number that goes along."""
        batch = self._outbox.next_batch(lane)
        return None if batch is None else (batch, self.next_renewal())

    def next_renewal(self) -> int:
        """Strictly increasing within this process; the store keeps it as given (schedule R1)."""
        self._renewal += 1
        return self._renewal

    def on_refused(self, reason: str, now: float, *, transient: bool) -> None:
        """The store refused a batch as it refuses any; the very same batch is to be sent again.

        Args:
            reason: why, and what to do about it.
            transient: it may pass without anyone's doing.
        """
        self._gate.refused(reason, now, transient=transient)
        if self._gate.reason:
            self.home.refuses = self._is_shut

    def _is_shut(self, partition: int) -> bool:
        return not self._outbox.sends_at_once(partition)

    def on_commit(self, batch: Batch, reply: CommitReply, now: float) -> bool:
        """A batch came back. True: it is finished. False: send the very same batch again."""
        if reply.status in (StoreStatus.REVOKED, StoreStatus.GAP):
            self._outbox.done(batch)
            for changes in batch.changes:
                self._give_up(changes, Status.NOT_READY if batch.clean else Status.MAYBE)
            self._end()
            return True
        if reply.status is not StoreStatus.OK:
            return False
        self._gate.wrote()
        self.home.refuses = None
        if not reply.acknowledged:
            # Written, and short of a replica. What its repetition hears of a partition that has moved
            # on meanwhile is no longer the whole truth.
            batch.clean = False
            return False
        self._outbox.done(batch)
        for entry, changes, verdict in zip(
            batch.entries, batch.changes, reply.verdicts, strict=True
        ):
            if verdict is Verdict.APPLIED:
                self._pending -= len(changes)
                for effect in changes:
                    if not isinstance(effect, Effect):
                        effect.acknowledged()
                        continue
                    self._done += effect.outcome.status == Status.OK
                    self._entity_errors += effect.outcome.status == Status.ENTITY_ERROR
                    execution.acknowledge(effect)
                continue
            if self._tenures.epochs[entry.partition] == entry.epoch:
                self._lose(entry.partition)
            status = Status.NOT_READY if batch.clean else Status.MAYBE
            self._give_up(changes, status)
        if self._settling:
            self._finish_releases(now)
        return True

    def _give_up(self, changes: Sequence[Change], status: Status) -> None:
        self._pending -= len(changes)
        for effect in changes:
            if not isinstance(effect, Effect):
                continue
            self._not_executed += status is Status.NOT_READY
            self._unknown += status is not Status.NOT_READY
            effect.records.abandon(effect.counter)
            for conn, counter in effect.waiters:
                conn.send(pack_reply(counter, status, _MISPLACED))

    # ----------------------------------------------------------------- runs

    def take_runs(self, now: float) -> list[Run]:
        """Async and blocking methods to be carried out now; `on_ran` is to be told of each, once."""
        begun: list[Run] = []
        for run in self.runs.due(now):
            try:
                begin_run(run)
            except ValueError as error:  # a codec of the user's that does not read what it wrote
                self.on_ran(run, None, error, now)
            else:
                begun.append(run)
        return begun

    def on_ran(self, run: Run, result: Any, error: BaseException | None, now: float) -> None:
        """A run came to an end, whether or not anyone waits for it still.

        Args:
            result: what the method returned.
            error: what it raised; None where it returned.
        """
        self.runs.came_back(run)
        if not run.over:
            self._finish(run, result, error, now, stop=False)

    def _finish(
        self, run: Run, result: Any, error: BaseException | None, now: float, *, stop: bool
    ) -> None:
        if run.records is None:
            status, payload = finish_query(run, result, error)
            self.runs.end(run, stop=stop)
            self._pending -= 1
            self._done += 1
            for conn, counter in run.waiters:
                conn.send(pack_reply(counter, status, payload))
            return
        effect = finish_command(run, result, error)
        self.runs.end(run, stop=stop)  # its place among those in progress is its effect's now
        self._outbox.add(effect)
        field, tenure = run.pending.field, run.pending.tenure
        self._cache.touch(tenure, field, run.slot)
        self._expiry.watch(tenure, field, run.slot)
        self._run_waiting(tenure, field, now)

    def _limit_runs(self, now: float) -> None:
        for run in self.runs.overdue(now):
            fate = (
                "it goes on in its thread, and nothing of it is kept"
                if run.blocking
                else "it was cancelled"
            )
            limit = TimeLimitExceeded(
                f"{run.name} took longer than its limit of {run.limit_s:g} s; {fate}"
            )
            self._finish(run, None, limit, now, stop=True)
        for run in self.runs.expired(now):
            self._end_unrun(run, Status.EXPIRED, "its deadline passed while all threads were taken")
            self._run_waiting(run.pending.tenure, run.pending.field, now)

    def _end_unrun(self, run: Run, status: Status, reason: str) -> None:
        """Nothing of it was written, or will be."""
        self.runs.end(run, stop=True)
        self._pending -= 1
        self._not_executed += 1
        if run.records is not None:
            run.records.abandon(run.pending.request.counter)
        why = msgpack.packb(reason)
        for conn, counter in run.waiters:
            conn.send(pack_reply(counter, status, why))

    # ---------------------------------------------------------------- loads

    def take_wants(self) -> list[Load]:
        """Reads that are due, to go to the store in one call; what is too much for one stays due."""
        return self._reading.take_wants()

    def on_load(self, loads: list[Load], reply: LoadReply | None, now: float) -> None:
        """Reads came back; None: the store could not be asked, the same reads are due again."""
        if reply is not None and reply.status is StoreStatus.REVOKED:
            self._end()
            return
        if reply is None or reply.status is not StoreStatus.OK:
            self._reading.again(loads)
            return
        for load, values in zip(loads, reply.values, strict=True):
            tenure = load.tenure
            if not self._tenures.has(tenure):
                continue
            if values is None:
                self._lose(tenure.partition)
                continue
            if isinstance(values, Unreadable):
                tenure.unreadable = True
                reason = f"partition {tenure.partition} cannot be read: {values.reason}"
                self._refuse_waiting(tenure, load.field, Status.UNREADABLE, reason)
                continue
            try:
                if not self._reading.take_in(load, values):
                    continue  # its calls wait for a second read
            except ValueError as error:
                entity, _, key = load.field[len(STATE_PREFIX) :].partition(b"\0")
                reason = f"what is stored of {entity.decode()} {key!r:.80} cannot be read: {error}"
                self._refuse_waiting(tenure, load.field, Status.BAD_REQUEST, reason)
                continue
            self._run_waiting(tenure, load.field, now)

    def _refuse_waiting(self, tenure: Tenure, field: bytes, status: Status, reason: str) -> None:
        queue = tenure.waiting.pop(field, ())
        self._pending -= len(queue)
        for pending in queue:
            self._refuse(pending.conn, pending.request, status, reason)

    def _run_waiting(self, tenure: Tenure, field: bytes, now: float) -> None:
        if field in tenure.held or tenure.release_token is not None:
            return  # the run's end comes here again; what is released goes to the next owner
        queue = tenure.waiting.get(field)
        while queue:
            pending = queue[0]
            if pending.deadline <= now:
                self._refuse(
                    pending.conn, pending.request, Status.EXPIRED, "its deadline passed in a queue"
                )
            elif self._step(tenure, pending) is NEEDS_LOAD:
                self._reading.want(tenure, field)
                return
            queue.popleft()
            self._pending -= 1
            if field in tenure.held:
                return
        tenure.waiting.pop(field, None)

    def next_sweep(self) -> list[Tenure]:
        """Tenures to read whole in one call, if they are small."""
        return self._reading.next_sweep()

    def on_sweep(self, tenures: list[Tenure], reply: SweepReply, now: float) -> None:
        """Small partitions came whole; the others are left to the scans."""
        if reply.status is StoreStatus.REVOKED:
            self._end()
        if reply.status is not StoreStatus.OK:
            return
        for tenure, pairs in zip(tenures, reply.pages, strict=True):
            if pairs is not None:
                self.on_scan(tenure, ScanReply(StoreStatus.OK, 0, pairs), now)

    def next_scan(self) -> Tenure | None:
        """A tenure to read ahead, a page at a time."""
        return self._reading.next_scan()

    def on_scan(self, tenure: Tenure, reply: ScanReply, now: float) -> None:
        """A page of a partition's hash; what memory has is newer than what the page says."""
        if reply.status is StoreStatus.REVOKED:
            self._end()
        if not self._tenures.has(tenure):
            return
        if reply.status is StoreStatus.CONFLICT:
            self._lose(tenure.partition)
        if reply.status is not StoreStatus.OK:
            return
        if reply.unreadable is not None or not self._reading.adopt_page(tenure, reply.pairs):
            tenure.unreadable = True
            return
        tenure.cursor = reply.cursor
        if reply.cursor == 0:
            for field in self._reading.warmed(tenure):
                self._run_waiting(tenure, field, now)

    def wall(self) -> float:
        """Unix time, as the shell's clock has it."""
        return self.home.wall()

    # ------------------------------------------------------------- listings

    def _list(self, pending: Pending) -> None:
        """A page of a partition's keys."""
        try:
            reply = self._listings.begin(pending)
        except BadRequest as error:
            self._refuse(pending.conn, pending.request, Status.BAD_REQUEST, str(error))
            return
        if reply is None:
            self._pending += 1
        else:
            self._done += 1
            pending.conn.send(pack_reply(pending.request.counter, Status.OK, reply))

    @property
    def has_listings(self) -> bool:
        """Some partition's keys are to be read from the store."""
        return self._listings.is_due

    def next_listing(self) -> Listing | None:
        """Whose turn it is: `on_listed` is told what the store has at its cursor."""
        return self._listings.next()

    def on_listed(self, listing: Listing, reply: ScanReply) -> None:
        """A page of a partition's hash came for it."""
        tenure = listing.pending.tenure
        if reply.status is StoreStatus.REVOKED:
            self._end()
        if not self._tenures.has(tenure):
            return
        if reply.status is StoreStatus.CONFLICT:
            self._lose(tenure.partition)
        if reply.status is not StoreStatus.OK:
            return  # and so it is due again
        if reply.unreadable is not None:
            reason = f"partition {tenure.partition} cannot be read: {reply.unreadable.reason}"
            self._end_listing(listing, Status.UNREADABLE, reason)
            return
        answer = self._listings.take(listing, reply)
        if answer is not None and self._listings.end(listing):
            self._pending -= 1
            self._done += 1
            pending = listing.pending
            pending.conn.send(pack_reply(pending.request.counter, Status.OK, answer))

    def _end_listing(self, listing: Listing, status: Status, reason: str) -> None:
        if self._listings.end(listing):
            self._pending -= 1
            self._refuse(listing.pending.conn, listing.pending.request, status, reason)

    # ------------------------------------------------------------- the rest

    def on_timer(self, now: float) -> None:
        """Call about every 20 ms: ends calls that waited too long for an owner, for the store or for their
        turn, and runs that took too long.
        """
        if self.runs.is_any:
            self._limit_runs(now)
        for held in self._held.due(now):
            status = Status.EXPIRED if held.deadline <= now else Status.NOT_READY
            self._refuse(held.conn, held.request, status, "no owner is known yet")
        for (partition, field), tenure in list(self._waiting.items()):
            queue = tenure.waiting.get(field)
            if not queue or not self._tenures.has(tenure):
                del self._waiting[partition, field]
            elif any(pending.deadline <= now for pending in queue):
                self._expire(tenure, field, now)
        for listing in self._listings.overdue(now):
            reason = "its deadline passed while the store was to be read"
            self._end_listing(listing, Status.EXPIRED, reason)
        self._delete(self._forgetting.turn(now))
        self._expiry.turn()

    def on_goodbye(self, session: int) -> None:
        """The client of that session is gone, and all that it ever sent was answered."""
        self._delete(self._forgetting.end(session))

    def _delete(self, forgotten: Sequence[Change]) -> None:
        for change in forgotten:
            self._commit(change)

    def _commit(self, change: Change) -> None:
        """A change that no call waits for."""
        self._pending += 1
        self._outbox.add(change)

    def _expire(self, tenure: Tenure, field: bytes, now: float) -> None:
        left = deque[Pending]()
        for pending in tenure.waiting[field]:
            if pending.deadline > now:
                left.append(pending)
            else:
                self._pending -= 1
                held = field in tenure.held
                what = "another command held its key" if held else "the store was to be read"
                reason = f"its deadline passed while {what}"
                self._refuse(pending.conn, pending.request, Status.EXPIRED, reason)
        if left:
            tenure.waiting[field] = left
        else:
            del tenure.waiting[field]

    def settle(self, now: float) -> None:
        """Call after each round of events: partitions that have nothing left to commit are released."""
        if self._settling:
            self._finish_releases(now)

    def take_messages(self) -> list[Message]:
        """What the leader is to be told."""
        messages, self._messages = self._messages, []
        if self._untold:
            messages += self._told_dropped(self._untold)
            self._untold.clear()
        return messages

    def still_dropped(self) -> list[Message]:
        """What the leader is to be told again with each beat: it may not have heard it."""
        return self._told_dropped(self._dropped)

    def _told_dropped(self, epochs: dict[int, int]) -> list[Message]:
        return [Dropped(self.nonce, part) for part in in_parts(list(epochs.items()))]

    def held_epochs(self) -> bytes:
        """This process's own list: packed epochs, 4 bytes a partition."""
        return self._tenures.packed()

    def beat(self) -> Beat:
        """The counts since the start."""
        return Beat(
            self.nonce,
            self.grant.version,
            self._done,
            self._entity_errors,
            self._not_executed,
            self._unknown,
            sum(t.keys for t in self._in_memory.values()),
            self.health,
        )

    @property
    def taken_in(self) -> int:
        """Keys that were made into objects, since the start."""
        return self._cache.taken_in

    @property
    def has_queued(self) -> bool:
        """Some change is in no batch yet."""
        return self._outbox.queued > 0

    @property
    def has_wants(self) -> bool:
        """Some key has to be read from the store."""
        return self._reading.is_due

    @property
    def is_idle(self) -> bool:
        """No call is in progress."""
        return not self._pending and not self._held

    def _retry_held(self, partition: int, now: float) -> None:
        tenure = self._tenures.take(partition)
        for held in self._held.take(partition):
            serves = (
                tenure is not None
                and tenure.release_token is None
                and held.request.epoch <= tenure.epoch
            )
            if held.deadline <= now:
                self._refuse(held.conn, held.request, Status.EXPIRED, "its deadline passed")
            elif serves:
                left_ms = int((held.deadline - now) * 1000)
                self.on_request(held.conn, held.request._replace(deadline_ms=left_ms), now)
            elif not self._redirect(held.conn, held.request):
                # Each for itself: another one may name no epoch that this handler lacks.
                self._held.add(held)

    def _lose(self, partition: int) -> None:
        """The store refused the tenure: either its end is about to be told, or nobody knows of it."""
        self._dropped[partition] = self._untold[partition] = self._tenures.epochs[partition]
        self._drop(partition)

    def _drop(self, partition: int) -> None:
        """The tenure is over without a release: what was never sent was not executed, and what still runs
        will not have been.
        """
        epoch, tenure = self._tenures.epochs[partition], self._in_memory.get(partition)
        for run in self.runs.of(tenure) if tenure is not None else ():
            self._end_unrun(run, Status.NOT_READY, "the partition moved on")
        self.on_tenure("lost", partition, epoch)
        self._give_up(self._outbox.drop(partition), Status.NOT_READY)
        for pending in self._forget(partition):
            self._refuse(pending.conn, pending.request, Status.NOT_READY, "the partition moved on")

    def _forget(self, partition: int) -> list[Pending]:
        """It is held no more; the calls that waited for something of it."""
        tenure = self._tenures.end(partition)
        if tenure is None:
            return []
        self._cache.forget(tenure)
        waiting = [pending for queue in tenure.waiting.values() for pending in queue]
        tenure.waiting.clear()
        waiting += self._listings.forget(tenure)
        self._pending -= len(waiting)
        return waiting

    def _end(self) -> None:
        self.revoked = True
        self._dropped.clear()
        self._untold.clear()
        for partition in self._tenures.held():
            self._drop(partition)
        for partition in self._held.partitions():
            for held in self._held.take(partition):
                self._refuse(held.conn, held.request, Status.NOT_READY, "the grant was revoked")
