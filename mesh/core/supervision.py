"""The supervisor's brain: step(event, now) → effects. No sockets, no Ray, no clock.

Theory of operation. Who owns what changes only by a store call, and only one is under way at a time: what
happens meanwhile is taken into the next one, so several deaths at once cost one call.

    a process is proven dead  → one call: its grant revoked, its partitions in the survivors' grants
    a process joins           → one call: its grant enrolled, the moves that give it its share on record
    a process has released    → one call: what it released, in the receiver's grant under new epochs

Owners are told, then clients, from a table that is acknowledged and never before. A process that
registers again after a broken connection is told all that it may have missed.

What is put together here: mesh.core.members (who takes part), moving (who gets what), handovers (planned
moves), takeovers (the store call under way), replacements (processes to be started).
"""

from __future__ import annotations

from typing import assert_never

from mesh.core.epochs import unpack_epochs
from mesh.core.handovers import Handovers
from mesh.core.members import Failover, Member, SupervisionConfig
from mesh.core.messages import Beat, Grant, Register, Release, in_parts
from mesh.core.moving import due_moves, even_shares, first_table
from mesh.core.records import Moves, StoreStatus, Takeover, TakeoverReply
from mesh.core.replacements import Replacements
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
    StoreReplied,
    TellGrant,
    TellTable,
    Tick,
)
from mesh.core.table import HandlerRow, Table, TableVersion
from mesh.core.takeovers import Operation, Takeovers

MAX_REASON = 500
"""Characters of what a start failed of; Ray's errors carry whole tracebacks."""


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
        self._takeovers = Takeovers(token, self._has_adopted)
        self._handovers = Handovers()
        self._replacements = Replacements(config)
        self._exited: set[bytes] = set()
        self._exited_early: set[bytes] = set()

    def __repr__(self) -> str:
        return f"Supervision(token {self.token}, life {self.life}, {len(self._members)} members)"

    @property
    def members(self) -> list[Member]:
        """Every process that is known, dead ones until they are buried."""
        return list(self._members.values())

    @property
    def at_rest(self) -> bool:
        """No store call is under way, and whoever gained by the last ones has taken it up."""
        return self._takeovers.at_rest

    @property
    def ready(self) -> bool:
        """Every handler that should run has its grant and has taken it up, and nothing is moving."""
        alive = [m for m in self._members.values() if m.proven_at is None]
        return (
            self.table is not None
            and self._takeovers.current is None
            and not self._handovers.intents
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
                if event.token == self.token and self.table is not None:
                    self._handovers.on_released(event)
                effects = []
            case PartitionsDropped():
                effects = self._on_dropped(event)
            case StoreReplied(operation, reply):
                effects = self._on_store(operation, reply, now)
            case Published(operation):
                effects = [*self._takeovers.on_published(operation, now)]
            case StartFailed(id_, reason):
                fields = {"handler": id_, "reason": reason[:MAX_REASON]}
                effects = [Record("handler_start_failed", fields)]
                self._replacements.start_failed(id_, now)
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
                self._replacements.schedule(r.id, now, died=True)
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
        operation = self._takeovers.current
        recording = operation.asks.get(r.nonce, ()) if operation else ()
        for partition in self.table.partitions_of(r.nonce):
            epoch = self.table.epochs[partition]
            intent = self._handovers.intents.get(partition)
            if intent is not None and intent.source == r.nonce:
                if (partition, epoch) not in recording:
                    asked.append((partition, epoch))
            elif r.grant_version == member.version and held[partition] != epoch:
                # It says that it lacks what it was granted: that permits a new epoch for the same
                # owner, never a move.
                self._handovers.missing.add(partition)
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
            if not self._replacements.died_unheard(id_, at, now):
                self._exited_early.add(nonce)
            return []
        member.connected = False
        member.proven_at = now
        member.first_sign = at if member.first_sign is None else min(at, member.first_sign)
        if now - member.registered_at > self.config.settled_s:
            self._replacements.had_settled(member.row.id)
        self._replacements.schedule(member.row.id, now, died=True)
        operation = self._takeovers.current
        if not member.enrolled and not (operation and operation.enrolls(nonce)):
            del self._members[nonce]
        return []

    def _on_adopted(self, nonce: bytes, version: int, now: float) -> list[Effect]:
        member = self._members.get(nonce)
        if member is None:
            return []
        member.adopted = max(member.adopted, version)
        return [*self._takeovers.on_adopted(now)]

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
            self._handovers.lost(partition)
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
        operation = self._takeovers.current
        if operation is not None and operation.retry_at is not None and operation.retry_at <= now:
            operation.retry_at = None
            effects.append(CallStore(operation.call))
        if self._replacements.is_any:
            alive = {m.row.id for m in self._alive()}
            effects += self._replacements.tick(alive, now)
        return effects

    # ---------------------------------------------------------------- plans

    def _plan(self, now: float) -> list[Effect]:
        """Put everything that is due into one store call, unless one is under way."""
        if self._takeovers.current is not None or self.deposed:
            return []
        alive = self._alive()
        dead = [m for m in self._members.values() if m.proven_at is not None]
        joining = [m for m in alive if not m.enrolled]
        if not alive:
            return []
        if self.table is None:
            if not {m.row.id for m in alive} >= set(self.config.handlers):
                return []
            version = TableVersion(self.life, self.token, 1)
            table, moves = first_table(version, self.partitions, alive)
            return [self._call(table, alive, [], moves, {}, now)]
        moves = due_moves(self.table, self.life, alive, dead, self._handovers)
        asks = {} if moves else self._even_out(alive, now)
        if not (moves or dead or joining or asks):
            return []
        version = TableVersion(self.life, self.token, self.table.version.number + 1)
        table = self.table.changed(version, [m.row for m in alive], moves)
        return [self._call(table, joining, dead, moves, asks, now)]

    def _even_out(self, alive: list[Member], now: float) -> dict[bytes, list[tuple[int, int]]]:
        """Plan moves that make the shares even; only while nothing else is going on."""
        assert self.table is not None
        if self._handovers.intents or any(m.proven_at is not None for m in self._members.values()):
            return {}
        ids = {m.row.nonce: m.row.id for m in alive}
        return self._handovers.plan(even_shares(self.table, alive), self.table, ids, now)

    def _call(
        self,
        table: Table,
        joining: list[Member],
        dead: list[Member],
        moves: Moves,
        asks: dict[bytes, list[tuple[int, int]]],
        now: float,
    ) -> Effect:
        call = Takeover(
            self._takeovers.next_name(),
            self.life,
            self.token,
            tuple((m.row.nonce, m.row.id) for m in joining),
            tuple(m.row.nonce for m in dead if m.enrolled),
            moves,
            table.encode(),
            self._handovers.encode(),
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
        self._takeovers.current = Operation(call, table, changed, failovers, asks)
        return CallStore(call)

    # ------------------------------------------------------- store's answers

    def _on_store(self, operation: bytes, reply: TakeoverReply | None, now: float) -> list[Effect]:
        current = self._takeovers.current
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
        return self._apply(self._takeovers.done(), reply, now)

    def _apply(self, done: Operation, reply: TakeoverReply, now: float) -> list[Effect]:
        self.table = done.table
        for nonce, _ in done.call.enroll:
            self._members[nonce].enrolled = True
        for nonce, version in reply.versions.items():
            if nonce in self._members:
                self._members[nonce].version = version
        for failover in done.failovers:
            failover.fenced_at = now
            del self._members[failover.member.row.nonce]
        self._handovers.settle(done.call.moves.partitions)
        ended = self._handovers.ended(now)
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
        return [
            *tells,
            PublishTable(done.table),
            *asks,
            AwaitPublished(done.call.operation),
            *ended,
        ]

    # ---------------------------------------------------------------- small

    def _alive(self) -> list[Member]:
        return [m for m in self._members.values() if m.proven_at is None]

    def _has_adopted(self, nonce: bytes, version: int) -> bool:
        """Whether there is nothing to wait for: it has, or it is dead."""
        member = self._members.get(nonce)
        return member is None or member.proven_at is not None or member.adopted >= version

    def _tell(self, member: Member) -> Effect:
        assert self.table is not None
        nonce = member.row.nonce
        epochs = self.table.epochs_of(nonce)
        return TellGrant(nonce, Grant(self.token, nonce, self.life, member.version, True, epochs))

    def _asks(self, nonce: bytes, pairs: list[tuple[int, int]]) -> list[Effect]:
        """In parts that fit into a message."""
        return [AskRelease(nonce, Release(self.token, part)) for part in in_parts(pairs)]
