"""How a state that has large values gets into memory, and out of it."""

import msgpack
import pytest
from unit.parts_rig import (
    FIELD,
    LONG,
    NOTES,
    OTHER,
    SMALL_CACHE,
    TEXT,
    K,
    Pages,
    check_pieces,
    heir_of,
    pieces,
)
from unit.rigs import key_in, run

from mesh.core.cache import SLOT_OVERHEAD_BYTES
from mesh.core.parts import part_field
from mesh.core.tenure import state_field
from mesh.core.wire import Status


@pytest.fixture
def handler(server, leader):
    return Pages(server).owns_all(leader)


# ---------------------------------------------------------------------------------------- what is read again


def test_a_key_with_large_values_takes_a_second_read_and_one_without_takes_none(
    server, leader, handler
):
    handler.does("write", K, {"text": LONG})
    small = key_in(0, nth=1)
    handler.does("incr", small)
    heir = heir_of(handler, server, leader)
    caller = heir.call("Page.read", small)
    assert heir.load() == 1 and caller.status is Status.OK
    caller, other = heir.call("Page.read", K), heir.call("Page.incr", K)
    assert heir.load() == 1 and caller.answer is None
    third = heir.call("Page.read", K)
    assert heir.load() == 1 and heir.load() == 0
    assert caller.answer.value["text"] == third.answer.value["text"] == LONG
    heir.flush()
    assert other.answer.value == 1


def test_the_second_read_is_of_one_moment_whatever_the_first_one_said(server, leader, handler):
    """Of a state and its large values that were read apart, one might be older than the other."""
    handler.does("write", K, {"text": LONG})
    heir = heir_of(handler, server, leader)
    caller = heir.call("Page.read", K)
    heir.load()
    store = server.partitions[0]
    store[FIELD] = msgpack.packb([["text", "notes"], 1, {"count": 7, "text": None, "notes": None}])
    store[TEXT], store[NOTES] = msgpack.packb(OTHER), msgpack.packb([LONG])
    heir.flush()
    assert caller.answer.value == {"count": 7, "text": OTHER, "notes": [LONG]}


def test_a_read_that_took_too_long_brings_no_older_state_back(server, leader, handler):
    """Its calls have given up; meanwhile the key was read again, written, and evicted."""
    handler.does("write", K, {"text": LONG})
    heir = heir_of(handler, server, leader, config=SMALL_CACHE)
    gave_up = heir.call("Page.read", K, deadline_ms=50)
    heir.load()
    loads = heir.core.take_wants()
    late = run(heir.store.load(heir.core.grant, [load.want for load in loads]))
    heir.now += 0.1
    heir.core.on_timer(heir.now)
    assert gave_up.status is Status.EXPIRED
    heir.does("incr", K)
    heir.does("write", key_in(1), {"text": "x" * 30_000})
    assert FIELD not in heir.core._tenures[0].slots
    heir.core.on_load(loads, late, heir.now)
    assert heir.shown(K) == {"count": 1, "text": LONG, "notes": []}


def test_a_read_that_failed_is_made_again_with_all_that_it_was_to_bring(server, leader, handler):
    handler.does("write", K, {"text": LONG})
    heir = heir_of(handler, server, leader)
    caller = heir.call("Page.read", K)
    heir.load()
    loads = heir.core.take_wants()
    heir.core.on_load(loads, None, heir.now)
    assert heir.load() == 1 and caller.answer.value["text"] == LONG


def test_old_states_with_large_values_inside_are_cut_at_their_next_change(server, leader, handler):
    server.partitions[0] = {FIELD: msgpack.packb({"count": 1, "text": LONG, "notes": []})}
    assert handler.shown(K)["text"] == LONG and [*pieces(server)] == [FIELD]
    handler.does("incr", K)
    assert [*pieces(server)] == [FIELD, TEXT] and len(pieces(server)[FIELD]) < 200
    assert heir_of(handler, server, leader).shown(K) == {"count": 2, "text": LONG, "notes": []}


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    "head",
    [
        b"\x93",
        b"\x93\xc1",
        b"\x93\x01\x01\x80",
        b"\x93\x91\x01\x01\x80",
        b"\x93\x91\xa4text\x01\xc0",
        b"\x93\x91\xa4text\x01\x80",
        b"\x93\x91\xa4text\x01\x81\xa4text\x07",
        b"\x93\x91\xa4text\x01\x82\x91\x01\xc0\xa4text\xc0",
        b"\x93\x92\xa4text\xa4text\x01\x81\xa4text\xc0",
        b"\x93\x91\xa5other\x01\x81\xa5other\xc0",
    ],
)
def test_a_cut_state_that_is_none_is_named_and_left_as_it_was(server, handler, head, warm):
    server.partitions[0] = {FIELD: head, TEXT: msgpack.packb(LONG)}
    if warm:
        handler.warm_up()
    broken, served = handler.call("Page.incr", K), handler.call("Page.incr", key_in(0, nth=1))
    handler.flush()
    assert broken.status is Status.BAD_REQUEST
    assert f"what is stored of Page b'{K}' cannot be read" in broken.answer.value
    assert served.status is Status.OK
    assert (server.partitions[0][FIELD], server.partitions[0][TEXT]) == (head, msgpack.packb(LONG))


@pytest.mark.parametrize("warm", [False, True])
def test_a_state_whose_large_value_is_missing_is_refused_and_left_as_it_was(
    server, leader, handler, warm
):
    handler.does("write", K, {"text": LONG})
    head = pieces(server)[FIELD]
    del server.partitions[0][TEXT]
    heir = heir_of(handler, server, leader)
    if warm:
        heir.warm_up()
    caller = heir.does("incr", K)
    assert caller.status is Status.BAD_REQUEST
    assert "its large value 'text' is missing" in caller.answer.value
    assert pieces(server) == {FIELD: head}


# ---------------------------------------------------------------------------------------- read ahead, evicted


def test_a_key_is_used_from_memory_once_all_its_pieces_are_there(server, leader, handler):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    stored = pieces(server)
    for first in (FIELD, TEXT, NOTES):
        heir = heir_of(handler, server, leader)
        handler = heir
        tenure = heir.core._tenures[0]
        order = [first, *(name for name in stored if name != first)]
        for name in order[:-1]:
            assert heir.core._reading.adopt_page(tenure, [(name, stored[name])])
        early = heir.call("Page.read", K)
        assert early.answer is None, "one piece is missing"
        assert heir.core._reading.adopt_page(tenure, [(order[-1], stored[order[-1]])])
        assert [*heir.core._reading.warmed(tenure)] == [FIELD]
        heir.core._calls.run_waiting(tenure, FIELD, heir.now)
        assert early.answer.value["text"] == LONG and heir.load() == 0, "no read of its own"
        assert tenure.complete and not (tenure.stored or tenure.parts)


def test_a_key_that_was_read_while_its_pieces_came_in_is_there_once(server, leader, handler):
    handler.does("write", K, {"text": LONG})
    stored = pieces(server)
    heir = heir_of(handler, server, leader)
    tenure = heir.core._tenures[0]
    heir.core._reading.adopt_page(tenure, [(TEXT, stored[TEXT])])
    heir.does("write", K, {"text": OTHER})
    heir.core._reading.adopt_page(tenure, [*stored.items()])
    assert not (tenure.stored or tenure.parts) and tenure.complete
    assert heir.shown(K)["text"] == OTHER


def test_pieces_count_as_one_key_and_their_bytes_are_given_back(server, leader, handler):
    keys = [key_in(0, nth=n) for n in range(5)]
    for key in keys:
        handler.does("write", key, {"text": LONG})
    heir = heir_of(handler, server, leader)
    heir.warm_up()
    assert (heir.core.beat().keys, heir.core.taken_in) == (5, 0)
    assert heir.core._cache._used_bytes > 5 * len(LONG)
    for key in keys:
        heir.shown(key)
    assert (heir.core.beat().keys, heir.core.taken_in, heir.load()) == (5, 5, 0)
    used = heir.core._cache._used_bytes
    assert 5 * len(LONG) < used < 5 * (len(LONG) + 2000)
    slot = heir.core._tenures[0].slots[FIELD]
    heads = len(slot.blob) + len(slot.cut.head)
    assert slot.counted_bytes == heads + 2 * SLOT_OVERHEAD_BYTES
    last = heir_of(heir, server, leader)
    last.warm_up()
    assert last.core._cache._used_bytes > 5 * len(LONG)
    for over in (heir, last):
        over.core._ownership.end()
        assert over.core._cache._used_bytes == 0


def test_what_nobody_called_is_evicted_with_its_large_values(server, leader, handler):
    keys = [key_in(0, nth=n) for n in range(4)]
    for key in keys:
        handler.does("write", key, {"text": "x" * 2000, "notes": ["y" * 2000]})
    heir = heir_of(handler, server, leader, config=SMALL_CACHE)
    heir.warm_up()
    tenure = heir.core._tenures[0]
    ahead = [*tenure.stored]
    assert len(ahead) == 4 and tenure.complete
    heir.does("write", key_in(1), {"text": "x" * 8000})
    assert not tenure.complete and 0 < len(tenure.stored) < 4
    assert tenure.parts.keys() == tenure.stored.keys()
    heir.does("write", key_in(1), {"text": "x" * 30_000})
    assert not (tenure.stored or tenure.parts)
    held = sum(
        slot.counted_bytes
        for t in heir.core._tenures.in_memory.values()
        for slot in t.slots.values()
    )
    assert heir.core._cache._used_bytes == held
    assert [heir.shown(key)["notes"] for key in keys] == [["y" * 2000]] * 4


def test_a_large_value_that_memory_has_no_room_for_is_left_to_be_read(server, leader, handler):
    handler.does("write", K, {"text": LONG})
    stored = pieces(server)
    heir = heir_of(handler, server, leader, config=SMALL_CACHE)
    heir.does("write", key_in(1), {"text": "x" * 30_000})
    tenure = heir.core._tenures[0]
    heir.core._reading.adopt_page(tenure, [(TEXT, stored[TEXT])])
    assert not tenure.parts and not tenure.complete
    assert heir.shown(K)["text"] == LONG


def test_parts_whose_state_has_not_come_yet_are_evicted_too(server, leader, handler):
    heir = heir_of(handler, server, leader, config=SMALL_CACHE)
    tenure = heir.core._tenures[0]
    heir.core._reading.adopt_page(tenure, [(TEXT, msgpack.packb("x" * 15_000))])
    assert tenure.parts and tenure.complete
    heir.does("write", key_in(1), {"text": "x" * 30_000})
    assert not tenure.parts and not tenure.complete


def test_an_evicted_key_with_large_values_is_read_again(server, leader):
    handler = Pages(server, config=SMALL_CACHE).owns_all(leader)
    keys = [key_in(0, nth=n) for n in range(8)]
    for n, key in enumerate(keys):
        handler.does("write", key, {"count": n, "text": "x" * 5000})
    assert handler.core.beat().keys < 6
    assert [handler.shown(key)["count"] for key in keys] == [*range(8)]
    handler.does("incr", keys[0])
    check_pieces(server)


def test_large_values_of_an_entity_that_is_no_longer_served_are_left_alone(server, handler):
    tenure = handler.core._tenures[0]
    field = state_field("Gone", b"k")
    page = [(field, b"\x80"), (part_field(field, "text"), b"\xc0")]
    assert handler.core._reading.adopt_page(tenure, page)
    assert not (tenure.stored or tenure.parts) and tenure.complete


def test_a_part_whose_name_is_none_keeps_the_partition_from_passing_for_warm(server, handler):
    server.partitions[0] = {b"p\x00\x00": b""}
    handler.warm_up()
    assert handler.core._tenures[0].unreadable
    assert handler.does("incr", K).status is Status.OK
