"""A key of an entity with a ttl: there until its time is over, by the owner's clock, and then deleted."""

import msgpack
import pytest
from unit.keys_rig import TTL_S, CartForGood, Carts, Clock, answer, stored
from unit.rigs import KEYS, key_in, run

from mesh.core.expiry import MOST_A_TURN, split, stamp
from mesh.core.handling import HandlingConfig
from mesh.core.keyspace import partition_of
from mesh.core.tenure import state_field
from mesh.core.wire import Status
from mesh.store.memory_server import SCAN_PAGE

K = KEYS[0]
FIELD = state_field("Cart", K.encode())
SMALL = HandlingConfig(cache_bytes=8_000)
LONG = "x" * 4000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def handler(server, leader, clock):
    return Carts(server, clock).owns_all(leader)


def heir_of(handler, server, leader, clock, **options):
    heir = Carts(server, clock, handler.nonce + b"+", **options)
    return heir.owns_all(leader, instead_of=handler)


def test_a_key_is_there_to_the_end_of_its_time_and_deleted_then(server, handler, clock):
    handler.does("Cart.add", K)
    clock.wall += TTL_S - 0.001
    handler.tick()
    assert handler.does("Cart.read", K) == 1
    clock.wall += 0.001
    handler.tick()
    assert stored(server) == {}
    assert handler.does("Cart.read", K) == 0 and handler.does("Cart.~exists", K) is False


def test_a_change_begins_its_time_anew_and_nothing_else_does(server, handler, clock):
    handler.does("Cart.add", K)
    clock.wall += 50
    handler.does("Cart.add", K)
    clock.wall += 50
    handler.tick()
    assert handler.does("Cart.read", K) == 2
    assert handler.does("Cart.add", K, 0) == 2, "no change"
    clock.wall += 10
    handler.tick()
    assert stored(server) == {}


def test_a_key_that_was_changed_lately_is_deleted_though_nobody_calls_it_again(
    server, handler, clock
):
    handler.does("Cart.add", K)
    clock.wall += 50
    handler.does("Cart.add", K)
    clock.wall += 50
    handler.tick()
    assert list(stored(server)) == [FIELD]
    clock.wall += 10
    handler.tick()
    assert stored(server) == {}


def test_a_key_that_an_async_command_made_is_deleted_too(server, handler, clock):
    handler.warm_up()
    handler.call("Cart.add_slowly", K)
    [begun] = handler.core.take_runs(handler.now)
    begun.instance.items += 1
    handler.core.on_ran(begun, 1, None, handler.now)
    handler.flush()
    assert list(stored(server)) == [FIELD]
    clock.wall += TTL_S
    handler.tick()
    assert stored(server) == {}


def test_a_key_whose_only_call_came_too_late_is_deleted_all_the_same(
    server, leader, handler, clock
):
    handler.does("Cart.add", K)
    heir = heir_of(handler, server, leader, clock)
    caller = heir.call("Cart.read", K, deadline_ms=50)
    heir.now += 0.06
    heir.flush()
    assert caller.status is Status.EXPIRED
    clock.wall += TTL_S
    heir.tick()
    assert stored(server) == {}


def test_a_key_that_was_deleted_for_its_age_takes_no_room_for_good(server, leader, clock):
    handler = Carts(server, clock, config=SMALL).owns_all(leader)
    for n in range(10):
        handler.does("Cart.add", key_in(0, nth=n))
    clock.wall += TTL_S
    handler.tick()
    for n in range(60):
        handler.does("KV.put", key_in(1, nth=n), n)
    assert not [
        f for t in handler.core._tenures.in_memory.values() for f in t.slots if b"Cart" in f
    ]


def test_a_partition_that_is_being_released_deletes_nothing_more(handler, leader, clock):
    handler.does("Cart.add", K)
    clock.wall += TTL_S
    handler.core.on_release(leader.release(0))
    handler.core.on_timer(handler.now)
    assert not handler.core.has_queued


@pytest.mark.parametrize(
    ("method", "reply"), [("read", 0), ("~exists", False), ("~delete", False), ("add", 1)]
)
def test_a_key_past_its_time_reads_as_never_written_before_the_timer_met_it(
    handler, clock, method, reply
):
    handler.does("Cart.add", K)
    clock.wall += TTL_S
    assert handler.does(f"Cart.{method}", K) == reply


def test_a_command_on_a_key_past_its_time_starts_from_the_defaults(server, leader, handler, clock):
    handler.does("Cart.write", K, LONG)
    handler.does("Cart.add", K, 5)
    assert len(stored(server)) == 2, "the note has a field of its own"
    clock.wall += TTL_S
    assert handler.does("Cart.add", K) == 1
    assert len(stored(server)) == 1
    assert handler.does("Cart.read_note", K) == ""
    assert heir_of(handler, server, leader, clock).does("Cart.read", K) == 1


def test_its_time_goes_on_at_the_next_owner(server, leader, handler, clock):
    handler.does("Cart.add", K)
    clock.wall += 40
    heir = heir_of(handler, server, leader, clock)
    clock.wall += 19.9
    assert heir.does("Cart.read", K) == 1
    clock.wall += 0.1
    heir.tick()
    assert stored(server) == {}


def test_a_key_that_nobody_calls_at_its_next_owner_is_deleted_all_the_same(
    server, leader, handler, clock
):
    handler.does("Cart.write", K, LONG)
    heir = heir_of(handler, server, leader, clock)
    heir.warm_up()
    heir.tick()
    assert len(stored(server)) == 2
    clock.wall += TTL_S
    heir.tick()
    assert stored(server) == {} and heir.core.taken_in == 0
    assert heir.does("Cart.read", K) == 0


def test_a_key_that_was_past_its_time_before_it_was_read_ahead_is_deleted(
    server, leader, handler, clock
):
    handler.does("Cart.add", K)
    clock.wall += TTL_S
    heir = heir_of(handler, server, leader, clock)
    heir.warm_up()
    assert answer(heir.call("Cart.read", K)) == 0, "without a read"
    heir.tick()
    assert stored(server) == {}


def test_a_key_is_not_deleted_from_a_page_before_the_last_page_is_there(
    server, leader, handler, clock
):
    """A page that was read before would bring it back."""
    for n in range(SCAN_PAGE + 1):
        handler.does("Cart.add", key_in(0, nth=n))
    clock.wall += TTL_S
    heir = heir_of(handler, server, leader, clock)
    tenure = heir.core.next_scan()
    place = heir.core.grant, tenure.partition, tenure.epoch, tenure.cursor
    heir.core.on_scan(tenure, run(heir.store.scan(*place)), heir.now)
    heir.tick()
    assert len(stored(server)) == SCAN_PAGE + 1
    heir.warm_up()
    clock.wall += 1
    heir.tick()
    assert stored(server) == {}


def test_an_evicted_key_is_met_by_its_next_call(server, leader, clock):
    handler = Carts(server, clock, config=SMALL).owns_all(leader)
    handler.does("Cart.add", K)
    for n in range(1, 60):
        handler.does("KV.put", key_in(1, nth=n), n)
    clock.wall += TTL_S
    handler.tick()
    assert list(stored(server)) == [FIELD], "memory does not know of it"
    assert handler.does("Cart.read", K) == 0
    assert stored(server) == {}


def test_warming_up_deletes_what_is_past_its_time_also_where_memory_is_full(
    server, leader, handler, clock
):
    handler.does("Cart.add", K)
    for n in range(60):
        handler.does("KV.put", key_in(1, nth=n), n)
    clock.wall += TTL_S
    heir = heir_of(handler, server, leader, clock, config=SMALL)
    for n in range(60):
        heir.does("KV.get", key_in(1, nth=n))
    heir.core._cache._limit_bytes = 0
    heir.warm_up()
    heir.flush()
    assert stored(server) == {}


def test_many_keys_are_deleted_in_steps(server, handler, clock):
    for n in range(MOST_A_TURN + 10):
        handler.call("Cart.add", key_in(0, nth=n))
    handler.flush()
    clock.wall += TTL_S
    handler.tick()
    assert len(stored(server)) == 10
    handler.tick()
    assert stored(server) == {}


def test_a_key_past_its_time_is_not_shown_while_its_deletion_is_under_way(handler, clock):
    handler.warm_up()
    handler.call("Cart.add", K)
    handler.flush()
    clock.wall += TTL_S
    handler.core.on_timer(handler.now)
    batch = handler.send()
    assert answer(handler.call("Cart.read", K)) == 0
    again = handler.call("Cart.add", K, 7)
    assert answer(handler.call("Cart.read", K)) == 0
    handler.deliver(batch)
    handler.flush()
    assert answer(again) == 7 and answer(handler.call("Cart.read", K)) == 7


def test_a_change_that_was_acknowledged_past_its_time_does_not_come_up_again(handler, clock):
    """The store did not answer for longer than a key lives."""
    handler.warm_up()
    handler.call("Cart.add", K, 5)
    late = handler.send()
    clock.wall += TTL_S
    assert answer(handler.call("Cart.read", K)) == 0
    handler.call("Cart.add", K, 1)
    handler.deliver(late)
    assert answer(handler.call("Cart.read", K)) == 0, "neither the old one nor the new one"
    handler.flush()
    assert answer(handler.call("Cart.read", K)) == 1


def test_a_state_under_way_to_a_later_time_shows_what_it_was_until_then(handler, clock):
    handler.warm_up()
    handler.does("Cart.add", K)
    clock.wall += TTL_S - 1
    handler.call("Cart.add", K)
    batch = handler.send()
    clock.wall += 2
    assert answer(handler.call("Cart.read", K)) == 1
    handler.deliver(batch)
    assert answer(handler.call("Cart.read", K)) == 2


def test_a_key_that_a_command_holds_is_not_over_before_that_command_is(handler, clock):
    handler.warm_up()
    handler.does("Cart.add", K)
    held = handler.call("Cart.add_slowly", K)
    [begun] = handler.core.take_runs(handler.now)
    clock.wall += TTL_S
    handler.tick()
    assert answer(handler.call("Cart.read", K)) == 1
    begun.instance.items += 1
    handler.core.on_ran(begun, 2, None, handler.now)
    handler.flush()
    assert answer(held) == 2 and answer(handler.call("Cart.read", K)) == 2
    clock.wall += TTL_S
    handler.tick()
    assert answer(handler.call("Cart.read", K)) == 0


def test_a_clock_that_was_set_back_hides_no_change_that_was_made_since(handler, clock):
    handler.does("Cart.add", K)
    clock.wall += TTL_S
    handler.tick()
    clock.wall -= 2 * TTL_S
    assert handler.does("Cart.add", K) == 1
    assert handler.does("Cart.read", K) == 1


def test_a_time_in_the_future_is_taken_for_now(server, leader, handler, clock):
    clock.wall += 1e6
    handler.does("Cart.add", K)
    clock.wall -= 1e6
    heir = heir_of(handler, server, leader, clock)
    assert heir.does("Cart.read", K) == 1
    clock.wall += TTL_S
    heir.tick()
    assert stored(server) == {}


# --------------------------------------------------------------------------------------------- what is stored


def test_an_entity_without_a_ttl_pays_no_byte(server, handler):
    handler.does("KV.put", K, 1)
    assert [*stored(server).values()] == [msgpack.packb({"value": 1})]


def test_the_time_stands_before_the_state_wherever_the_state_is(server, handler, clock):
    handler.does("Cart.write", K, LONG)
    assert split(stored(server)[FIELD])[0] == clock.wall
    clock.wall += 5
    handler.does("Cart.write", K, LONG + "y")
    assert split(stored(server)[FIELD])[0] == clock.wall, "though only the large value changed"


def test_what_has_no_time_before_it_is_told_from_what_has():
    assert split(stamp(5.5) + b"\x80") == (5.5, b"\x80")
    assert split(b"\x80") == (None, b"\x80")
    assert split(b"\xc1") == (None, b"\xc1") and split(b"") == (None, b"")


@pytest.mark.parametrize("called", [True, False], ids=["called", "read ahead"])
def test_states_of_before_the_ttl_count_from_when_they_are_first_read(
    server, leader, handler, clock, called
):
    older = heir_of(handler, server, leader, clock, cart=CartForGood)
    older.does("Cart.add", K)
    assert split(stored(server)[FIELD])[0] is None
    clock.wall += 1e6
    heir = heir_of(older, server, leader, clock)
    if called:
        assert heir.does("Cart.read", K) == 1
    else:
        heir.warm_up()
        heir.tick()
    assert split(stored(server)[FIELD])[0] == clock.wall
    clock.wall += 40
    third = heir_of(heir, server, leader, clock)
    third.warm_up()
    clock.wall += 20
    third.tick()
    assert stored(server) == {}


def test_a_state_read_ahead_without_a_time_is_given_one_by_its_first_call_too(
    server, leader, handler, clock
):
    older = heir_of(handler, server, leader, clock, cart=CartForGood)
    older.does("Cart.add", K)
    heir = heir_of(older, server, leader, clock)
    heir.warm_up()
    assert heir.does("Cart.add", K, 0) == 1
    assert split(stored(server)[FIELD])[0] == clock.wall


def test_an_entity_that_has_its_ttl_no_more_reads_what_it_had(server, leader, handler, clock):
    handler.does("Cart.add", K)
    clock.wall += 1e6
    heir = heir_of(handler, server, leader, clock, cart=CartForGood)
    assert heir.does("Cart.read", K) == 1
    third = heir_of(heir, server, leader, clock, cart=CartForGood)
    third.warm_up()
    assert answer(third.call("Cart.read", K)) == 1
    third.does("Cart.add", K)
    assert split(stored(server)[FIELD])[0] is None


def test_what_cannot_be_read_is_told_and_not_taken_for_one_past_its_time(server, handler):
    server.partitions[0] = {FIELD: b"\xc1"}
    caller = handler.call("Cart.read", K)
    handler.flush()
    assert caller.status is Status.BAD_REQUEST and "cannot be read" in answer(caller)


def test_memory_forgets_what_it_knew_of_evicted_keys(server, leader, clock):
    handler = Carts(server, clock, config=SMALL).owns_all(leader)
    keys = [key for key in map("k{}".format, range(4000)) if partition_of(key.encode(), 4) == 0]
    for n, key in enumerate(keys[:800]):
        handler.does("Cart.add", key)
        if not n % 100:
            handler.tick()
    handler.tick()
    [queue] = handler.core._expiry._queues.values()
    assert len(queue.due) == len(queue.names) < 400
