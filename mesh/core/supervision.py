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
from mesh.core.learned import Learned, decode_plans, encode_plans, recorded_members
from mesh.core.members import Failover, Member, SupervisionConfig, Weighed
from mesh.core.membership import Membership, contact, joiner
from mesh.core.messages import Beat, Register
from mesh.core.moving import due_moves, even_shares, first_table
from mesh.core.readings import Readings
from mesh.core.records import Moves, StoreStatus, Takeover, TakeoverReply
from mesh.core.replacements import Replacements
from mesh.core.signals import (
    AwaitPublished,
    Beaten,
    CallStore,
    ConnectionLost,
    Deposed,
    Effect,
    Event,
    GrantAdopted,
    LifeClosed,
    PartitionsDropped,
    PartitionsReleased,
    ProcessExited,
    Published,
    PublishTable,
    ReadRenewals,
    Record,
    Registered,
    RenewalsRead,
    StartFailed,
    StoreAway,
    StoreReplied,
    TellTable,
    Tick,
    Unproven,
    Weigh,
)
from mesh.core.table import Table, TableVersion
from mesh.core.takeovers import Operation, Takeovers
from mesh.core.telling import Telling
from mesh.core.waits import Waits

MAX_REASON = 500
"""Characters of what a start failed of; Ray's errors carry whole tracebacks."""


class Supervision:
    """The leader's decisions for one mesh in one life, under one token.

    Args:
        config: what should run.
        partitions: of the mesh.
        life: number of the life that this leader leads in.
        token: this leader's.
        learned: what is on record; nothing, if left out, as before the very first `up`.

    Attributes:
        table: who owns what, as last acknowledged.
        deposed: another leader leads; this one does nothing any more.
        closed: the life is over; a new one needs a new Supervision, which learns.
    """

    def __init__(
        self,
        config: SupervisionConfig,
        *,
        partitions: int,
        life: int,
        token: int,
        learned: Learned | None = None,
    ) -> None:
        self.config = config
        self.partitions = partitions
        self.life = life
        self.token = token
        self._learned = learned if learned is not None else Learned(first=True)
        self.table: Table | None = self._learned.table
        self.deposed = False
        self.closed = False
        self._members = Membership()
        self._waits = Waits(config.lease)
        self._telling = Telling(token, life, self._waits)
        self._takeovers = Takeovers(life, token, self._has_adopted)
        self._handovers = Handovers()
        self._replacements = Replacements(config)
        self._readings = Readings(config.lease)
        self._waits_for_all = self._learned.first or self.table is None
        """Nothing is placed before every handler that should run is there."""
        self._began: float | None = None

    def __repr__(self) -> str:
        return f"Supervision(token {self.token}, life {self.life}, {len(self._members)} members)"

    @property
    def members(self) -> list[Member]:
        """Every process that is known, dead ones until they are buried."""
        return list(self._members)

    @property
    def exits(self) -> list[ProcessExited]:
        """All deaths that were proven; for the next one's Learned."""
        return list(self._members.exits.values())

    @property
    def at_rest(self) -> bool:
        """No store call is under way, and whoever gained by the last ones has taken it up."""
        return self._takeovers.at_rest

    @property
    def ready(self) -> bool:
        """Every handler that should run has its grant and has taken it up, and nothing is moving."""
        alive = [m for m in self._members if m.gone_at is None]
        return (
            self.table is not None
            and self._takeovers.current is None
            and not self._handovers.intents
            and not self._waits
            and {m.row.id for m in alive} >= set(self.config.handlers)
            and all(m.enrolled and m.adopted == m.version for m in alive)
        )

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event; return what is to be done, in this order."""
        if self._is_over():
            if isinstance(event, ProcessExited):
                self._members.exits[event.nonce] = event
            return []
        begun = self._begin(now) if self._began is None else []
        effects = [*begun, *self._take(event, now)]
        if self._is_over():
            return effects
        return [*effects, *self._tell_owners(self._waits.over(now)), *self._plan(now)]

    def _take(self, event: Event, now: float) -> list[Effect]:  # noqa: C901 - a table, one line an event
        effects: list[Effect] = []
        match event:
            case Registered(register):
                effects = self._on_registered(register, now)
            case ConnectionLost(nonce):
                if member := self._members.get(nonce):
                    member.connected = False
                    member.first_sign = now if member.first_sign is None else member.first_sign
            case ProcessExited():
                effects = self._on_exited(event, now)
            case Unproven(nonce, cause):
                self._on_unproven(nonce, cause, now)
            case Weigh(nonce, weight, why):
                if member := self._members.get(nonce):
                    is_less = weight < member.weight
                    member.weighed = Weighed(weight, now, why) if is_less else None
            case GrantAdopted(nonce, version):
                if member := self._members.get(nonce):
                    member.adopted = max(member.adopted, version)
                    effects += self._takeovers.on_adopted(now)
            case PartitionsReleased():
                if event.token == self.token and self.table is not None:
                    self._handovers.on_released(event)
            case PartitionsDropped():
                self._on_dropped(event)
            case StoreReplied(operation, reply):
                effects = self._on_store(operation, reply, now)
            case RenewalsRead(None):
                effects = self._close()
            case RenewalsRead(numbers):
                assert numbers is not None
                self._readings.answered()
                self._waits.saw(numbers, now)
            case StoreAway():
                self._readings.failed()
            case Published(operation):
                effects += self._takeovers.on_published(operation, now)
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
        return effects

    # ------------------------------------------------------------- beginning

    def _begin(self, now: float) -> list[Effect]:
        """Take up what is on record: everything that the last leader waited for is waited for anew, and what
        it may not have told any more is told.
        """
        self._began = now
        learned, members = self._learned, self._members
        if self.table is not None:
            plans = decode_plans(learned.plans)
            self._waits.restart(plans.waits, now)
            self._handovers.restore(plans.intents, self.table)
            members.revoke(plans.revoked)
            for member in recorded_members(self.table, learned, now):
                members.add(member)
                if not member.enrolled:
                    # Its grant is over, and nobody says since when.
                    held, out_at = self.table.partitions_of(member.row.nonce), now + self._lease_s
                    self._waits.begin(member.row.nonce, held, out_at)
        for exit_ in learned.exited:
            self._on_exited(exit_, now)
        if not learned.first:
            for id_ in set(self.config.handlers) - members.ids():
                self._replacements.due.setdefault(id_, now + self.config.contact_s)
        if self.table is None or self._waits_for_all:
            return []
        return [PublishTable(self.table)]

    def _give_up_silent(self, now: float) -> None:
        """Who is on record and has not come, with its whole lease out, is given up (schedule F9).

        Where the store was away for a while, nobody could renew: nothing is seen of it then, and nothing is
        out.
        """
        assert self._began is not None
        if self._readings.store_away or now < self._began + self._lease_s:
            return
        patience_ends = self._began + self.config.contact_s
        for member in self._members.on_record():
            out_at = self._waits.out_at(member.row.nonce)
            if out_at is not None and (out_at <= now or patience_ends <= now):
                self._give_up(member, "unreachable", now)

    # --------------------------------------------------------------- events

    def _on_registered(self, r: Register, now: float) -> list[Effect]:
        members = self._members
        if members.is_proven(r.nonce):
            # The last words of a dead process, out of its socket's buffer. Its grant would be enrolled
            # anew, or be given partitions, and nobody would ever report its death again.
            if members.had_not_been_heard(r.nonce):
                self._replacements.schedule(r.id, now, died=True)
            return []
        member = members.get(r.nonce)
        if member is None:
            if r.nonce in members.revoked or (r.grant_version and self.table is not None):
                # It had a grant, which is on record no more: it drops what it has, and comes back anew.
                return [self._telling.over(r.nonce)]
            members.add(joiner(r, now))
            return [Record("handler_started", {"handler": r.id, "pid": r.pid})]
        operation = self._takeovers.current
        if operation is not None and operation.revokes(r.nonce):
            return []  # it is told so once that is acknowledged
        contact(member, r)
        if not member.enrolled or self.table is None:
            return []
        member.first_sign = None
        held = unpack_epochs(r.held) if len(r.held) == 4 * self.partitions else self.table.epochs
        asked: list[tuple[int, int]] = []
        # What is not on record yet is asked for once it is.
        recording = operation.asks.get(r.nonce, ()) if operation else ()
        knows_its_grant = (r.life, r.grant_version) == (self.life, member.version)
        for partition in self.table.partitions_of(r.nonce):
            epoch = self.table.epochs[partition]
            intent = self._handovers.intents.get(partition)
            if partition in self._waits and held[partition] == epoch:
                # An earlier leader has told it so: that wait was over.
                self._waits.end_of(partition)
            if intent is not None and intent.source == r.nonce:
                if (partition, epoch) not in recording:
                    asked.append((partition, epoch))
            elif knows_its_grant and held[partition] != epoch and partition not in self._waits:
                # It says that it lacks what it was granted: that permits a new epoch for the same
                # owner, never a move.
                self._handovers.missing.add(partition)
        tells = [self._telling.grant(member, self.table), TellTable(r.nonce, self.table)]
        return [*tells, *self._telling.asks(r.nonce, asked)]

    def _on_exited(self, event: ProcessExited, now: float) -> list[Effect]:
        nonce, members = event.nonce, self._members
        if members.is_proven(nonce):
            return []
        is_news = members.prove(event)
        effects = self._tell_owners(self._waits.end(nonce))
        member = members.get(nonce)
        if member is None:
            if is_news and not self._replacements.died_unheard(event.handler, event.at, now):
                members.unheard.add(nonce)
            return effects
        member.connected = False
        at, first_sign = event.at, member.first_sign
        member.first_sign = at if first_sign is None else min(at, first_sign)
        if now - member.registered_at > self.config.settled_s:
            self._replacements.had_settled(member.row.id)
        if member.gone_at is None:
            self._give_up(member, event.cause, now)
        operation = self._takeovers.current
        if not member.enrolled and not (operation and operation.enrolls(nonce)):
            members.remove(nonce)
        return effects

    def _on_unproven(self, nonce: bytes, cause: str, now: float) -> None:
        member = self._members.get(nonce)
        if member is None or member.gone_at is not None or not member.enrolled:
            return
        if self._readings.store_away:
            return  # nobody can renew; nor could anybody take over
        self._give_up(member, cause, now)

    def _give_up(self, member: Member, cause: str, now: float) -> None:
        """Its partitions are to move, and another process is to be started in its place."""
        member.gone_at, member.cause = now, cause
        if member.first_sign is None:
            member.first_sign = now
        if member.contacted or not self._learned.first:
            self._replacements.schedule(member.row.id, now, died=True)

    def _on_dropped(self, event: PartitionsDropped) -> None:
        member = self._members.get(event.nonce)
        if self.table is None or member is None or member.gone_at is not None:
            return
        for partition, epoch in event.partitions:
            if not 0 <= partition < self.partitions:
                continue
            owner = self.table.owner(partition)
            if (owner.handler.nonce, owner.epoch) != (event.nonce, epoch):
                # It lost what was taken from it; or what it has since got anew.
                continue
            self._handovers.lost(partition)

    def _on_beat(self, beat: Beat) -> list[Effect]:
        member = self._members.get(beat.nonce)
        if member is None:
            # Buried, and yet it beats; or never heard of, though it has had a grant. That grant is revoked,
            # and without any traffic it would never learn that (schedule R3).
            is_over = beat.grant_version > 0 or beat.nonce in self._members.revoked
            return [self._telling.over(beat.nonce)] if self.table is not None and is_over else []
        member.beat = beat
        behind = member.enrolled and member.contacted and beat.grant_version < member.version
        if behind and member.gone_at is None and self.table is not None:
            return [self._telling.grant(member, self.table)]
        return []

    def _on_tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        operation = self._takeovers.current
        if operation is not None and operation.retry_at is not None and operation.retry_at <= now:
            operation.retry_at = None
            effects.append(CallStore(operation.call))
        self._give_up_silent(now)
        if self._replacements.is_any:
            effects += self._replacements.tick(self._members.ids(), now)
        if self.table is not None and self._readings.is_due(now):
            effects.append(ReadRenewals(tuple(m.row.nonce for m in self._members if m.enrolled)))
        return effects

    # ---------------------------------------------------------------- plans

    def _plan(self, now: float) -> list[Effect]:
        """Put everything that is due into one store call, unless one is under way."""
        if self._takeovers.current is not None:
            return []
        alive = self._members.at_hand()
        if not alive or self._is_too_early(alive):
            return []
        joining = [m for m in alive if not m.enrolled]
        if self.table is None:
            version = TableVersion(self.life, self.token, 1)
            table, moves = first_table(version, self.partitions, alive)
            return [self._call(table, alive, [], moves, {}, now)]
        gone = self._members.gone()
        moves = due_moves(self.table, self.life, alive, gone, self._handovers)
        asks = {} if moves else self._even_out(alive, now)
        if not (moves or gone or joining or asks):
            return []
        version = TableVersion(self.life, self.token, self.table.version.number + 1)
        rows = [m.row for m in self._members if m.gone_at is None and self._is_listed(m)]
        table = self.table.changed(version, rows, moves)
        return [self._call(table, joining, gone, moves, asks, now)]

    def _is_too_early(self, alive: list[Member]) -> bool:
        """At first everything is placed in one call, over all that should be there, once the leases of an
        earlier up are out.
        """
        if self._waits_for_all:
            missing = set(self.config.handlers) - {m.row.id for m in alive}
            self._waits_for_all = bool(missing or self._members.on_record())
        return self._waits_for_all

    def _is_listed(self, member: Member) -> bool:
        """Who is on record with nothing, and has not come, has no address."""
        assert self.table is not None
        return member.contacted or self.table.row(member.row.nonce) is not None

    def _even_out(self, alive: list[Member], now: float) -> dict[bytes, list[tuple[int, int]]]:
        """Plan moves that make the shares follow the weights; only while nothing else is going on."""
        assert self.table is not None
        if self._handovers.intents or self._waits or len(alive) < len(self._members):
            return {}
        return self._handovers.plan(even_shares(self.table, alive), self.table, alive, now)

    def _call(
        self,
        table: Table,
        joining: list[Member],
        gone: list[Member],
        moves: Moves,
        asks: dict[bytes, list[tuple[int, int]]],
        now: float,
    ) -> Effect:
        before, revoked = self.table, [m.row.nonce for m in gone if m.enrolled]
        for nonce in revoked:
            if before is not None and not self._members.is_proven(nonce):
                self._waits.begin(nonce, before.partitions_of(nonce))
                self._members.revoke((nonce,))
        call = Takeover(
            self._takeovers.next_name(),
            self.life,
            self.token,
            tuple((m.row.nonce, m.row.id) for m in joining),
            tuple(revoked),
            moves,
            table.encode(),
            encode_plans(self._handovers.intents, self._waits.encode(), self._members.revoked),
        )
        failovers = [
            Failover(
                m,
                len(before.partitions_of(m.row.nonce)) if before is not None else 0,
                m.first_sign if m.first_sign is not None else now,
                m.gone_at if m.gone_at is not None else now,
                now,
            )
            for m in gone
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
        self._readings.store_away = reply is None
        if reply is None:
            current.retry_at = now + self.config.store_retry_s
            return []
        if reply.status is StoreStatus.CLOSED:
            return self._close()
        if reply.status is not StoreStatus.OK:
            self.deposed = True
            fields = {"reason": reply.status.value, "detail": reply.detail}
            return [Record("leader_stopped", fields), Deposed()]
        if not reply.acknowledged:
            # Nobody is told before every member has it; the repetition is recognised by its name.
            return [CallStore(current.call)]
        return self._apply(self._takeovers.done(), reply, now)

    def _close(self) -> list[Effect]:
        self.closed = True
        return [Record("life_closed", {"life": self.life, "token": self.token}), LifeClosed()]

    def _apply(self, done: Operation, reply: TakeoverReply, now: float) -> list[Effect]:
        self.table, members = done.table, self._members
        for nonce, _ in done.call.enroll:
            members[nonce].enrolled = True
        for nonce, version in reply.versions.items():
            if member := members.get(nonce):
                member.version = version
        tells: list[Effect] = []
        for failover in done.failovers:
            nonce = failover.member.row.nonce
            failover.fenced_at = now
            members.remove(nonce)
            if failover.member.enrolled:
                self._waits.revoked(nonce, reply.renewals.get(nonce, 0), now)
            if failover.member.connected and not members.is_proven(nonce):
                tells.append(self._telling.over(nonce))
        self._handovers.settle(done.call.moves.partitions)
        ended = self._handovers.ended(now)
        # Those that gain something are told first: calls for it are on their way already.
        gaining = set(done.call.moves.receivers)
        freed = {self.table.owner(p).handler.nonce for p in self._waits.over(now)}
        told = dict.fromkeys((*done.changed, *sorted(freed)))
        for nonce in sorted(told, key=lambda n: n not in gaining):
            member = members.get(nonce)
            if member is not None and member.gone_at is None and member.contacted:
                tells.append(self._telling.grant(member, self.table))
                if nonce in gaining:
                    done.waiting_for[nonce] = member.version
        asks = [a for nonce, pairs in done.asks.items() for a in self._telling.asks(nonce, pairs)]
        # Clients, too, although new owners may still have to wait for a lease: a call is held there, and
        # answered in the moment in which that is out. Sent to the old one it would wait for longer, and
        # might be carried out by nobody knows whom.
        return [
            *tells,
            PublishTable(done.table),
            *asks,
            AwaitPublished(done.call.operation),
            *ended,
        ]

    # ---------------------------------------------------------------- small

    def _is_over(self) -> bool:
        return self.deposed or self.closed

    @property
    def _lease_s(self) -> float:
        return self.config.lease.out_s

    def _has_adopted(self, nonce: bytes, version: int) -> bool:
        """Whether there is nothing to wait for: it has taken up all of it, or it is gone."""
        member = self._members.get(nonce)
        if member is None or member.gone_at is not None:
            return True
        assert self.table is not None
        return member.adopted >= version and not self._waits.among(self.table.partitions_of(nonce))

    def _tell_owners(self, partitions: list[int]) -> list[Effect]:
        """They wait for nobody any more: their owners may serve them."""
        if not partitions or self.table is None:
            return []
        tells: list[Effect] = []
        for nonce in sorted({self.table.owner(p).handler.nonce for p in partitions}):
            member = self._members.get(nonce)
            if member is not None and member.gone_at is None and member.contacted:
                member.adopted = min(member.adopted, member.version - 1)
                tells.append(self._telling.grant(member, self.table))
        return tells
