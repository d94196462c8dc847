"""What a handler keeps in memory: loaded after the grant, never older than what it wrote, bounded."""

import msgpack
import pytest
from unit.rigs import KEYS, PARTITIONS, Handler, key_in, run

from mesh.core.handling import HandlingConfig
from mesh.core.records import ScanReply, StoreStatus
from mesh.core.tenure import state_field
from mesh.core.wire import Status
from mesh.entities import spec_of
from mesh.store.api import SWEEP_MOST
from mesh.store.memory_server import SCAN_PAGE

K = KEYS[0]


def owner_of_all(server, leader, config=None, nonce=b"h-1"):
    handler = Handler(server, nonce, config)
    leader.takeover(dict.fromkeys(range(PARTITIONS), nonce), enroll=[nonce])
    handler.core.on_grant(leader.grant(nonce), handler.now)
    return handler


def replace_owner(server, leader, handler, config=None):
    """Another process takes over everything, with nothing in memory."""
    nonce = handler.nonce + b"+"
    heir = Handler(server, nonce, config)
    heir.counter = handler.counter
    leader.takeover(dict.fromkeys(range(PARTITIONS), nonce), enroll=[nonce], revoke=[handler.nonce])
    heir.core.on_grant(leader.grant(nonce), heir.now)
    return heir


def scan_page(handler):
    """A page as the store has it now, not yet handed to the core."""
    tenure = handler.core.next_scan()
    held = handler.core.grant, tenure.partition, tenure.epoch, tenure.cursor
    return tenure, run(handler.store.scan(*held))


def value(handler, key=K):
    caller = handler.call("KV.get", key)
    handler.load()
    return caller.answer.value


def test_nothing_is_read_before_the_grant(server, leader):
    handler = Handler(server)
    handler.call("KV.get", K)
    assert handler.load() == 0 and handler.core.next_scan() is None


def test_one_read_serves_all_calls_that_wait_for_a_key(handler):
    handler.call("KV.put", K, "a")
    handler.flush()
    callers = [handler.call("KV.get", key_in(0, nth=1)) for _ in range(3)]
    assert handler.load() == 1
    assert [c.answer.value for c in callers] == [None] * 3


def test_calls_on_one_key_keep_their_order_while_it_is_loaded(handler):
    put, get = handler.call("KV.put", K, "a"), handler.call("KV.get", K)
    other = handler.call("KV.put", K, "b")
    handler.flush()
    assert get.answer.value is None, "not acknowledged when it ran"
    assert (put.status, other.status) == (Status.OK, Status.OK)
    assert value(handler) == "b"


def test_state_and_records_come_from_the_store_after_a_takeover(server, leader, handler):
    first = handler.call("Account.deposit", K, 5, counter=50)
    handler.flush()
    heir = replace_owner(server, leader, handler)
    retry = heir.call("Account.deposit", K, 5, counter=50)
    heir.flush()
    assert retry.answer == first.answer
    read = heir.call("Account.read", K)
    assert read.answer.value == 5


def test_a_warm_partition_reads_nothing_more_not_even_for_new_keys(server, leader, handler):
    handler.call("Account.deposit", K, 5, counter=50)
    handler.flush()
    heir = replace_owner(server, leader, handler)
    heir.warm_up()
    retry = heir.call("Account.deposit", K, 5, counter=50)
    new = heir.call("Account.deposit", key_in(0, nth=9), 1)
    assert retry.status == Status.OK and heir.load() == 0
    heir.flush()
    assert new.answer.value == 1


def test_warming_up_goes_page_by_page_and_serves_who_waits(server, leader, handler):
    keys = [key_in(0, nth=n) for n in range(SCAN_PAGE)]
    for key in keys:
        handler.call("KV.put", key, key)
    handler.flush()
    heir = replace_owner(server, leader, handler)
    caller = heir.call("KV.get", keys[-1])
    heir.warm_up()
    assert caller.answer.value == keys[-1], "out of a page, without a read of its own"
    assert heir.load() == 0
    assert [value(heir, key) for key in keys] == keys


def test_a_load_for_a_tenure_that_is_over_is_ignored(handler, leader):
    caller = handler.call("KV.put", K, "a")
    loads = handler.core.take_wants()
    reply = run(handler.store.load(handler.core.grant, [load.want for load in loads]))
    leader.takeover({0: handler.nonce})
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    assert caller.status == Status.NOT_READY
    again = handler.call("KV.put", K, "b")
    handler.core.on_load(loads, reply, handler.now)
    assert again.answer is None and handler.send() is None, "it waits for a read of its own"
    handler.flush()
    assert again.status == Status.OK


def test_a_failed_load_of_an_earlier_tenure_does_not_take_the_place_of_a_later_one(handler, leader):
    handler.call("KV.put", K, "a")
    loads = handler.core.take_wants()
    leader.takeover({0: handler.nonce})
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    again = handler.call("KV.put", K, "b")
    handler.core.on_load(loads, None, handler.now)
    handler.flush()
    assert again.status == Status.OK


def test_a_load_that_could_not_be_made_is_made_again(handler):
    caller = handler.call("KV.get", K)
    loads = handler.core.take_wants()
    assert handler.load() == 0, "one at a time"
    handler.core.on_load(loads, None, handler.now)
    assert handler.load() == 1 and caller.status == Status.OK


def test_a_load_refused_by_the_grant_drops_the_partition(handler, leader):
    caller = handler.call("KV.get", K)
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    handler.load()
    assert caller.status == Status.NOT_READY
    assert handler.core.held_epochs()[:4] == bytes(4)


def test_a_scan_refused_by_the_grant_drops_the_partition(handler, leader):
    leader.takeover({0: b"h-2"}, enroll=[b"h-2"])
    handler.warm_up()
    assert handler.core.held_epochs()[:4] == bytes(4)
    assert handler.core.held_epochs()[4:] == leader.grant(handler.nonce).epochs[4:]


@pytest.mark.parametrize("step", ["load", "scan"])
def test_a_revoked_grant_noticed_while_reading_ends_the_process(handler, leader, step):
    leader.takeover(dict.fromkeys(range(PARTITIONS), b"h-2"), enroll=[b"h-2"], revoke=[b"h-1"])
    caller = handler.call("KV.get", K)
    handler.load() if step == "load" else handler.warm_up()
    assert handler.core.revoked and caller.status == Status.NOT_READY


def test_a_call_whose_deadline_passes_while_its_key_is_loaded_is_not_run(handler):
    caller = handler.call("KV.put", K, "a", deadline_ms=50)
    handler.now += 0.06
    handler.flush()
    assert caller.status == Status.EXPIRED
    assert value(handler) is None and handler.core.is_idle


def test_calls_that_came_behind_one_that_gave_up_get_a_read_of_their_own(handler):
    """The read that was under way brings nothing to them; without another they would wait for ever."""
    gave_up = handler.call("KV.get", K, deadline_ms=50)
    loads = handler.core.take_wants()
    later = handler.call("KV.get", K)
    reply = run(handler.store.load(handler.core.grant, [load.want for load in loads]))
    handler.now += 0.06
    handler.core.on_timer(handler.now)
    assert gave_up.status == Status.EXPIRED
    handler.core.on_load(loads, reply, handler.now)
    assert handler.load() == 1 and later.status == Status.OK


def test_a_call_that_arrives_without_time_left_is_not_run(handler):
    assert handler.call("KV.put", K, "a", deadline_ms=0).status == Status.EXPIRED
    assert handler.load() == 0


def test_a_call_first_sent_too_long_ago_is_unknown_and_never_run(handler):
    """F8(d): its record may have been dropped meanwhile."""
    half_s = HandlingConfig().window_s / 2
    age_ms = int(half_s * 1000)
    assert handler.call("KV.put", K, "a", age_ms=age_ms + 1).status == Status.UNKNOWN
    assert handler.call("KV.put", K, "a", age_ms=age_ms).answer is None


def test_calls_above_the_limit_are_refused_and_the_others_go_on(server, leader):
    handler = owner_of_all(server, leader, HandlingConfig(max_pending=2))
    callers = [handler.call("KV.incr", K) for _ in range(3)]
    assert callers[2].status == Status.OVERLOADED
    handler.flush()
    assert [c.status for c in callers[:2]] == [Status.OK] * 2
    last = handler.call("KV.incr", K)
    handler.flush()
    assert last.answer.value == 3


SMALL = HandlingConfig(cache_bytes=8_000)


def test_memory_stays_bounded_and_evicted_keys_are_read_again(server, leader):
    handler = owner_of_all(server, leader, SMALL)
    keys = [key_in(0, nth=n) for n in range(60)]
    for key in keys:
        handler.call("KV.put", key, key)
        handler.flush()
    assert handler.core.beat().keys < 15
    assert [value(handler, key) for key in keys] == keys


def test_after_an_eviction_a_missing_key_is_not_taken_for_one_never_written(server, leader):
    handler = owner_of_all(server, leader, SMALL)
    handler.warm_up()
    keys = [key_in(0, nth=n) for n in range(60)]
    for key in keys:
        handler.call("KV.put", key, key)
        handler.flush()
    caller = handler.call("KV.get", keys[0])
    assert caller.answer is None
    assert handler.load() == 1 and caller.answer.value == keys[0]


def test_unacknowledged_state_is_never_evicted(server, leader):
    """F6(c): a key read again before its commit arrived would lose the update."""
    handler = owner_of_all(server, leader, SMALL)
    handler.warm_up()
    handler.call("KV.incr", K)
    batch = handler.send()
    for n in range(1, 60):
        handler.call("KV.get", key_in(0, nth=n))
        handler.load()
    assert handler.core.beat().keys < 20
    again = handler.call("KV.incr", K)
    assert handler.load() == 0
    handler.deliver(batch)
    handler.flush()
    assert again.answer.value == 2


def test_a_page_read_before_a_key_was_written_and_evicted_does_not_bring_the_old_value_back(
    server, leader, handler
):
    handler.call("KV.put", K, "old")
    handler.flush()
    heir = replace_owner(server, leader, handler, SMALL)
    tenure, page = scan_page(heir)
    assert tenure.partition == 0
    heir.call("KV.put", K, "new")
    heir.flush()
    for n in range(1, 60):
        heir.call("KV.put", key_in(1, nth=n), "x" * (600 if n % 2 else 1))
        heir.flush()
    heir.core.on_scan(tenure, page, heir.now)
    assert value(heir) == "new"


def test_a_full_cache_warms_up_the_records_and_leaves_the_keys_to_be_read(server, leader, handler):
    keys = [key_in(0, nth=n) for n in range(60)]
    for key in keys:
        handler.call("KV.put", key, key)
    handler.flush()
    heir = replace_owner(server, leader, handler, SMALL)
    heir.warm_up()
    assert 0 < heir.core.beat().keys < len(keys)
    assert [value(heir, key) for key in keys] == keys
    retry = heir.call("KV.put", keys[0], keys[0], counter=1)
    assert retry.status == Status.OK, "from the record, without a read"


def test_keys_that_nobody_calls_stay_as_they_were_read(server, leader, handler):
    keys = [key_in(0, nth=n) for n in range(20)]
    for key in keys:
        handler.call("KV.put", key, key)
    handler.flush()
    heir = replace_owner(server, leader, handler)
    heir.warm_up()
    assert (heir.core.beat().keys, heir.core.taken_in) == (20, 0)
    caller = heir.call("KV.get", keys[3])
    assert caller.answer.value == keys[3], "without a read"
    assert (heir.core.beat().keys, heir.core.taken_in) == (20, 1)


def test_what_nobody_called_is_evicted_first(server, leader, handler):
    keys = [key_in(0, nth=n) for n in range(30)]
    for key in keys:
        handler.call("KV.put", key, key)
    handler.flush()
    heir = replace_owner(server, leader, handler, SMALL)
    heir.warm_up()
    for key in keys[:8]:
        heir.call("KV.get", key)
        heir.load()
    callers = [heir.call("KV.get", key) for key in keys[:8]]
    assert [c.answer.value for c in callers] == keys[:8], "without a read"
    assert [value(heir, key) for key in keys] == keys


def test_a_key_read_ahead_that_cannot_be_read_is_told_to_whoever_calls_it(server, leader, handler):
    handler.call("KV.put", K, 1)
    handler.flush()
    server.partitions[0][state_field("KV", K.encode())] = b"\xc1"
    heir = replace_owner(server, leader, handler)
    heir.warm_up()
    caller = heir.call("KV.get", K)
    heir.load()
    assert caller.status == Status.BAD_REQUEST and "cannot be read" in caller.answer.value


def test_state_of_an_entity_that_is_no_longer_served_is_left_alone(handler):
    tenure = handler.core.next_scan()
    page = ScanReply(StoreStatus.OK, 0, ((state_field("Gone", b"k"), b"\x80"),))
    handler.core.on_scan(tenure, page, handler.now)
    assert handler.call("Gone.read", KEYS[tenure.partition]).status == Status.BAD_REQUEST


def test_a_key_written_by_another_version_of_its_class_can_be_queried(server, leader, handler):
    stored = msgpack.packb({"history": [], "colour": "red", "balance": 7})
    server.partitions[0] = {state_field("Account", K.encode()): stored}
    caller = handler.call("Account.read", K)
    handler.load()
    assert caller.answer.value == 7
    handler.call("Account.deposit", K, 1)
    handler.flush()
    after = msgpack.unpackb(server.partitions[0][state_field("Account", K.encode())])
    assert after == {"history": [], "colour": "red", "balance": 8}


def test_an_unhelpful_exception_is_told_within_bounds(handler):
    class Awkward(Exception):
        def __str__(self):
            raise RuntimeError("no")

    _, method = handler.core._calls._registry.find("Account.read")
    raised = [Awkward(), ValueError("x" * 10**7), ValueError(*range(10**5)), ValueError(1 << 99999)]
    function = method.function
    try:
        for error in raised:

            def read(self, error=error):
                raise error

            method.function = read
            caller = handler.call("Account.read", K)
            handler.load()
            assert caller.status == Status.ENTITY_ERROR
            assert caller.answer.value[0] == type(error).__name__
            assert len(msgpack.packb(caller.answer.value)) < 10_000
    finally:
        method.function = function
    assert spec_of(handler.core._calls._registry.spec("Account").cls).methods["read"] is method


def test_a_sweep_right_after_the_grant_saves_each_key_its_own_read(server, leader, handler):
    handler.call("Account.deposit", K, 5, counter=50)
    handler.flush()
    heir = replace_owner(server, leader, handler)
    waiting = heir.call("Account.deposit", K, 5, counter=50)
    tenures = heir.core.next_sweep()
    held = [(t.partition, t.epoch) for t in tenures]
    heir.core.on_sweep(tenures, run(heir.store.sweep(heir.core.grant, held)), 0.0)
    assert waiting.status == Status.OK, "the record came with the sweep"
    assert heir.load() == 0 and heir.core.next_scan() is None
    assert heir.core.next_sweep() == [], "once for each tenure"


def test_a_partition_that_is_too_large_for_a_sweep_is_scanned(server, leader, handler):
    for n in range(SWEEP_MOST + 1):
        handler.call("KV.put", key_in(0, nth=n), n)
    handler.flush()
    heir = replace_owner(server, leader, handler)
    tenures = heir.core.next_sweep()
    held = [(t.partition, t.epoch) for t in tenures]
    heir.core.on_sweep(tenures, run(heir.store.sweep(heir.core.grant, held)), 0.0)
    assert heir.core.next_scan() in tenures
    heir.warm_up()
    assert value(heir, key_in(0, nth=SWEEP_MOST)) == SWEEP_MOST
