"""The cores with a store in memory round them, driven step by step: no sockets, no loop, no clock."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

import msgpack

import mesh
from mesh.codec import unpack
from mesh.core.epochs import NOT_HELD, next_epoch, pack_epochs
from mesh.core.handling import HandlerCore, HandlingConfig
from mesh.core.keyspace import partition_of
from mesh.core.lanes import LANES
from mesh.core.messages import Grant, Message, Release
from mesh.core.outbox import Batch
from mesh.core.records import Move, Moves, OpenLife, Takeover, TakeoverReply
from mesh.core.syncset import InSyncSet
from mesh.core.table import HandlerRow, Table, TableVersion
from mesh.core.wire import Redirect, Request, Status, unpack_reply
from mesh.entities import Registry
from mesh.store.api import StoreUnreachable
from mesh.store.memory import MemoryServer, MemoryStore

T = TypeVar("T")
PARTITIONS = 4


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, as those of the store in memory are."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited for something")


@mesh.entity
class Account:
    """What the tests call; `runs` counts how often its commands were run, wherever."""

    balance: int = 0
    history: list[str] = []  # noqa: RUF012 - defaults are copied for each key

    @mesh.command
    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    @mesh.command
    def withdraw(self, amount: int) -> int:
        self.history.append("withdrawal")
        self.balance -= amount
        if self.balance < 0:
            raise ValueError("not covered", self.balance)
        return self.balance

    @mesh.query
    def read(self) -> int:
        return self.balance

    @mesh.query
    def peek_and_poke(self) -> int:
        self.balance += 1
        return self.balance


class Answer(NamedTuple):
    """A reply, decoded."""

    status: Status
    value: Any


class Caller:
    """One request's connection: what came back over it.

    Attributes:
        taken_up: whether it was said that the call was taken up, and had left for the kernel.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.taken_up: bool | None = None

    def flush(self) -> None:
        self.taken_up = self.taken_up is not None

    def send(self, frame: bytes) -> None:
        _, status, payload = unpack_reply(frame[8:])
        if status == Status.TAKEN_UP:
            assert (self.answers, self.taken_up) == ([], None)
            self.taken_up = False
            return
        if status == Status.REDIRECT:
            value: Any = Redirect.decode(payload)
        else:
            value = unpack(payload)
            if status == Status.ENTITY_ERROR:
                value[2] = unpack(value[2])
        self.answers.append(Answer(Status(status), value))

    @property
    def answer(self) -> Answer | None:
        """The one answer, None so far; two are a mistake."""
        assert len(self.answers) <= 1, self.answers
        return self.answers[0] if self.answers else None

    @property
    def status(self) -> Status | None:
        return self.answer.status if self.answer else None


def row(nonce: bytes) -> HandlerRow:
    """The handler process of that nonce, as tables name it."""
    return HandlerRow(nonce.decode(), nonce, "127.0.0.1", 7000 + nonce[-1])


class Leader:
    """Makes the leader's calls by hand, one takeover at a time, and knows what it may tell."""

    def __init__(self, server: MemoryServer, partitions: int = PARTITIONS) -> None:
        self.server = server
        self.store = MemoryStore(server)
        self.partitions = partitions
        self.life = self.token = self.number = 0
        self.owners: dict[int, tuple[bytes, int]] = {}
        self.versions: dict[bytes, int] = {}
        self.enrolled: dict[bytes, None] = {}

    def open_life(self) -> None:
        """As after a promotion: grants go on, each under its next version."""
        members = InSyncSet(self.life + 1, frozenset(self.server.links))
        token = self.token + 1
        call = OpenLife(b"o%d" % token, self.life, self.life + 1, token, self.partitions, members)
        reply = run(self.store.open_life(call))
        assert reply.acknowledged
        self.life, self.token = self.life + 1, token
        self.versions |= reply.versions

    def takeover(
        self,
        moves: dict[int, bytes],
        *,
        enroll: Iterable[bytes] = (),
        revoke: Iterable[bytes] = (),
    ) -> TakeoverReply:
        """Give partitions under new epochs, in one call."""
        made, held = [], dict(self.owners)
        for partition, nonce in moves.items():
            giver, before = self.owners.get(partition, (None, NOT_HELD))
            epoch = next_epoch(before, self.life)
            known = giver if giver in self.enrolled else None
            made.append(Move(partition, known, before if known else NOT_HELD, nonce, epoch))
            held[partition] = nonce, epoch
        self.number += 1
        new = tuple((nonce, nonce.decode()) for nonce in enroll if nonce not in self.enrolled)
        name = b"%d.%d" % (self.token, self.number)
        call = Takeover(name, self.life, self.token, new, tuple(revoke), Moves.of(made), b"table")
        reply = run(self.store.takeover(call))
        self.versions |= reply.versions
        self.enrolled.update(dict.fromkeys(enroll))
        for nonce in revoke:
            self.enrolled.pop(nonce, None)
        self.owners = held
        return reply

    def grant(self, nonce: bytes) -> Grant:
        """What that process is to be told."""
        epochs = [NOT_HELD] * self.partitions
        for partition, (owner, epoch) in self.owners.items():
            if owner == nonce:
                epochs[partition] = epoch
        active = nonce in self.enrolled
        packed = pack_epochs(epochs)
        return Grant(self.token, nonce, self.life, self.versions.get(nonce, 0), active, packed)

    def release(self, *partitions: int) -> Release:
        """What their owner is to be asked."""
        return Release(self.token, [(p, self.owners[p][1]) for p in partitions])

    def table(self) -> Table:
        """Who owns what; each partition needs an owner."""
        nonces = list(dict.fromkeys(nonce for nonce, _ in self.owners.values()))
        owned = [self.owners[p] for p in range(self.partitions)]
        return Table(
            TableVersion(self.life, self.token, self.number),
            [row(nonce) for nonce in nonces],
            [nonces.index(nonce) for nonce, _ in owned],
            [epoch for _, epoch in owned],
        )


def lease_for_good(core: HandlerCore) -> HandlerCore:
    """Its lease never runs out, renewed or not."""
    core.home.lease.sent(0, math.inf)
    core.home.lease.acknowledged(0)
    return core


class Handler:
    """A HandlerCore with its access to the store; each step of the shell is a method.

    Args:
        leased: its lease never runs out, renewed or not.
        entities: that it runs.
    """

    def __init__(
        self,
        server: MemoryServer,
        nonce: bytes = b"h-1",
        config: HandlingConfig | None = None,
        partitions: int = PARTITIONS,
        *,
        leased: bool = True,
        entities: Iterable[type] = (Account,),
    ) -> None:
        self.core = HandlerCore(nonce, partitions, Registry(entities), config)
        self.nonce = nonce
        self.store = MemoryStore(server)
        self.now = 100.0
        self.counter = 0
        self.core.home.now = lambda: self.now
        if leased:
            lease_for_good(self.core)

    def call(self, method: str, key: str, *args: Any, **header: Any) -> Caller:
        """A client's request; header fields by name, ids counted up by themselves."""
        self.counter += 1
        payload = msgpack.packb([method, key.encode(), list(args)])
        partition = partition_of(key.encode(), self.core.partitions)
        request = Request(7, self.counter, 1, partition, 0, 10_000, 0, 0, 0, payload)
        caller = Caller()
        self.core.on_request(caller, request._replace(**header), self.now)
        return caller

    def load(self) -> int:
        """Read from the store what calls wait for; how many reads that was."""
        loads = self.core.take_wants()
        if loads:
            reply = run(self.store.load(self.core.grant, [load.want for load in loads]))
            self.core.on_load(loads, reply, self.now)
        return len(loads)

    def send(self, lane: int = 0) -> Batch | None:
        """Take the lane's next batch without sending it."""
        return self.core.next_batch(lane)

    def deliver(self, batch: Batch) -> bool:
        """Commit a batch, as often as it is given; True once it is finished."""
        renewal = self.core.send(batch, self.now)
        try:
            reply = self.store.commit_at_once(
                batch.lane, self.core.grant, batch.seq, renewal, batch.entries
            )
        except StoreUnreachable as error:
            self.core.on_failed(batch, unsent=error.executed is False)
            return False
        return self.core.on_commit(batch, reply, self.now)

    def catch_up(self) -> list[tuple[int, int]]:
        """Send what comes first in a new life; lanes and numbers of what was written again."""
        sent = []
        while self.core.comes_first:
            batches = [b for lane in range(len(LANES)) if (b := self.core.next_first(lane))]
            assert batches, "something comes first, and no lane has it"
            for batch in batches:
                assert self.deliver(batch)
                if batch.entries:
                    sent.append((batch.lane, batch.seq))
        return sent

    def flush(self) -> None:
        """Load and commit until nothing is left to do."""
        self.catch_up()
        for _ in range(1000):
            loaded = self.load()
            batch = self.send()
            if batch is not None:
                assert self.deliver(batch)
            self.core.settle(self.now)
            if batch is None and not loaded:
                return
        raise AssertionError("it never comes to rest")

    def warm_up(self) -> None:
        """Scan everything there is to scan."""
        while (tenure := self.core.next_scan()) is not None:
            reply = run(
                self.store.scan(self.core.grant, tenure.partition, tenure.epoch, tenure.cursor)
            )
            self.core.on_scan(tenure, reply, self.now)

    def messages(self) -> list[Message]:
        return self.core.take_messages()


def key_in(partition: int, partitions: int = PARTITIONS, nth: int = 0) -> str:
    """A key of that partition."""
    found = (
        k
        for k in map("k{}".format, range(100_000))
        if partition_of(k.encode(), partitions) == partition
    )
    for _ in range(nth):
        next(found)
    return next(found)


KEYS = [key_in(p) for p in range(PARTITIONS)]
"""One key for each partition."""
