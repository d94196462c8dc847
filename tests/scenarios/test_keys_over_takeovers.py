"""A caller's key, a handler that dies, clients that come back late: one effect, the same told to everyone."""

from typing import Any

import msgpack
import pytest
from scenarios.world import World
from unit.rigs import KEYS, PARTITIONS, Caller, Handler

from mesh.codec import PLAIN_CODEC
from mesh.core.keyspace import partition_of
from mesh.core.payload import Meta, pack_call
from mesh.core.wire import Status, unpack_request
from mesh.errors import IdempotencyConflict, OutcomeUnknown

K = KEYS[0]
DAY = 86_400


@pytest.fixture
def world():
    return World()


def begin(world: World, key: str) -> tuple[Any, list[Any]]:
    """The world's client increments under that key."""
    ended: list[Any] = []
    payload = written(key)
    partition = partition_of(K.encode(), PARTITIONS)
    call = world.client.call(partition, payload, 10.0, world.now, ended.append, idempotency_key=key)
    return call, ended


def written(key: str, *, asks: bool = False) -> bytes:
    args = [] if asks else [1]
    meta = Meta(key, asks=asks).encode()
    return pack_call(PLAIN_CODEC, "KV.incr", K.encode(), args, {}, meta)


def elsewhere(handler: Handler, key: str, *, asks: bool = False) -> Caller:
    """Another client does the same, or asks how it ended."""
    caller = handler.call("KV.incr", K, payload=written(key, asks=asks), session=98)
    handler.flush()
    return caller


def value(ended: list[Any]) -> Any:
    [one] = ended
    assert one.error is None, one.error
    return msgpack.unpackb(one.payload)


def test_a_retry_from_another_client_after_the_handler_died_gets_the_recorded_reply(world):
    begin(world, "order-17")
    world.arrive(world.o1)
    world.o1.flush()  # committed, and nobody hears of it
    world.cut(world.o1)
    world.take_over()
    world.tell(world.o2)
    assert elsewhere(world.o2, "order-17").answer == (Status.OK, 1)
    assert world.value(world.o2, K) == 1


def test_both_clients_get_the_one_reply_when_the_first_ones_handler_died_under_it(world):
    _, ended = begin(world, "order-17")
    world.arrive(world.o1)
    world.batch(world.o1)  # and it dies before it is sent
    world.cut(world.o1)
    world.take_over()
    world.tell(world.o2)
    assert elsewhere(world.o2, "order-17").answer == (Status.OK, 1)
    world.publish()
    world.settle(world.o2)
    assert value(ended) == 1
    assert world.value(world.o2, K) == 1


def test_a_call_ruled_out_at_the_new_owner_does_not_come_back_with_the_old_ones_packet(world):
    """The old owner's commit is on its way; asked at the new owner, there is no record: it must stay so."""
    _, ended = begin(world, "order-17")
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.take_over(revoke=False)
    world.tell(world.o2)
    assert elsewhere(world.o2, "order-17", asks=True).status is Status.RULED_OUT
    assert world.o1.deliver(packet), "refused: the epoch is another's"
    world.publish()
    world.settle(world.o1, world.o2)
    [result] = ended
    assert type(result.error) is IdempotencyConflict and result.error.executed is False
    assert world.value(world.o2, K) is None


def test_a_call_that_the_old_owner_committed_is_found_however_late_it_is_asked_for(world):
    begin(world, "order-17")
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    world.o1.deliver(packet)
    world.take_over(revoke=False)
    world.tell(world.o2)
    world.o2.core.retention.now = DAY - 1
    assert elsewhere(world.o2, "order-17", asks=True).answer == (Status.OK, 1)


def test_a_question_that_waits_for_a_call_is_told_to_ask_the_next_owner_when_its_handler_loses_it(
    world,
):
    begin(world, "order-17")
    world.arrive(world.o1)
    packet = world.batch(world.o1)
    asked = world.o1.call("KV.incr", K, payload=written("order-17", asks=True), session=98)
    world.take_over(revoke=False)
    world.tell(world.o2)
    assert asked.answer is None
    world.o1.deliver(packet)
    assert asked.status is Status.NOT_READY
    assert elsewhere(world.o2, "order-17", asks=True).status is Status.RULED_OUT


def test_a_copy_that_a_dead_connection_left_behind_runs_after_no_takeover(world):
    """In doubt, a client does not say goodbye: the record has to outlive every copy of its call."""
    _, ended = world.call("KV.incr", K)
    copy = world.links[b"o1"].requests[0]
    world.cut(world.o1)  # with the request still in o1's socket
    world.take_over(revoke=False)
    world.tell(world.o2)
    world.publish()
    world.settle(world.o2)
    assert value(ended) == 1
    assert not world.client.is_answered
    world.leader.takeover(dict.fromkeys(range(PARTITIONS), b"o1"))
    world.tell(world.o1)
    caller = Caller()
    world.o1.core.on_request(caller, unpack_request(copy[8:]), world.now)
    world.o1.flush()
    assert caller.answer == (Status.OK, 1)
    assert world.value(world.o1, K) == 1


def test_a_session_that_slept_over_the_window_finds_its_calls_unknown_and_never_run_again(world):
    """Its record is gone: what it sends when it wakes up bears its true age, and is refused for it."""
    call, ended = world.call("KV.incr", K)
    world.arrive(world.o1)
    world.o1.flush()  # committed; the reply is lost with the connection
    world.cut(world.o1)
    world.take_over()
    world.tell(world.o2)
    world.o2.warm_up()
    world.o2.core.retention.now += 2 * DAY
    for _ in range(3):
        world.o2.core.on_timer(world.now)
        world.o2.flush()
    assert [name[:1] for name in world.server.partitions[0]] == [b"s"]
    world.client.on_slept(2 * DAY)
    world.publish()
    world.settle(world.o2)
    [result] = ended
    assert type(result.error) is OutcomeUnknown and call.settled
    assert world.value(world.o2, K) == 1
