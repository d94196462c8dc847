"""A handler is taken for dead and its partitions go to another: what it still had under way."""

import msgpack
import pytest
from scenarios.world import World
from unit.rigs import KEYS

from mesh.core.records import StoreStatus
from mesh.errors import DeadlineExceeded, OutcomeUnknown

K = KEYS[0]


@pytest.fixture
def world():
    return World()


def result(ended):
    [one] = ended
    assert one.error is None, one.error
    return msgpack.unpackb(one.payload)


def test_a_delayed_packet_of_the_dead_owner_is_refused(world):
    """One writer: pidfd says exited, yet its bytes are still in the store's socket buffer."""
    _, ended = world.call("KV.put", K, "from the dead")
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.cut(world.o1)
    world.take_over()
    world.tell(world.o2)
    assert world.value(world.o2, K) is None
    grant = world.o1.core.grant
    reply = world.server.commit(packet.lane, grant, packet.seq, 1, packet.entries)
    assert reply.status is StoreStatus.REVOKED
    assert not world.server.partitions.get(0)
    world.publish()
    world.settle(world.o2)
    assert result(ended) is None
    assert world.value(world.o2, K) == "from the dead", "carried out once, by the new owner"


def test_a_delayed_packet_of_an_owner_that_only_lost_the_partition_is_refused_too(world):
    """The same, for a process that goes on: the epoch in the batch is not the grant's any more."""
    _, ended = world.call("KV.incr", K)
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.take_over(revoke=False)
    world.tell(world.o2)
    world.o2.call("KV.put", K, 100, session=99)
    world.o2.flush()
    world.o1.deliver(packet)
    assert world.value(world.o2, K) == 100
    world.publish()
    world.settle(world.o1, world.o2)
    assert result(ended) == 101


def test_a_call_that_was_carried_out_before_the_takeover_has_one_effect(world):
    """F3(a): executed, the connection breaks, the partition moves, the client asks again."""
    _, ended = world.call("KV.incr", K)
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.server.break_connection(carried_out=True)
    assert not world.o1.deliver(packet), "it never hears that it was carried out"
    world.take_over(revoke=False)
    world.tell(world.o2)
    assert world.o1.deliver(packet), "refused: the epoch is another's"
    world.publish()
    world.settle(world.o1, world.o2)
    assert result(ended) == 1
    assert world.value(world.o2, K) == 1


def test_a_call_whose_handler_died_after_the_commit_gets_the_recorded_reply(world):
    _, ended = world.call("KV.incr", K)
    world.arrive(world.o1)
    world.o1.flush()
    world.cut(world.o1)
    world.take_over()
    world.tell(world.o2)
    world.publish()
    world.settle(world.o2)
    assert result(ended) == 1
    assert world.value(world.o2, K) == 1


def test_a_copy_that_reaches_the_new_owner_late_has_no_second_effect(world):
    """F8(b): the first attempt sits in a buffer while the second is carried out and settled."""
    _, ended = world.call("KV.incr", K)
    late = world.links[b"o2"].requests
    late.append(world.links[b"o1"].requests[0])
    world.arrive(world.o1)
    world.o1.flush()
    world.answer(world.o1)
    assert result(ended) == 1
    world.take_over()
    world.tell(world.o2)
    world.arrive(world.o2)
    world.o2.flush()
    assert world.value(world.o2, K) == 1


def test_the_new_owner_reads_only_after_its_grant(world):
    """F6(a): read before it, the old owner's last write would be lost."""
    world.publish()
    _, ended = world.call("KV.incr", K)
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    early = world.o2.call("KV.incr", K, session=99, epoch=world.leader.owners[0][1] + 1)
    assert world.o2.load() == 0 and world.o2.core.next_scan() is None
    world.o1.deliver(packet)
    world.answer(world.o1)
    assert result(ended) == 1
    world.take_over(revoke=False)
    world.tell(world.o2)
    world.o2.flush()
    assert early.answer.value == 2


def test_a_try_that_may_run_is_never_called_not_executed_because_a_later_one_was_refused(world):
    """F8(a)"""
    call, ended = world.call("KV.incr", K)
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.cut(world.o1)
    world.take_over()
    world.publish()
    assert world.links[b"o2"].requests, "the second try, to an owner that was not told yet"
    world.arrive(world.o2)
    world.o2.core.on_timer(world.now + 1)
    world.answer(world.o2)
    world.client.on_timer(call.deadline)
    [end] = ended
    assert type(end.error) is OutcomeUnknown and end.error.executed is None
    assert packet.entries


def test_a_call_that_was_refused_everywhere_was_not_executed(world):
    call, ended = world.call("KV.incr", K)
    world.o1.core.on_release(world.leader.release(*range(4)))
    world.o1.core.settle(world.now)
    world.arrive(world.o1)
    world.o1.core.on_timer(world.now + 6)
    world.answer(world.o1)
    world.client.on_timer(call.deadline)
    [end] = ended
    assert type(end.error) is DeadlineExceeded and end.error.executed is False
    assert not world.server.partitions


def test_a_planned_move_under_calls_loses_and_repeats_none(world):
    ends = [world.call("KV.incr", K)[1] for _ in range(6)]
    for _ in range(3):
        world.arrive(world.o1)
    world.o1.core.on_release(world.leader.release(*range(4)))
    for _ in range(3):
        world.arrive(world.o1)
    world.o1.flush()
    world.answer(world.o1)
    world.take_over(revoke=False)
    world.tell(world.o2)
    world.publish(world.o1, world.o2)
    world.settle(world.o1, world.o2)
    assert [result(ended) for ended in ends] == [1, 2, 3, 4, 5, 6]
    assert world.value(world.o2, K) == 6
