"""The in-memory store and the real one answer alike, whatever they are asked."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from mesh.core.epochs import epoch_of
from mesh.core.records import (
    Bid,
    ChangeSet,
    Entry,
    GrantRef,
    Move,
    Moves,
    OpenLife,
    SetChange,
    Takeover,
    Want,
)
from mesh.core.syncset import InSyncSet
from mesh.store.api import Store

PARTITIONS = 4
SET = InSyncSet(1, frozenset(), durability="process")
Ask = Callable[[Store], Awaitable[object]]


class Script:
    """Calls that are plausible and often wrong: few nonces, epochs and numbers, all mixed up."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.life = self.token = 0
        self.set_version = 0
        self.operations = 0

    def near(self, number: int) -> int:
        return max(0, number + self.dice.choice([0] * 8 + [-1, 1]))

    def nonce(self) -> bytes:
        return b"nonce-%d" % self.dice.randrange(5)

    def epoch(self) -> int:
        return self.dice.choice([0, *(epoch_of(max(1, self.life), n) for n in (1, 1, 2, 3))])

    def partition(self) -> int:
        return self.dice.choice([*range(PARTITIONS)] * 4 + [PARTITIONS])

    def grant(self) -> GrantRef:
        return GrantRef(self.nonce(), self.near(self.life), self.dice.randrange(1, 5))

    def operation(self) -> bytes:
        if self.dice.random() < 0.8:
            self.operations += 1
        return b"op-%d" % self.operations

    def opening(self) -> Ask:
        call = OpenLife(
            self.operation(),
            self.near(self.life),
            self.life + self.dice.choice([1, 1, 1, 0, 2]),
            self.token + self.dice.choice([1, 1, 1, 0]),
            PARTITIONS + self.dice.choice([0] * 9 + [1]),
            SET,
        )
        return lambda store: store.open_life(call)

    def change(self) -> SetChange:
        # A member that is not there would have each write behind it wait for its time-out.
        marked = self.dice.sample(["a:1", "b:2", "c:3"], self.dice.randrange(3))
        # The two stores' clocks differ: 0 is too long ago for both, and what lies ahead is recent.
        asked_at_us = self.dice.choice([None, 1, 2**51, 2**51])
        version = self.near(self.set_version + 1)
        changed = InSyncSet(version, frozenset(), frozenset(marked), "process")
        return SetChange(changed, asked_at_us, 1_000_000)

    def bid(self) -> Ask:
        token = self.near(self.token)
        new_token = token + self.dice.choice([1, 1, 1, 0])
        change = self.change() if self.dice.random() < 0.3 else None
        call = Bid(self.operation(), self.near(self.life), token, new_token, change)
        return lambda store: store.bid(call)

    def change_set(self) -> Ask:
        life, token = self.near(self.life), self.near(self.token)
        call = ChangeSet(self.operation(), life, token, self.change())
        return lambda store: store.change_set(call)

    def takeover(self) -> Ask:
        moves = tuple(
            Move(
                self.partition(),
                self.dice.choice([None, None, self.nonce()]),
                self.epoch(),
                self.nonce(),
                self.epoch(),
            )
            for _ in range(self.dice.choice([0, 1, 1, 1, 2]))
        )
        call = Takeover(
            self.operation(),
            self.near(self.life),
            self.near(self.token),
            ((self.nonce(), "h"),) if self.dice.random() < 0.4 else (),
            (self.nonce(),) if self.dice.random() < 0.15 else (),
            Moves.of(moves),
            b"table-%d" % self.operations,
        )
        return lambda store: store.takeover(call)

    def commit(self) -> Ask:
        lane, grant, seq, renewal = (
            self.dice.randrange(2),
            self.grant(),
            self.dice.randrange(1, 6),
            self.dice.randrange(2**40),
        )
        partitions = self.dice.sample(range(PARTITIONS), self.dice.randrange(PARTITIONS))
        entries = [Entry(p, self.epoch(), {b"f": b"%d" % renewal}, [b"g"]) for p in partitions]
        return lambda store: store.commit(lane, grant, seq, renewal, entries)

    def load(self) -> Ask:
        grant = self.grant()
        wants = [Want(p, self.epoch(), (b"f", b"g")) for p in range(PARTITIONS)]
        return lambda store: store.load(grant, wants)

    def scan(self) -> Ask:
        grant, partition, epoch = self.grant(), self.partition(), self.epoch()
        return lambda store: store.scan(grant, partition, epoch, 0)

    def renewals(self) -> Ask:
        life, nonces = self.near(self.life), [self.nonce()]
        return lambda store: store.renewals(life, nonces)

    def next(self) -> Ask:
        kinds = [self.opening, self.takeover, self.commit, self.load, self.scan, self.renewals]
        kinds += [self.bid, self.change_set]
        (kind,) = self.dice.choices(kinds, [1, 10, 10, 4, 2, 2, 1, 2])
        return kind()


@pytest.mark.parametrize("seed", range(8))
async def test_both_stores_answer_alike(in_memory, on_redis, seed):
    script, statuses = Script(seed), set()
    store = on_redis.another(wait_timeout_s=1.0)  # the other one knows no time
    for step in range(400):
        ask = script.next()
        expected, found = await ask(in_memory.store), await ask(store)
        assert found == expected, f"step {step}"
        statuses.add(getattr(found, "status", None))
        expected, found = [await s.recorded() for s in (in_memory.store, store)]
        assert (found.table, found.grants) == (expected.table, expected.grants), f"step {step}"
        if found.life:
            script.life, script.token = found.life.number, found.life.token
            script.set_version = found.life.sync_set.version
            assert found.life.sync_set == expected.life.sync_set, f"step {step}"
    assert len(statuses) >= 5  # it is a plausible script
