"""Batches that reach the store late, twice or out of order (F5)."""

import pytest
from scenarios.world import World
from unit.rigs import KEYS

from mesh.core.records import StoreStatus
from mesh.core.wire import Status

K = KEYS[0]


@pytest.fixture
def world():
    world = World()
    world.o1.warm_up()
    return world


def put(world, value):
    """A command whose batch is ready to be sent."""
    caller = world.o1.call("KV.put", K, value, session=99)
    return caller, world.batch(world.o1)


def reaches_the_store(world, batch):
    """The bytes of a batch, wherever they were all the time."""
    store, grant = world.o1.store, world.o1.core.grant
    return store.commit_at_once(batch.lane, grant, batch.seq, 1, batch.entries)


def test_old_bytes_of_a_batch_that_was_sent_again_do_not_undo_a_later_one(world):
    _, first = put(world, "first")
    world.server.break_connection(carried_out=False)
    assert not world.o1.deliver(first), "its bytes are still in the old connection's buffer"
    assert world.o1.deliver(first)
    caller, second = put(world, "second")
    assert world.o1.deliver(second) and caller.status == Status.OK
    late = reaches_the_store(world, first)
    assert late.duplicate
    world.take_over()
    world.tell(world.o2)
    assert world.value(world.o2, K) == "second"


def test_a_batch_whose_predecessor_never_arrived_is_not_applied(world):
    """After the store went back in time: what is missing in between cannot be made up for."""
    _, first = put(world, "first")
    world.o1.deliver(first)
    caller, second = put(world, "second")
    world.server.grants[b"o1"].seqs[second.lane] = 0
    world.server.partitions.clear()
    assert reaches_the_store(world, second).status is StoreStatus.GAP
    assert not world.server.partitions
    assert world.o1.deliver(second) and world.o1.core.revoked
    assert caller.status in (Status.NOT_READY, Status.MAYBE)


def test_a_batch_sent_twice_is_applied_once_and_its_second_answer_counts(world):
    caller, batch = put(world, "a")
    world.server.break_connection(carried_out=True)
    assert not world.o1.deliver(batch) and caller.answer is None
    assert reaches_the_store(world, batch).duplicate
    assert world.o1.deliver(batch) and caller.status == Status.OK
