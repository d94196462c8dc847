"""Durability belongs to the entity: what an acknowledgement waits for, and what no class does to another."""

import pytest
from unit.rigs import PARTITIONS, Account, Handler

import mesh
from mesh.core.keyspace import partition_of
from mesh.core.lanes import LANES, LANES_OF
from mesh.core.lease import LeaseTiming
from mesh.core.wire import Status

ASYNC, FSYNCED = LANES.index("async"), LANES.index("fsynced")


@mesh.entity(durability="async")
class Tally:
    """Its writes need not outlive a failover."""

    count: int = 0

    @mesh.command
    def hit(self) -> int:
        self.count += 1
        return self.count

    @mesh.query
    def read(self) -> int:
        return self.count


@mesh.entity(durability="fsynced")
class Ledger:
    """Its writes outlive a power cut."""

    entries: int = 0

    @mesh.command
    def book(self) -> int:
        self.entries += 1
        return self.entries


ENTITIES = (Account, Tally, Ledger)


@pytest.fixture
def leader(leader):
    leader.takeover(dict.fromkeys(range(PARTITIONS), b"h-1"), enroll=[b"h-1"])
    return leader


@pytest.fixture
def handler(server, leader):
    handler = Handler(server, entities=ENTITIES)
    handler.core.on_grant(leader.grant(b"h-1"), handler.now)
    handler.warm_up()
    return handler


def test_an_async_call_is_answered_while_a_replica_confirms_nothing_and_the_others_are_not(
    server, handler
):
    tally, ledger, account = (
        handler.call(method, "k", *arguments)
        for method, *arguments in (("Tally.hit",), ("Ledger.book",), ("Account.deposit", 5))
    )
    server.pause(server.links[0])
    for lane in (0, FSYNCED, ASYNC):
        handler.deliver(handler.send(lane))
    assert tally.status == Status.OK
    assert (ledger.status, account.status) == (None, None)


def test_what_only_the_primary_has_renews_no_lease(server, leader):
    handler = Handler(server, entities=ENTITIES, leased=False)
    handler.core.on_grant(leader.grant(b"h-1"), handler.now)
    handler.warm_up()
    handler.call("Tally.hit", "k")
    assert handler.deliver(handler.send(ASYNC))
    asked = handler.call("Tally.read", "k")
    assert asked.answer is None
    handler.call("Account.deposit", "k", 5)
    assert handler.deliver(handler.send(0))
    assert asked.status == Status.OK


def test_async_traffic_does_not_pass_for_renewals_that_are_under_way(server, leader):
    """However much of it there is, the lease is renewed for its own sake where nothing else is written."""
    handler = Handler(server, entities=ENTITIES, leased=False)
    handler.core.on_grant(leader.grant(b"h-1"), handler.now)
    handler.warm_up()
    timing = LeaseTiming()
    for _ in range(20):
        handler.now += timing.renew_s / 10
        handler.call("Tally.hit", "k")
        assert handler.deliver(handler.send(ASYNC))
        assert handler.core.renewal_is_due(handler.now)


@pytest.mark.parametrize(("method", "lane"), [("Tally.hit", ASYNC), ("Ledger.book", FSYNCED)])
def test_a_retry_gets_its_recorded_reply_from_the_next_owner_in_every_class(
    server, leader, handler, method, lane
):
    first = handler.call(method, "k", session=3, counter=9)
    assert handler.deliver(handler.send(lane))
    keyed = handler.call(method, "k")
    assert handler.deliver(handler.send(lane))
    leader.takeover(dict.fromkeys(range(PARTITIONS), b"h-2"), enroll=[b"h-2"], revoke=[b"h-1"])
    other = Handler(server, b"h-2", entities=ENTITIES)
    other.core.on_grant(leader.grant(b"h-2"), other.now)
    again = other.call(method, "k", session=3, counter=9)
    other.load()
    assert again.answer == first.answer
    assert keyed.answer.value == 2
    other.warm_up()
    assert other.call(method, "k", session=3, counter=9).answer == first.answer


def test_a_class_deletes_no_other_class_records(server, handler):
    """Lanes may arrive in any order: a watermark of one must not stand for the records of another."""
    handler.call("Account.deposit", "k", 5, session=3, counter=1)
    assert handler.deliver(handler.send(0))
    for counter in range(2, 80):
        handler.call("Tally.hit", "k", session=3, counter=counter, lowest=counter)
        assert handler.deliver(handler.send(ASYNC))
    again = handler.call("Account.deposit", "k", 5, session=3, counter=1)
    assert again.answer.value == 5
    names = [name for held in server.partitions.values() for name in held]
    assert sum(name.startswith(b"ao") for name in names) < 78
    assert sum(name.startswith(b"o") for name in names) == 1


def test_a_session_that_ends_is_forgotten_in_every_class(server, handler):
    for method, *arguments in (("Tally.hit",), ("Ledger.book",), ("Account.deposit", 5)):
        handler.call(method, "k", *arguments, session=3)
    for lane in (0, FSYNCED, ASYNC):
        assert handler.deliver(handler.send(lane))
    handler.core.on_goodbye(3)
    for lane in (0, FSYNCED, ASYNC):
        assert handler.deliver(handler.send(lane))
    names = [name for held in server.partitions.values() for name in held]
    assert all(name.startswith(b"s") for name in names), names


def test_no_class_is_refused_for_what_the_store_refuses_another(server, handler):
    """While replicated batches are refused for want of memory, one async call at a time still tries."""
    handler.call("Account.deposit", "k", 5)
    batch = handler.send(0)
    handler.core.send(batch, handler.now)
    handler.core.on_refused(batch, "out of memory", handler.now, transient=False)
    assert handler.call("Account.deposit", "k", 5).status == Status.OVERLOADED
    assert handler.call("Tally.hit", "k").answer is None
    assert handler.core.has_queued_of("async")


def test_every_class_has_a_lane():
    assert set(LANES_OF) == {"replicated", "fsynced", "async"}
    assert sorted(lane for lanes in LANES_OF.values() for lane in lanes) == [0, 1, 2, 3]


def test_in_another_life_async_keys_are_as_the_new_primary_has_them(server, leader, handler):
    """It was a replica, and lacks what only the old primary had."""
    handler.call("Tally.hit", "k")
    assert handler.deliver(handler.send(ASYNC))
    before = {partition: dict(held) for partition, held in server.partitions.items()}
    handler.call("Tally.hit", "k")
    assert handler.deliver(handler.send(ASYNC))
    server.partitions = before
    leader.open_life()
    handler.core.on_grant(leader.grant(b"h-1"), handler.now)
    asked = handler.call("Tally.read", "k")
    handler.load()
    assert asked.answer.value == 1


def test_what_is_on_its_way_is_not_written_into_memory_that_is_over(server, leader, handler):
    """The key is read anew in the next life; the batch would change it behind the back of its owner."""
    handler.call("Tally.hit", "k")
    assert handler.deliver(handler.send(ASYNC))
    with_async, other = ("k", next(k for k in "abcdefgh" if at(k) != at("k")))
    mine, others = (handler.call("Account.deposit", key, 5) for key in (with_async, other))
    batch = handler.send(0)
    handler.core.send(batch, handler.now)
    leader.open_life()
    handler.core.on_grant(leader.grant(b"h-1"), handler.now)
    assert handler.deliver(batch)
    assert (mine.status, others.status) == (Status.NOT_READY, Status.OK)
    again = handler.call("Account.deposit", with_async, 7)
    handler.flush()
    assert again.answer.value == 7


def at(key):
    return partition_of(key.encode(), PARTITIONS)
