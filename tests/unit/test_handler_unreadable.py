"""What the store cannot give: its calls are told, everyone else goes on."""

import msgpack
import pytest
from unit.rigs import KEYS, Handler, key_in

from mesh.core.dedupe import outcome_field
from mesh.core.handling import HandlingConfig
from mesh.core.tenure import state_field
from mesh.core.wire import Status

K, OTHER = KEYS[0], KEYS[1]
STATE = state_field("Account", K.encode())

BROKEN_STATES = {
    "no msgpack": b"\xc1",
    "cut off": b"\x92\x01",
    "trailing bytes": b"\x80\x80",
    "no map": msgpack.packb([1, 2]),
    "a number": msgpack.packb(7),
    "keys that cannot be kept": b"\x81\x91\x01\x02",
    "too deep": b"\x91" * 2000 + b"\x90",
}


def test_a_partition_of_another_type_refuses_its_calls_and_nobody_elses(server, handler):
    server.wrong_type.add(0)
    refused = [handler.call("Account.read", K), handler.call("Account.deposit", K, 1)]
    served = handler.call("Account.deposit", OTHER, 1)
    handler.flush()
    assert [c.status for c in refused] == [Status.UNREADABLE] * 2
    assert refused[0].answer.value.startswith("partition 0 cannot be read: WRONGTYPE")
    assert served.status is Status.OK
    assert handler.core.is_idle


def test_the_warm_up_passes_a_partition_of_another_type_by(server, handler):
    server.wrong_type.add(0)
    handler.warm_up()
    assert handler.core.next_scan() is None
    assert handler.call("Account.read", OTHER).answer.value == 0, "it is warm"


def test_a_partition_that_was_mended_is_served(server, handler):
    server.wrong_type.add(0)
    handler.warm_up()
    handler.call("Account.deposit", K, 1)
    handler.flush()
    server.wrong_type.clear()
    after = handler.call("Account.deposit", K, 1)
    handler.flush()
    assert after.answer == (Status.OK, 1)


@pytest.mark.parametrize("how", BROKEN_STATES)
@pytest.mark.parametrize("warm", [False, True])
def test_a_state_that_cannot_be_decoded_is_named_and_stops_nobody_else(server, handler, how, warm):
    server.partitions[0] = {STATE: BROKEN_STATES[how]}
    if warm:
        handler.warm_up()
    broken = handler.call("Account.deposit", K, 1)
    served = handler.call("Account.deposit", key_in(0, nth=1), 1)
    handler.flush()
    assert broken.status is Status.BAD_REQUEST
    assert f"what is stored of Account b'{K}' cannot be read" in broken.answer.value
    assert served.status is Status.OK
    assert server.partitions[0][STATE] == BROKEN_STATES[how], "left as it was"


def test_a_record_that_cannot_be_decoded_refuses_the_calls_that_need_it(server, handler):
    server.partitions[0] = {outcome_field(7, 1): b"short", b"x": b"no record at all"}
    handler.warm_up()
    broken = handler.call("Account.deposit", K, 1)
    handler.flush()
    assert broken.status is Status.BAD_REQUEST
    served = handler.call("Account.deposit", K, 1)
    handler.flush()
    assert served.status is Status.OK


def test_calls_that_wait_for_the_store_end_at_their_deadline(handler):
    short = handler.call("Account.deposit", K, 1, deadline_ms=100)
    long = handler.call("Account.deposit", K, 2, deadline_ms=1000)
    loads = handler.core.take_wants()
    handler.now += 0.5
    handler.core.on_timer(handler.now)
    assert (short.status, long.status) == (Status.EXPIRED, None)
    handler.core.on_load(loads, None, handler.now)
    handler.now += 0.6
    handler.core.on_timer(handler.now)
    assert long.status is Status.EXPIRED
    assert handler.core.is_idle
    assert handler.load() == 0, "nobody waits for it any more"


def test_a_read_that_comes_back_after_the_deadline_of_its_calls_is_kept(handler):
    late = handler.call("Account.read", K, deadline_ms=100)
    loads = handler.core.take_wants()
    handler.now += 0.2
    handler.core.on_timer(handler.now)
    next_one = handler.call("Account.read", K)
    handler.core.on_load(loads, None, handler.now)
    handler.flush()
    assert (late.status, next_one.status) == (Status.EXPIRED, Status.OK)


def test_one_read_takes_so_many_keys_and_the_rest_stays_due(server, leader):
    handler = Handler(server, config=HandlingConfig(max_wants=2))
    leader.takeover(dict.fromkeys(range(4), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    callers = [handler.call("Account.read", key_in(0, nth=n)) for n in range(5)]
    sizes = []
    while handler.core.has_wants:
        sizes.append(handler.load())
    assert sizes == [2, 2, 1]
    assert {c.status for c in callers} == {Status.OK}


def test_calls_nobody_waits_for_do_not_hide_those_behind_them(server, leader):
    handler = Handler(server, config=HandlingConfig(max_wants=2))
    leader.takeover(dict.fromkeys(range(4), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    for n in range(2):
        handler.call("Account.read", key_in(0, nth=n), deadline_ms=1)
    behind = handler.call("Account.read", key_in(0, nth=2))
    handler.now += 0.1
    handler.core.on_timer(handler.now)
    assert handler.load() == 1
    assert behind.status is Status.OK


def test_held_calls_count_among_the_calls_in_memory(server):
    handler = Handler(server, config=HandlingConfig(max_pending=2))
    callers = [handler.call("Account.read", K) for _ in range(3)]
    assert [c.status for c in callers] == [None, None, Status.OVERLOADED]
    handler.now += 1.0
    handler.core.on_timer(handler.now)
    again = handler.call("Account.read", K)
    assert [c.status for c in (callers[0], again)] == [Status.NOT_READY, None], (
        "there is room again"
    )


def test_held_calls_that_are_taken_up_count_once(server, leader):
    handler = Handler(server, config=HandlingConfig(max_pending=2))
    callers = [handler.call("Account.deposit", K, 1) for _ in range(2)]
    leader.takeover(dict.fromkeys(range(4), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    handler.flush()
    assert [c.status for c in callers] == [Status.OK] * 2
    assert handler.core.is_idle
