"""A leader's brain, real handler brains and a store in memory; every message is delivered by hand.

What the leader sends waits in a process's `inbox`, what a process sends in its `outbox`; a broken connection
loses both. A store call waits until `answer_store` decides its fate. A leader that was replaced goes on: what
it says waits in `late`. After each step `check` holds the mesh against the invariants of the design.

Clocks are as bad as they may be against each other: those of the processes are so slow that a lease is out
for the leader in the very moment in which it is for its process.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from unit.rigs import Handler, run

from mesh.core import signals as sv
from mesh.core.epochs import NOT_HELD, unpack_epochs
from mesh.core.learned import Learned
from mesh.core.lease import Lease, LeaseTiming
from mesh.core.members import SupervisionConfig
from mesh.core.messages import Adopted, Beat, Dropped, Grant, Message, Register, Release, Released
from mesh.core.records import Bid, GrantRef, OpenLife, StoreStatus, Takeover, TakeoverReply
from mesh.core.supervision import Supervision
from mesh.core.syncset import InSyncSet
from mesh.core.table import Table
from mesh.store.api import StoreUnreachable
from mesh.store.memory import MemoryServer, MemoryStore

LEASE = LeaseTiming(drift=0.125, margin_s=1e-6)
_SLOWLY = (1 - LEASE.drift) / (1 + LEASE.drift)


class Process(Handler):
    """A handler process as the leader meets it.

    Attributes:
        sent: renewals on their way to the store.
        token: the highest that it has heard; lower ones are refused.
    """

    def __init__(self, server: MemoryServer, id_: str, nonce: bytes, partitions: int) -> None:
        super().__init__(server, nonce, partitions=partitions)
        self.id = id_
        self.server = server
        self.alive = True
        self.connected = False
        self.inbox: deque[Grant | Release | Table] = deque()
        self.late: deque[Grant | Release] = deque()
        self.outbox: deque[Message] = deque()
        self.lease = Lease(LEASE)
        self.sent: deque[tuple[int, GrantRef]] = deque()
        self.token = 0
        self._number = 0

    def __repr__(self) -> str:
        return f"Process({self.nonce.decode()}, {'alive' if self.alive else 'dead'})"

    def held(self) -> dict[int, int]:
        """What it serves: partition → epoch."""
        epochs = unpack_epochs(self.core.held_epochs())
        return {p: epoch for p, epoch in enumerate(epochs) if epoch != NOT_HELD}

    def may_answer(self, now: float) -> bool:
        """Its lease covers an answer, by its own clock."""
        return self.alive and self.lease.holds(now * _SLOWLY)

    def renew(self, now: float) -> None:
        """A renewal leaves."""
        self._number += 1
        self.lease.sent(self._number, now * _SLOWLY)
        self.sent.append((self._number, self.core.grant))

    def renewal_lands(self) -> None:
        """The store takes it, or refuses it; acknowledged at once, or never."""
        number, ref = self.sent.popleft()
        grant = self.server.grant(ref)
        if not isinstance(grant, StoreStatus):
            grant.renewal = max(grant.renewal, number)
            if not self.server.paused:
                self.lease.acknowledged(number)


class Mesh:
    """One leader, its store, and any number of processes.

    Args:
        ids: handlers that should run.
        partitions: of the mesh.
    """

    def __init__(self, *ids: str, partitions: int = 8) -> None:
        self.server = MemoryServer()
        self.store = MemoryStore(self.server)
        self.partitions = partitions
        self.now = 10.0
        members = InSyncSet(1, frozenset(self.server.links))
        assert run(
            self.store.open_life(OpenLife(b"open", 0, 1, 1, partitions, members))
        ).acknowledged
        self.config = SupervisionConfig(ids, lease=LEASE)
        self.leader = Supervision(self.config, partitions=partitions, life=1, token=1)
        self.former: list[Supervision] = []
        """Leaders that were replaced, and have not all heard of it."""
        self.unheard: deque[tuple[Supervision, sv.StoreReplied]] = deque()
        """What the store has answered to them."""
        self.processes: dict[bytes, Process] = {}
        self.calls: deque[Takeover] = deque()
        self.starting: deque[str] = deque()
        self.reads: deque[tuple[bytes, ...]] = deque()
        """Readings of renewals that are under way."""
        self.ended: list[sv.Deposed] = []
        self.ending: list[Process] = []
        """They have ended since their grant was over; nobody has proven it yet."""
        self.records: list[sv.Record] = []
        self.published: list[Table] = []
        self.made: list[Takeover] = []
        self.acknowledged: dict[bytes, tuple[int, dict[int, int]]] = {}
        self.acknowledged_table = b""
        self.epochs = [NOT_HELD] * partitions

    # --------------------------------------------------------------- leader

    def step(self, event: sv.Event) -> None:
        """One event, its effects carried out, the invariants checked."""
        for effect in self.leader.step(event, self.now):
            self._perform(effect)
        self.check()

    def change_leader(
        self,
        *,
        new_life: bool = False,
        carried_out: bool = False,
        knows_deaths: bool = True,
        first: bool = False,
    ) -> None:
        """Another leader begins; the last one is paused, and goes on when it is let.

        Args:
            new_life: the store was restarted, or replaced.
            carried_out: the call under way arrives before that, and its answer not at all yet.
            knows_deaths: wardens have told the new one, too.
            first: it is the first of another `up`.
        """
        former = self.leader
        for call in self.calls:
            if carried_out:
                reply = run(self.store.takeover(call))
                self.unheard.append((former, sv.StoreReplied(call.operation, reply)))
        self.calls.clear()
        self.reads.clear()
        self.ended.clear()
        self.former.append(former)
        life, token = former.life, former.token + 1
        if new_life:
            self.server.restart()
            members = InSyncSet(life + 1, frozenset(self.server.links))
            opening = OpenLife(b"open%d" % token, life, life + 1, token, self.partitions, members)
            reply, life = run(self.store.open_life(opening)), life + 1
        else:
            reply = run(self.store.bid(Bid(b"bid%d" % token, life, token - 1, token)))
        assert reply.status is StoreStatus.OK
        recorded = run(self.store.recorded())
        exited = former.exits if knows_deaths else ()
        learned = Learned.of(recorded, reply.versions, first=first, exited=exited)
        self._acknowledge()
        self.leader = Supervision(
            self.config, partitions=self.partitions, life=life, token=token, learned=learned
        )
        for process in self.alive:
            process.late.extend(m for m in process.inbox if not isinstance(m, Table))
            process.inbox.clear()
            process.outbox.clear()
            process.connected = False

    def former_goes_on(self, leader: Supervision) -> None:
        """A leader that was replaced hears, and does, what it still can."""
        events: list[sv.Event] = [sv.Tick()]
        for entry in [e for e in self.unheard if e[0] is leader]:
            self.unheard.remove(entry)
            events.insert(0, entry[1])
        while events:
            for effect in leader.step(events.pop(0), self.now):
                match effect:
                    case sv.CallStore(call):
                        reply = run(self.store.takeover(call))
                        assert reply.status is not StoreStatus.OK, "a deposed leader's call"
                        events.append(sv.StoreReplied(call.operation, reply))
                    case sv.TellGrant(nonce, message) | sv.AskRelease(nonce, message):
                        self.processes[nonce].late.append(message)
                    case sv.AwaitPublished(operation):
                        events.append(sv.Published(operation))

    def _perform(self, effect: sv.Effect) -> None:  # noqa: C901 - a table
        match effect:
            case sv.CallStore(call):
                assert not self.calls, "one call at a time"
                self.calls.append(call)
            case sv.TellGrant(nonce, grant):
                if not grant.active:
                    self._send(nonce, grant)
                    return
                version, epochs = self.acknowledged[nonce]
                told = {p: e for p, e in enumerate(unpack_epochs(grant.epochs)) if e}
                assert grant.version == version, "told before it is acknowledged"
                assert told.items() <= epochs.items(), "told before it is acknowledged"
                self._send(nonce, grant)
            case sv.ReadRenewals(nonces):
                self.reads.append(nonces)
            case sv.Deposed():
                self.ended.append(effect)
            case sv.AskRelease(nonce, release):
                self._send(nonce, release)
            case sv.TellTable(nonce, table):
                self._send(nonce, table)
            case sv.PublishTable(table):
                assert table.encode() == self.acknowledged_table, "published before acknowledged"
                if self.published and (before := self.published[-1]).version >= table.version:
                    again = bool(self.former) and table.encode() == before.encode()
                    assert again, "only another leader may say again what holds"
                self.published.append(table)
                for nonce in self.processes:
                    self._send(nonce, table)
            case sv.AwaitPublished(operation):
                self.step(sv.Published(operation))
            case sv.StartHandler(id_):
                self.starting.append(id_)
            case sv.Record():
                self.records.append(effect)

    def _send(self, nonce: bytes, message: Any) -> None:
        process = self.processes[nonce]
        if process.connected:
            process.inbox.append(message)

    def read_renewals(self, *, away: bool = False) -> None:
        """The reading under way comes back."""
        nonces = self.reads.popleft()
        if away:
            self.step(sv.StoreAway())
        else:
            self.step(sv.RenewalsRead(run(self.store.renewals(self.leader.life, nonces))))

    def _acknowledge(self) -> None:
        self.acknowledged = {
            nonce: (grant.version, dict(grant.epochs))
            for nonce, grant in self.server.grants.items()
            if grant.active
        }
        self.acknowledged_table = self.server.table

    def tick(self, seconds: float = 0.05) -> None:
        self.now += seconds
        self.step(sv.Tick())

    def answer_store(self, *, carried_out: bool = True, lost: bool = False) -> None:
        """The store call under way comes back; `lost`: its connection broke."""
        call = self.calls.popleft()
        if call not in self.made:
            self.made.append(call)
        if lost:
            self.server.break_connection(carried_out=carried_out)
        reply: TakeoverReply | None = None
        with suppress(StoreUnreachable):
            reply = run(self.store.takeover(call))
        if reply is not None and reply.acknowledged:
            self._acknowledge()
        self.step(sv.StoreReplied(call.operation, reply))

    # ------------------------------------------------------------ processes

    def start(self, id_: str) -> Process:
        """A process of that handler comes up and registers."""
        number = sum(p.id == id_ for p in self.processes.values())
        nonce = f"{id_}.{number}".encode()
        process = self.processes[nonce] = Process(self.server, id_, nonce, self.partitions)
        self.connect(process)
        return process

    def connect(self, process: Process) -> None:
        """It connects, hears who leads, and says what it holds."""
        process.connected = True
        process.token = max(process.token, self.leader.token)
        core = process.core
        self.step(
            sv.Registered(
                Register(
                    process.id,
                    process.nonce,
                    "127.0.0.1",
                    7000,
                    1,
                    "",
                    1.0,
                    None,
                    None,
                    core.grant.life,
                    core.grant.version,
                    core.held_epochs(),
                )
            )
        )

    def cut(self, process: Process) -> None:
        """Its connection breaks; what was on its way is lost."""
        process.connected = False
        process.inbox.clear()
        process.outbox.clear()
        self.step(sv.ConnectionLost(process.nonce))

    def kill(self, process: Process) -> None:
        """It dies; the leader sees a broken connection, and no proof yet."""
        process.alive = False
        self.cut(process)

    def report(self, process: Process) -> None:
        """The proof of its exit."""
        assert not process.alive
        self.step(sv.ProcessExited(process.nonce, process.id, self.now))

    def receive(self, process: Process) -> None:
        """It takes the next message of the leader."""
        self._take(process, process.inbox.popleft())

    def receive_late(self, process: Process) -> None:
        """It takes the next message of a leader that was replaced."""
        self._take(process, process.late.popleft())

    def _take(self, process: Process, message: Grant | Release | Table) -> None:
        if isinstance(message, Grant):
            if message.token >= process.token:
                process.core.on_grant(message, self.now)
        elif isinstance(message, Table):
            process.core.on_table(message, self.now)
        elif message.token >= process.token:
            process.core.on_release(message)
        process.core.settle(self.now)
        process.outbox.extend(process.core.take_messages())
        if process.core.revoked:
            # As the shell does: this process ends, and another one comes under a fresh nonce.
            process.alive = False
            self.cut(process)
            self.ending.append(process)
        self.check()

    def hear(self, process: Process) -> None:
        """The leader takes the next message of the process."""
        message = process.outbox.popleft()
        if isinstance(message, Adopted):
            self.step(sv.GrantAdopted(message.nonce, message.version))
        elif isinstance(message, Released):
            self.step(
                sv.PartitionsReleased(
                    message.nonce, message.token, message.partitions, message.not_held
                )
            )
        elif isinstance(message, Dropped):
            self.step(sv.PartitionsDropped(message.nonce, message.partitions))
        elif isinstance(message, Beat):
            self.step(sv.Beaten(message))

    @property
    def alive(self) -> list[Process]:
        return [p for p in self.processes.values() if p.alive]

    # ---------------------------------------------------------------- whole

    def talk(self) -> bool:
        """Deliver everything that is on its way; whether there was anything."""
        busy = False
        for process in list(self.processes.values()):
            while process.inbox or process.outbox:
                busy = True
                if process.inbox:
                    self.receive(process)
                else:
                    self.hear(process)
        return busy

    def settle(self) -> None:
        """Let everything come to rest; processes that should run are started."""
        for _ in range(500):
            busy = self.talk()
            if self.calls:
                self.answer_store()
            elif self.reads:
                self.read_renewals()
            elif self.starting:
                self.start(self.starting.popleft())
            elif self.ending:
                self.report(self.ending.pop())
            elif not busy:
                if self._is_still:
                    return
                self.tick(1.0)
        raise AssertionError("it never comes to rest")

    @property
    def _is_still(self) -> bool:
        leader = self.leader
        return (
            leader._began is not None
            and not leader._affairs.replacements.due
            and leader._affairs.takeovers.current is None
            and not leader._affairs.waits
            and not leader._affairs.members.on_record()
        )

    def check(self) -> None:
        """What holds at any moment."""
        granted = [p for g in self.server.grants.values() if g.active for p in g.epochs]
        assert len(granted) == len(set(granted)), "a partition in two active grants"
        active = {nonce for nonce, grant in self.server.grants.items() if grant.active}
        serving = [p for process in self.alive if process.nonce in active for p in process.held()]
        assert len(serving) == len(set(serving)), "two processes serve a partition"
        answering = [p for p_ in self.alive if p_.may_answer(self.now) for p in p_.held()]
        assert len(answering) == len(set(answering)), "two processes answer for a partition"
        assert not self.leader.deposed, self.records[-1]
        if self.leader.table is not None:
            for partition, epoch in enumerate(self.leader.table.epochs):
                assert epoch >= self.epochs[partition], "an epoch went back"
                self.epochs[partition] = epoch

    def check_at_rest(self) -> None:
        """What holds once nothing is on its way."""
        table = self.leader.table
        assert table is not None and self.published[-1].version == table.version
        owned = {p.nonce: table.partitions_of(p.nonce) for p in self.alive}
        assert sorted(x for partitions in owned.values() for x in partitions) == list(
            range(self.partitions)
        ), "a partition without a live owner"
        for process in self.alive:
            expected = {p: table.epochs[p] for p in owned[process.nonce]}
            assert process.held() == expected, "the owner does not serve what the table says"
        sizes = [len(partitions) for partitions in owned.values()]
        assert max(sizes) - min(sizes) <= 1, sizes
        assert self.leader.ready


def up(*ids: str, partitions: int = 8) -> Mesh:
    """A mesh of these handlers, at rest."""
    mesh = Mesh(*ids, partitions=partitions)
    for id_ in ids:
        mesh.start(id_)
    mesh.settle()
    mesh.check_at_rest()
    return mesh
