"""The store changes its life, and epochs end: what of the past may still count."""

import pytest
from scenarios.world import World
from unit.rigs import KEYS, PARTITIONS

from mesh.core.messages import Released
from mesh.core.wire import Status

K = KEYS[0]


@pytest.fixture
def world():
    return World()


def new_life(world, owner):
    """The primary was replaced; everything goes to one owner."""
    world.server.restart()
    world.leader.open_life()
    everything = dict.fromkeys(range(PARTITIONS), owner.nonce)
    world.leader.takeover(everything, enroll=[b"o1", b"o2"])


def test_a_process_granted_again_in_a_later_life_does_not_apply_its_old_batch(world):
    """M1: it slept through a life in which another owner's writes were acknowledged."""
    caller = world.o1.call("KV.put", K, "old", session=99)
    old = world.batch(world.o1)
    new_life(world, world.o2)
    assert not world.o1.deliver(old), "closed: it keeps everything and waits"
    world.tell(world.o2)
    put = world.o2.call("KV.put", K, "new", session=98)
    world.o2.flush()
    assert put.status == Status.OK
    new_life(world, world.o1)
    world.tell(world.o1)
    assert world.o1.deliver(old)
    assert caller.status in (Status.NOT_READY, Status.MAYBE)
    assert world.value(world.o1, K) == "new"


def test_a_released_partition_is_not_taken_up_again_under_the_same_epoch(world):
    """M2: the leader's periodic tell crosses the release; two owners would answer queries."""
    world.o1.call("KV.put", K, "a", session=99)
    world.o1.flush()
    world.o1.messages()
    world.o1.core.on_release(world.leader.release(0))
    world.o1.core.settle(world.now)
    world.tell(world.o1)
    [released] = [m for m in world.o1.messages() if isinstance(m, Released)]
    assert released.partitions == [(0, world.leader.owners[0][1])]
    world.leader.takeover({0: b"o2"})
    world.tell(world.o2)
    assert world.value(world.o2, K) == "a"
    assert world.o1.call("KV.get", K, session=99).answer is None
    world.publish(world.o1)
    assert world.o1.call("KV.get", K, session=99).status == Status.REDIRECT


def test_a_store_that_restarted_takes_nothing_until_a_life_is_opened_on_it(world):
    """F4: its record still names the process that it was."""
    caller = world.o1.call("KV.put", K, "a", session=99)
    packet = world.batch(world.o1)
    world.server.restart()
    assert not world.o1.deliver(packet) and caller.answer is None
    assert not world.server.partitions
    before = world.leader.number
    world.leader.takeover({1: b"o2"})
    assert world.leader.number == before + 1 and world.server.operation != b"1.%d" % (before + 1)


def test_a_member_that_is_behind_is_not_made_up_for_by_another_replica(world):
    """F2: two replicas are counted, one of them is no member."""
    member, _ = world.server.links
    caller = world.o1.call("KV.put", K, "a", session=99)
    packet = world.batch(world.o1)
    world.server.pause(member)
    world.server.links.append("memory:stranger")
    assert not world.o1.deliver(packet) and caller.answer is None
    world.server.resume(member)
    assert world.o1.deliver(packet)
    assert caller.status == Status.OK
