"""A leader's brain, real handler brains and a store in memory; every message is delivered by hand.

What the leader sends waits in a process's `inbox`, what a process sends in its `outbox`; a broken connection
loses both. A store call waits until `answer_store` decides its fate. After each step `check` holds the mesh
against the invariants of the design.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from unit.rigs import Handler, run

from mesh.core import signals as sv
from mesh.core.epochs import NOT_HELD, unpack_epochs
from mesh.core.members import SupervisionConfig
from mesh.core.messages import Adopted, Beat, Dropped, Grant, Message, Register, Release, Released
from mesh.core.records import OpenLife, Takeover, TakeoverReply
from mesh.core.supervision import Supervision
from mesh.core.syncset import InSyncSet
from mesh.core.table import NO_TABLE, Table
from mesh.store.api import StoreUnreachable
from mesh.store.memory import MemoryServer, MemoryStore


class Process(Handler):
    """A handler process as the leader meets it."""

    def __init__(self, server: MemoryServer, id_: str, nonce: bytes, partitions: int) -> None:
        super().__init__(server, nonce, partitions=partitions)
        self.id = id_
        self.alive = True
        self.connected = False
        self.inbox: deque[Grant | Release | Table] = deque()
        self.outbox: deque[Message] = deque()

    def __repr__(self) -> str:
        return f"Process({self.nonce.decode()}, {'alive' if self.alive else 'dead'})"

    def held(self) -> dict[int, int]:
        """What it serves: partition → epoch."""
        epochs = unpack_epochs(self.core.held_epochs())
        return {p: epoch for p, epoch in enumerate(epochs) if epoch != NOT_HELD}


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
        config = SupervisionConfig(ids)
        self.leader = Supervision(config, partitions=partitions, life=1, token=1)
        self.processes: dict[bytes, Process] = {}
        self.calls: deque[Takeover] = deque()
        self.starting: deque[str] = deque()
        self.reads: deque[tuple[bytes, ...]] = deque()
        """Readings of renewals that are under way."""
        self.ended: list[sv.LifeClosed | sv.Deposed] = []
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

    def _perform(self, effect: sv.Effect) -> None:
        match effect:
            case sv.CallStore(call):
                assert not self.calls, "one call at a time"
                self.calls.append(call)
            case sv.TellGrant(nonce, grant):
                version, epochs = self.acknowledged[nonce]
                told = {p: e for p, e in enumerate(unpack_epochs(grant.epochs)) if e}
                assert grant.version == version, "told before it is acknowledged"
                assert told.items() <= epochs.items(), "told before it is acknowledged"
                self._send(nonce, grant)
            case sv.ReadRenewals(nonces):
                self.reads.append(nonces)
            case sv.LifeClosed() | sv.Deposed():
                self.ended.append(effect)
            case sv.AskRelease(nonce, release):
                self._send(nonce, release)
            case sv.TellTable(nonce, table):
                self._send(nonce, table)
            case sv.PublishTable(table):
                assert table.encode() == self.acknowledged_table, "published before acknowledged"
                before = self.published[-1].version if self.published else NO_TABLE
                assert table.version > before
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
            self.acknowledged = {
                nonce: (grant.version, dict(grant.epochs))
                for nonce, grant in self.server.grants.items()
                if grant.active
            }
            self.acknowledged_table = call.table
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
        """It connects and says what it holds."""
        process.connected = True
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
        message = process.inbox.popleft()
        if isinstance(message, Grant):
            process.core.on_grant(message, self.now)
        elif isinstance(message, Table):
            process.core.on_table(message, self.now)
        else:
            process.core.on_release(message)
        process.core.settle(self.now)
        process.outbox.extend(process.core.take_messages())
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
            elif self.starting:
                self.start(self.starting.popleft())
            elif not busy:
                if not self.leader._replacements.due and self.leader._takeovers.current is None:
                    return
                self.tick(1.0)
        raise AssertionError("it never comes to rest")

    def check(self) -> None:
        """What holds at any moment."""
        granted = [p for g in self.server.grants.values() if g.active for p in g.epochs]
        assert len(granted) == len(set(granted)), "a partition in two active grants"
        serving = [p for process in self.alive for p in process.held()]
        assert len(serving) == len(set(serving)), "two processes serve a partition"
        assert not self.leader.deposed, self.records[-1]
        if self.leader.table is not None:
            for partition, epoch in enumerate(self.leader.table.epochs):
                assert epoch >= self.epochs[partition], "an epoch went back"
                self.epochs[partition] = epoch

    def check_at_rest(self) -> None:
        """What holds once nothing is on its way."""
        table = self.leader.table
        assert table is not None and self.published[-1] is table
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
