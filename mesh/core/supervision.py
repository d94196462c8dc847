"""The supervisor's brain: step(event, now) → effects. No sockets, no Ray, no clock.

Theory of operation. Who owns what changes only by a store call, and only one is under way at a time: what
happens meanwhile is taken into the next one, so several deaths at once cost one call.

    a process is proven dead  → one call: its grant revoked, its partitions in the survivors' grants
    a process joins           → one call: its grant enrolled, the moves that give it its share on record
    a process has released    → one call: what it released, in the receiver's grant under new epochs

Owners are told, then clients, from a table that is acknowledged and never before. A process that
registers again after a broken connection is told all that it may have missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgpack

from mesh.core import assignment
from mesh.core.epochs import NOT_HELD, next_epoch, unpack_epochs
from mesh.core.members import Failover, Intent, Member, SupervisionConfig, record_failover
from mesh.core.messages import Beat, Grant, Register, Release, in_parts
from mesh.core.records import Moves, StoreStatus, Takeover, TakeoverReply
from mesh.core.signals import (
    AskRelease,
    AwaitPublished,
    Beaten,
    CallStore,
    ConnectionLost,
    Effect,
    Event,
    GrantAdopted,
    PartitionsDropped,
    PartitionsReleased,
    ProcessExited,
    Published,
    PublishTable,
    Record,
    Registered,
    StartFailed,
    StartHandler,
    StoreReplied,
    TellGrant,
    TellTable,
    Tick,
)
from mesh.core.table import HandlerRow, Table, TableVersion

MAX_REASON = 500
"""Characters of what a start failed of; Ray's errors carry whole tracebacks."""


@dataclass(slots=True)
class _Operation:
    call: Takeover
    table: Table | None
    changed: dict[bytes, None]
    """Whose grants do; in an order that is the same in each run."""
    failovers: list[Failover]
    asks: dict[bytes, list[tuple[int, int]]]
    retry_at: float | None = None
    done: bool = False
    waiting_for: dict[bytes, int] = field(default_factory=dict)


class Supervision:
    """The leader's decisions for one mesh in one life.

    Args:
        config: what should run.
        partitions: of the mesh.
        life: number of the life that this leader opened.
        token: this leader's.
    """

    def __init__(
        self, config: SupervisionConfig, *, partitions: int, life: int, token: int
    ) -> None:
        self.config = config
        self.partitions = partitions
        self.life = life
        self.token = token
        self.table: Table | None = None
        self.deposed = False
        self._members: dict[bytes, Member] = {}
        self._operation: _Operation | None = None
        self._publishing: dict[bytes, _Operation] = {}
        self._released: dict[int, tuple[bytes, int]] = {}
        self._missing: set[int] = set()
        self._intents: dict[int, Intent] = {}
        self._handover: dict[str, Any] | None = None
        self._restart_at: dict[str, float] = {}
        self._urgent: set[str] = set()
        """Died, and not been started since: they need not wait where nobody else is alive."""
        self._starting: dict[str, float] = {}
        self._restart_delay: dict[str, float] = {}
        self._exited: set[bytes] = set()
        self._exited_early: set[bytes] = set()
        self._numbers = 0

    def __repr__(self) -> str:
        return f"Supervision(token {self.token}, life {self.life}, {len(self._members)} members)"

    @property
    def members(self) -> list[Member]:
        """Every process that is known, dead ones until they are buried."""
        return list(self._members.values())

    @property
    def ready(self) -> bool:
        """Every handler that should run has its grant and has taken it up, and nothing is moving."""
        alive = [m for m in self._members.values() if m.proven_at is None]
        return (
            self.table is not None
            and self._operation is None
            and not self._intents
            and {m.row.id for m in alive} >= set(self.config.handlers)
            and all(m.enrolled and m.adopted == m.version for m in alive)
        )

    def step(self, event: Event, now: float) -> list[Effect]:  # noqa: C901 - a table, one line an event
        """Take one event; return what is to be done, in this order."""
        if self.deposed:
            return []
        match event:
            case Registered(register):
                effects = self._on_registered(register, now)
            case ConnectionLost(nonce):
                effects = self._on_connection_lost(nonce, now)
            case ProcessExited(nonce, id_, at):
                effects = self._on_exited(nonce, id_, at, now)
            case GrantAdopted(nonce, version):
                effects = self._on_adopted(nonce, version, now)
            case PartitionsReleased():
                effects = self._on_released(event)
            case PartitionsDropped():
                effects = self._on_dropped(event)
            case StoreReplied(operation, reply):
                effects = self._on_store(operation, reply, now)
            case Published(operation):
                effects = self._on_published(operation, now)
            case StartFailed(id_, reason):
                fields = {"handler": id_, "reason": reason[:MAX_REASON]}
                effects = [Record("handler_start_failed", fields)]
                self._starting.pop(id_, None)
                self._schedule_restart(id_, now)
            case Beaten(beat):
                effects = self._on_beat(beat)
            case Tick():
                effects = self._on_tick(now)
            case _:
                assert_never(event)
        return effects + self._plan(now)

    # --------------------------------------------------------------- events

    def _on_registered(self, r: Register, now: float) -> list[Effect]:
        if r.nonce in self._exited:
            # The last words of a dead process, out of its socket's buffer. Its grant would be enrolled
            # anew, or be given partitions, and nobody would ever report its death again.
            if r.nonce in self._exited_early:
                self._exited_early.discard(r.nonce)
                self._schedule_restart(r.id, now, died=True)
            return []
        member = self._members.get(r.nonce)
        if member is None:
            row = HandlerRow(r.id, r.nonce, r.host, r.port, r.region, r.zone)
            self._members[r.nonce] = Member(row, r.pid, r.warden, r.weight, now)
            return [Record("handler_started", {"handler": r.id, "pid": r.pid})]
        member.connected = True
        if member.proven_at is not None or not member.enrolled or self.table is None:
            return []
        member.first_sign = None
        effects: list[Effect] = [self._tell(member), TellTable(r.nonce, self.table)]
        held = unpack_epochs(r.held) if len(r.held) == 4 * self.partitions else self.table.epochs
        asked: list[tuple[int, int]] = []
        # What is not on record yet is asked for once it is.
        recording = self._operation.asks.get(r.nonce, ()) if self._operation else ()
        for partition in self.table.partitions_of(r.nonce):
            epoch = self.table.epochs[partition]
            intent = self._intents.get(partition)
            if intent is not None and intent.source == r.nonce:
                if (partition, epoch) not in recording:
                    asked.append((partition, epoch))
            elif r.grant_version == member.version and held[partition] != epoch:
                # It says that it lacks what it was granted: that permits a new epoch for the same
                # owner, never a move.
                self._missing.add(partition)
        effects += self._asks(r.nonce, asked)
        return effects

    def _on_connection_lost(self, nonce: bytes, now: float) -> list[Effect]:
        member = self._members.get(nonce)
        if member is not None:
            member.connected = False
            if member.first_sign is None:
                member.first_sign = now
        return []

    def _on_exited(self, nonce: bytes, id_: str, at: float, now: float) -> list[Effect]:
        if nonce in self._exited:
            return []
        self._exited.add(nonce)
        member = self._members.get(nonce)
        if member is None:
            due = self._starting.get(id_)
            if due is not None and at >= due - self.config.start_s:
                # It is the process that this leader waits for, dead before it could register.
                del self._starting[id_]
                self._schedule_restart(id_, now, died=True)
            else:
                self._exited_early.add(nonce)
            return []
        member.connected = False
        member.proven_at = now
        member.first_sign = at if member.first_sign is None else min(at, member.first_sign)
        if now - member.registered_at > self.config.settled_s:
            self._restart_delay.pop(member.row.id, None)
        self._schedule_restart(member.row.id, now, died=True)
        if not member.enrolled and not self._is_enrolling(nonce):
            del self._members[nonce]
        return []

    def _on_adopted(self, nonce: bytes, version: int, now: float) -> list[Effect]:
        member = self._members.get(nonce)
        if member is None:
            return []
        member.adopted = max(member.adopted, version)
        return [e for o in list(self._publishing.values()) for e in self._complete(o, now)]

    def _on_released(self, event: PartitionsReleased) -> list[Effect]:
        if event.token != self.token or self.table is None:
            return []
        for partition, epoch in event.partitions:
            intent = self._intents.get(partition)
            if intent is not None and (intent.source, intent.epoch) == (event.nonce, epoch):
                self._released[partition] = (event.nonce, epoch)
        for partition, epoch in event.not_held:
            intent = self._intents.get(partition)
            if intent is not None and (intent.source, intent.epoch) == (event.nonce, epoch):
                # It was not released, so it must not move. A new epoch for the same owner is all that
                # is allowed; without it the same intent would be made, and refused, for ever.
                del self._intents[partition]
                self._released.pop(partition, None)
                self._missing.add(partition)
        return []

    def _on_dropped(self, event: PartitionsDropped) -> list[Effect]:
        member = self._members.get(event.nonce)
        if self.table is None or member is None or member.proven_at is not None:
            return []
        for partition, epoch in event.partitions:
            if not 0 <= partition < self.partitions:
                continue
            owner = self.table.owner(partition)
            if (owner.handler.nonce, owner.epoch) != (event.nonce, epoch):
                # It lost what was taken from it; or what it has since got anew.
                continue
            intent = self._intents.get(partition)
            if intent is not None:
                # It will not release it any more, and what is lost must not move (see _on_released).
                del self._intents[partition]
                self._released.pop(partition, None)
            self._missing.add(partition)
        return []

    def _on_beat(self, beat: Beat) -> list[Effect]:
        member = self._members.get(beat.nonce)
        if member is None:
            # Buried, and yet it beats; or never heard of, though whoever beats has registered before.
            # Its grant is revoked, and without any traffic it would never learn that.
            over = Grant(self.token, beat.nonce, self.life, 0, False, b"")
            return [TellGrant(beat.nonce, over)] if self.table is not None else []
        member.beat = beat
        if member.enrolled and member.proven_at is None and beat.grant_version < member.version:
            return [self._tell(member)]
        return []

    def _on_tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        operation = self._operation
        if operation is not None and operation.retry_at is not None and operation.retry_at <= now:
            operation.retry_at = None
            effects.append(CallStore(operation.call))
        for id_, due in list(self._restart_at.items()):
            # The takeover comes first; nobody to take over makes the replacement urgent instead. Once:
            # what cannot be started would be tried in a tight loop.
            if due <= now or (id_ in self._urgent and not self._alive()):
                del self._restart_at[id_]
                self._urgent.discard(id_)
                if all(m.row.id != id_ for m in self._alive()):
                    self._starting[id_] = now + self.config.start_s
                    effects.append(StartHandler(id_))
        for id_, due in list(self._starting.items()):
            if any(m.row.id == id_ for m in self._alive()):
                del self._starting[id_]
            elif due <= now:
                # It died, or hangs, before it registered: nobody else would ever notice.
                del self._starting[id_]
                self._schedule_restart(id_, now)
        return effects

    # ---------------------------------------------------------------- plans

    def _plan(self, now: float) -> list[Effect]:
        """Put everything that is due into one store call, unless one is under way."""
        if self._operation is not None or self.deposed:
            return []
        alive = self._alive()
        dead = [m for m in self._members.values() if m.proven_at is not None]
        joining = [m for m in alive if not m.enrolled]
        if not alive:
            return []
        if self.table is None:
            if not {m.row.id for m in alive} >= set(self.config.handlers):
                return []
            return [self._first_table(alive)]
        moves = self._moves(alive, dead)
        intents = self._new_intents(alive, now) if not moves else {}
        if not (moves or dead or joining or intents):
            return []
        version = TableVersion(self.life, self.token, self.table.version.number + 1)
        table = self.table.changed(version, [m.row for m in alive], moves)
        self._intents.update(intents)
        asks: dict[bytes, list[tuple[int, int]]] = {}
        for partition, intent in intents.items():
            asks.setdefault(intent.source, []).append((partition, intent.epoch))
        return [self._call(table, joining, dead, moves, asks, now)]

    def _first_table(self, alive: list[Member]) -> Effect:
        owned = {m.row.nonce: 0 for m in alive}
        weights = {m.row.nonce: m.weight for m in alive}
        placed = assignment.place(range(self.partitions), owned, weights)
        epoch = next_epoch(NOT_HELD, self.life)
        index = {m.row.nonce: i for i, m in enumerate(alive)}
        table = Table(
            TableVersion(self.life, self.token, 1),
            [m.row for m in alive],
            [index[placed[p]] for p in range(self.partitions)],
            [epoch] * self.partitions,
        )
        owners = [placed[p] for p in range(self.partitions)]
        moves = Moves(
            range(self.partitions),
            [None] * self.partitions,
            [NOT_HELD] * self.partitions,
            owners,
            [epoch] * self.partitions,
        )
        return self._call(table, alive, [], moves, {}, 0.0)

    def _moves(self, alive: list[Member], dead: list[Member]) -> Moves:
        assert self.table is not None
        table = self.table
        owned = {m.row.nonce: len(table.partitions_of(m.row.nonce)) for m in alive}
        orphans: list[int] = []
        for member in dead:
            if member.enrolled:
                orphans += table.partitions_of(member.row.nonce)
        self._settle(orphans)
        placed: dict[int, bytes] = {}
        for partition in self._released:
            target = self._intents[partition].target
            if target in owned:
                placed[partition] = target
                owned[target] += 1
            else:
                orphans.append(partition)
        for partition in self._missing:
            placed[partition] = table.owner(partition).handler.nonce
        placed |= assignment.place(orphans, owned, {m.row.nonce: m.weight for m in alive})
        partitions = sorted(placed)
        nonces = [row.nonce for row in table.handlers]
        epochs = [table.epochs[p] for p in partitions]
        # Thousands of partitions share a handful of epochs.
        newer = {epoch: next_epoch(epoch, self.life) for epoch in set(epochs)}
        return Moves(
            partitions,
            [nonces[table.owners[p]] for p in partitions],
            epochs,
            [placed[p] for p in partitions],
            [newer[epoch] for epoch in epochs],
        )

    def _new_intents(self, alive: list[Member], now: float) -> dict[int, Intent]:
        """Moves that make the shares even; only while nothing else is going on."""
        assert self.table is not None
        table = self.table
        if self._intents or any(m.proven_at is not None for m in self._members.values()):
            return {}
        weights = {m.row.nonce: m.weight for m in alive}
        held = {nonce: table.partitions_of(nonce) for nonce in weights}
        wanted = assignment.rebalance(held, weights)
        if wanted:
            receivers = sorted({self._members[n].row.id for n in wanted.values()})
            self._handover = {"to": receivers, "partitions": len(wanted), "began": now}
        return {
            p: Intent(table.owner(p).handler.nonce, table.epochs[p], n) for p, n in wanted.items()
        }

    def _call(
        self,
        table: Table,
        joining: list[Member],
        dead: list[Member],
        moves: Moves,
        asks: dict[bytes, list[tuple[int, int]]],
        now: float,
    ) -> Effect:
        self._numbers += 1
        operation = self.token.to_bytes(4, "big") + self._numbers.to_bytes(4, "big")
        intents = [[p, i.source, i.epoch, i.target] for p, i in self._intents.items()]
        call = Takeover(
            operation,
            self.life,
            self.token,
            tuple((m.row.nonce, m.row.id) for m in joining),
            tuple(m.row.nonce for m in dead if m.enrolled),
            moves,
            table.encode(),
            msgpack.packb(intents),
        )
        failovers = [
            Failover(
                m,
                len(self.table.partitions_of(m.row.nonce)) if self.table else 0,
                m.first_sign if m.first_sign is not None else now,
                m.proven_at or now,
                now,
            )
            for m in dead
        ]
        moved = (*moves.receivers, *filter(None, moves.givers))
        changed = dict.fromkeys((*moved, *(m.row.nonce for m in joining)))
        self._operation = _Operation(call, table, changed, failovers, asks)
        return CallStore(call)

    # ------------------------------------------------------- store's answers

    def _on_store(self, operation: bytes, reply: TakeoverReply | None, now: float) -> list[Effect]:
        current = self._operation
        if current is None or current.call.operation != operation:
            return []
        if reply is None:
            current.retry_at = now + self.config.store_retry_s
            return []
        if reply.status is not StoreStatus.OK:
            self.deposed = True
            return [
                Record("leader_stopped", {"reason": reply.status.value, "detail": reply.detail})
            ]
        if not reply.acknowledged:
            # Nobody is told before every member has it; the repetition is recognised by its name.
            return [CallStore(current.call)]
        return self._apply(current, reply, now)

    def _apply(self, done: _Operation, reply: TakeoverReply, now: float) -> list[Effect]:
        self._operation = None
        self.table = done.table
        for nonce, _ in done.call.enroll:
            self._members[nonce].enrolled = True
        for nonce, version in reply.versions.items():
            if nonce in self._members:
                self._members[nonce].version = version
        for failover in done.failovers:
            failover.fenced_at = now
            del self._members[failover.member.row.nonce]
        finished: list[Effect] = []
        self._settle(done.call.moves.partitions)
        if self._handover is not None and not self._intents:
            began = self._handover.pop("began")
            took = round((now - began) * 1000, 3)
            finished = [Record("handover", {**self._handover, "took_ms": took}, now - began)]
            self._handover = None
        tells: list[Effect] = []
        # Those that gain something are told first: calls for it are on their way already.
        gaining = set(done.call.moves.receivers)
        for nonce in sorted(done.changed, key=lambda n: n not in gaining):
            member = self._members.get(nonce)
            if member is not None and member.proven_at is None:
                tells.append(self._tell(member))
                if nonce in gaining:
                    done.waiting_for[nonce] = member.version
        asks = [ask for nonce, pairs in done.asks.items() for ask in self._asks(nonce, pairs)]
        assert done.table is not None
        name = done.call.operation
        self._publishing[name] = done
        return [*tells, PublishTable(done.table), *asks, AwaitPublished(name), *finished]

    def _on_published(self, operation: bytes, now: float) -> list[Effect]:
        done = self._publishing.get(operation)
        if done is None:
            return []
        done.done = True
        for failover in done.failovers:
            failover.published_at = now
        return self._complete(done, now)

    def _complete(self, done: _Operation, now: float) -> list[Effect]:
        """Record the failovers of a call whose new owners have all taken up their grants."""
        for nonce, version in list(done.waiting_for.items()):
            member = self._members.get(nonce)
            if member is None or member.proven_at is not None or member.adopted >= version:
                del done.waiting_for[nonce]
        if done.waiting_for or not done.done:
            return []
        self._publishing.pop(done.call.operation, None)
        return [record_failover(f, now) for f in done.failovers]

    # ---------------------------------------------------------------- small

    def _alive(self) -> list[Member]:
        return [m for m in self._members.values() if m.proven_at is None]

    def _is_enrolling(self, nonce: bytes) -> bool:
        return self._operation is not None and any(
            nonce == n for n, _ in self._operation.call.enroll
        )

    def _settle(self, partitions: Sequence[int]) -> None:
        """They move, or have moved: what was planned for them before is over."""
        if self._intents or self._missing:  # what is released has an intent
            for partition in partitions:
                self._released.pop(partition, None)
                self._intents.pop(partition, None)
                self._missing.discard(partition)

    def _tell(self, member: Member) -> Effect:
        assert self.table is not None
        nonce = member.row.nonce
        epochs = self.table.epochs_of(nonce)
        return TellGrant(nonce, Grant(self.token, nonce, self.life, member.version, True, epochs))

    def _asks(self, nonce: bytes, pairs: list[tuple[int, int]]) -> list[Effect]:
        """In parts that fit into a message."""
        return [AskRelease(nonce, Release(self.token, part)) for part in in_parts(pairs)]

    def _schedule_restart(self, id_: str, now: float, *, died: bool = False) -> None:
        if id_ not in self.config.handlers:
            return
        if died:
            self._urgent.add(id_)
        delay = self._restart_delay.get(id_, self.config.restart_after_s)
        self._restart_at[id_] = now + delay
        self._restart_delay[id_] = min(self.config.restart_most_s, delay * 2)
