"""The supervisor's brain: step(event, now) → effects. No sockets, no Ray, no clock.

Theory of operation. Who owns what changes only by a store call, and only one is under way at a time: what
happens meanwhile is taken into the next one, so several deaths at once cost one call.

    a process is proven dead  → one call: its grant revoked, its partitions in the survivors' grants
    one is given up unproven  → the same call; whoever gains by it is told once its lease is out
    a process joins           → one call: its grant enrolled, the moves that give it its share on record
    a process has released    → one call: what it released, in the receiver's grant under new epochs

Owners are told, then clients, from a table that is acknowledged and never before. A process that
registers again after a broken connection is told all that it may have missed.

A leader begins with what is on record (mesh.core.learned), and ends with its life or its token: a new one of
either has a Supervision of its own. What is put together here works on one leader's Affairs: Attendance (who
comes and goes), Planning (the next store call), and what they consist of.
"""

from __future__ import annotations

from typing import assert_never

from mesh.core.affairs import Affairs
from mesh.core.attendance import Attendance
from mesh.core.learned import Learned, decode_plans, recorded_members
from mesh.core.life_numbers import count_of
from mesh.core.members import Member, SupervisionConfig
from mesh.core.planning import Planning
from mesh.core.records import StoreStatus, TakeoverReply
from mesh.core.signals import (
    AwaitPublished,
    Beaten,
    CallStore,
    ConnectionLost,
    Deposed,
    Effect,
    Event,
    GrantAdopted,
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
    Tick,
    Unproven,
    Weigh,
)
from mesh.core.table import Table
from mesh.core.takeovers import Operation

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
        deposed: another leader leads; this one does nothing any more.
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
        self.life = life
        self.token = token
        self.deposed = False
        self._is_closed = False
        """The store's primary, as far as it is known, does not have this life open."""
        self._learned = learned if learned is not None else Learned(first=True)
        self._affairs = Affairs(
            config, partitions, life, token, self._learned.table, is_first=self._learned.first
        )
        self._attendance = Attendance(self._affairs)
        self._planning = Planning(self._affairs)
        self._began: float | None = None

    def __repr__(self) -> str:
        return f"Supervision(token {self.token}, life {self.life}, {self._affairs!r})"

    @property
    def table(self) -> Table | None:
        """Who owns what, as last acknowledged."""
        return self._affairs.table

    @property
    def members(self) -> list[Member]:
        """Every process that is known, dead ones until they are buried."""
        return list(self._affairs.members)

    @property
    def exits(self) -> list[ProcessExited]:
        """All deaths that were proven; for the next one's Learned."""
        return list(self._affairs.members.exits.values())

    @property
    def at_rest(self) -> bool:
        """No store call is under way, and whoever gained by the last ones has taken it up."""
        return self._affairs.takeovers.at_rest

    @property
    def ready(self) -> bool:
        """Every handler that should run has its grant and has taken it up, and nothing is moving."""
        a = self._affairs
        alive = [m for m in a.members if m.gone_at is None]
        return (
            a.table is not None
            and a.takeovers.current is None
            and not a.handovers.intents
            and not a.waits
            and {m.row.id for m in alive} >= set(a.config.handlers)
            and all(m.enrolled and m.adopted == m.version for m in alive)
        )

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event; return what is to be done, in this order."""
        a = self._affairs
        if self._is_over():
            if isinstance(event, ProcessExited):
                a.members.exits[event.nonce] = event
            return []
        begun = self._begin(now) if self._began is None else []
        effects = [*begun, *self._take(event, now)]
        if self._is_over():
            return effects
        return [*effects, *a.tell_owners(a.waits.over(now)), *self._planning.plan(now)]

    def _take(self, event: Event, now: float) -> list[Effect]:  # noqa: C901 - a table, one line an event
        a, attendance = self._affairs, self._attendance
        match event:
            case Registered(register):
                return attendance.on_registered(register, now)
            case ConnectionLost(nonce):
                attendance.on_lost(nonce, now)
            case ProcessExited():
                return attendance.on_exited(event, now)
            case Unproven():
                attendance.on_unproven(event, now)
            case Weigh():
                attendance.on_weighed(event, now)
            case GrantAdopted(nonce, version):
                if member := a.members.get(nonce):
                    member.adopted = max(member.adopted, version)
                    return [*a.takeovers.on_adopted(now)]
            case PartitionsReleased():
                if event.token == self.token and a.table is not None:
                    a.handovers.on_released(event)
            case PartitionsDropped():
                attendance.on_dropped(event)
            case StoreReplied(operation, reply):
                return self._on_store(operation, reply, now)
            case RenewalsRead(None):
                a.readings.failed()
                return self._closed()
            case RenewalsRead(numbers):
                assert numbers is not None
                a.readings.answered()
                self._is_closed = False
                a.waits.saw(numbers, now)
            case StoreAway():
                a.readings.failed()
            case Published(operation):
                return [*a.takeovers.on_published(operation, now)]
            case StartFailed(id_, reason):
                a.replacements.start_failed(id_, now)
                fields = {"handler": id_, "reason": reason[:MAX_REASON]}
                return [Record("handler_start_failed", fields)]
            case Beaten(beat):
                return attendance.on_beat(beat)
            case Tick():
                return self._on_tick(now)
            case _:
                assert_never(event)
        return []

    def _begin(self, now: float) -> list[Effect]:
        """Take up what is on record: everything that the last leader waited for is waited for anew, and what
        it may not have told any more is told.
        """
        self._began = now
        a, learned = self._affairs, self._learned
        if a.table is not None:
            plans = decode_plans(learned.plans)
            a.waits.restart(plans.waits, now)
            a.handovers.restore(plans.intents, a.table)
            a.members.revoke(plans.revoked)
            for member in recorded_members(a.table, learned, now):
                a.members.add(member)
                if not member.enrolled:
                    # Its grant is over, and nobody says since when.
                    held, out_s = a.table.partitions_of(member.row.nonce), a.config.lease.out_s
                    a.waits.begin(member.row.nonce, held, now + out_s)
        for exited in learned.exited:
            self._attendance.on_exited(exited, now)
        if not learned.first:
            for id_ in sorted(set(a.config.handlers) - a.members.ids()):
                a.replacements.due.setdefault(id_, now + a.config.contact_s)
        return [PublishTable(a.table)] if a.table is not None and not a.waits_for_all else []

    def _on_tick(self, now: float) -> list[Effect]:
        a, effects = self._affairs, list[Effect]()
        operation = a.takeovers.current
        if operation is not None and operation.retry_at is not None and operation.retry_at <= now:
            operation.retry_at = None
            effects.append(CallStore(operation.call))
        assert self._began is not None
        self._attendance.give_up_silent(self._began, now)
        if a.replacements.is_any:
            effects += a.replacements.tick(a.members.ids(), now)
        if a.table is not None and a.readings.is_due(now):
            effects.append(ReadRenewals(tuple(m.row.nonce for m in a.members if m.enrolled)))
        return effects

    # ------------------------------------------------------- store's answers

    def _on_store(self, operation: bytes, reply: TakeoverReply | None, now: float) -> list[Effect]:
        a, current = self._affairs, self._affairs.takeovers.current
        if current is None or current.call.operation != operation:
            return []
        is_closed = reply is not None and reply.status is StoreStatus.CLOSED
        a.readings.store_away = reply is None or is_closed
        if reply is None or is_closed:
            current.retry_at = now + a.config.store_retry_s
            return self._closed() if is_closed else []
        if reply.status is not StoreStatus.OK:
            self.deposed = True
            fields = {"reason": reply.status.value, "detail": reply.detail}
            return [Record("leader_stopped", fields), Deposed()]
        if not reply.acknowledged:
            # Nobody is told before every member has it; the repetition is recognised by its name.
            return [CallStore(current.call)]
        return self._apply(a.takeovers.done(), reply, now)

    def _is_over(self) -> bool:
        return self.deposed

    def _closed(self) -> list[Effect]:
        """Who says so may be a primary that was left behind, and is back for a moment. So this counts as no
        answer: whoever looks after the store finds out which it is (mesh.lives), and a new life has a new
        Supervision, which learns.
        """
        if self._is_closed:
            return []
        self._is_closed = True
        return [Record("life_closed", {"life": count_of(self.life), "token": self.token})]

    def _apply(self, done: Operation, reply: TakeoverReply, now: float) -> list[Effect]:
        a, members = self._affairs, self._affairs.members
        a.table = table = done.table
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
                a.waits.revoked(nonce, reply.renewals.get(nonce, 0), now)
            if failover.member.connected and not members.is_proven(nonce):
                tells.append(a.telling.over(nonce))
        a.handovers.settle(done.call.moves.partitions)
        ended = a.handovers.ended(now)
        # Those that gain something are told first: calls for it are on their way already.
        gaining = set(done.call.moves.receivers)
        freed = {table.owner(p).handler.nonce for p in a.waits.over(now)}
        told = dict.fromkeys((*done.changed, *sorted(freed)))
        for nonce in sorted(told, key=lambda n: n not in gaining):
            if (member := members.get(nonce)) and (tell := a.tell(member)):
                tells += tell
                if nonce in gaining:
                    done.waiting_for[nonce] = member.version
        asks = [a_ for nonce, pairs in done.asks.items() for a_ in a.telling.asks(nonce, pairs)]
        # Clients, too, although new owners may still have to wait for a lease: a call is held there, and
        # answered in the moment in which that is out. Sent to the old one it would wait for longer, and
        # might be carried out by nobody knows whom.
        return [*tells, PublishTable(table), *asks, AwaitPublished(done.call.operation), *ended]
