"""What is written of a state that has large values, and how it comes back."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.parts_rig import Methods, Page, Pages, Younger, check_pieces, pieces
from unit.rigs import KEYS, key_in, run

import mesh
from mesh.codec import pack
from mesh.core.cache import SLOT_OVERHEAD_BYTES
from mesh.core.handling import HandlingConfig
from mesh.core.parts import (
    LARGE_BYTES,
    SMALL_BYTES,
    Cut,
    is_cut,
    names_in,
    part_field,
    put_together,
    split_part_field,
    write,
)
from mesh.core.tenure import Slot, state_field
from mesh.core.wire import Status
from mesh.entities import spec_of

K = KEYS[0]
FIELD = state_field("Page", K.encode())
TEXT = part_field(FIELD, "text")
NOTES = part_field(FIELD, "notes")
LONG = "x" * 100 * 1024
OTHER = "y" * 100 * 1024
SMALL_CACHE = HandlingConfig(cache_bytes=20_000)


@pytest.fixture
def handler(server, leader):
    return Pages(server).owns_all(leader)


def heir_of(handler, server, leader, **options):
    return Pages(server, handler.nonce + b"+", **options).owns_all(leader, instead_of=handler)


def written(handler) -> tuple[dict[bytes, bytes], list[bytes]]:
    """What the next batch writes and deletes of states; it is delivered."""
    handler.load()
    batch = handler.send()
    fields: dict[bytes, bytes] = {}
    deleted: list[bytes] = []
    for entry in batch.entries:
        fields |= {n: v for n, v in entry.fields.items() if n[:1] in b"sp"}
        deleted += [n for n in entry.deleted if n[:1] in b"sp"]
    assert handler.deliver(batch)
    handler.flush()
    return fields, deleted


# ------------------------------------------------------------------------------------------- what is written


def test_a_counter_beside_a_large_text_writes_less_than_200_bytes_of_state(server, handler):
    handler.does("write", K, {"text": LONG})
    handler.call("Page.incr", K)
    fields, deleted = written(handler)
    assert [*fields] == [FIELD] and deleted == []
    assert len(FIELD) + len(fields[FIELD]) < 200
    assert pieces(server)[TEXT] == msgpack.packb(LONG)
    assert handler.shown(K) == {"count": 1, "text": LONG, "notes": []}


def test_a_large_value_that_changes_is_written_alone(handler):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    handler.call("Page.write", K, {"text": OTHER})
    fields, deleted = written(handler)
    assert fields == {TEXT: msgpack.packb(OTHER)} and deleted == []


def test_a_large_value_that_changes_by_one_byte_is_a_change(handler):
    handler.does("write", K, {"text": LONG})
    for changed in ("y" + LONG[1:], LONG[1:] + "y", LONG):
        handler.call("Page.write", K, {"text": changed})
        assert [*written(handler)[0]] == [TEXT]
        assert handler.shown(K)["text"] == changed


def test_a_small_state_is_one_field_as_ever(server, handler):
    handler.does("write", K, {"text": "short", "notes": [1]})
    assert pieces(server) == {FIELD: msgpack.packb({"count": 0, "text": "short", "notes": [1]})}


def test_a_state_of_many_small_values_is_one_field_however_long_it_is(server, handler):
    half = "x" * (LARGE_BYTES - 100)
    handler.does("write", K, {"text": half, "notes": [half]})
    assert [*pieces(server)] == [FIELD] and len(pieces(server)[FIELD]) > LARGE_BYTES


def test_a_state_of_one_value_is_one_field_however_large_it_is():
    blob, fields, deleted = msgpack.packb({"value": LONG}), {}, []
    assert write(FIELD, b"\x80", None, blob, fields, deleted) is None
    assert (fields, deleted) == ({FIELD: blob}, [])


def test_a_value_that_equals_the_whole_state_before_is_written_all_the_same():
    """Where memory does not have a value as it is stored, nothing that it has may pass for it."""
    before = {"count": 1, "text": {"old": LONG}}
    cut = Cut(b"", {"text": (0, 0)})
    after, fields = msgpack.packb({"count": 1, "text": before}), {}
    write(FIELD, msgpack.packb(before), cut, after, fields, [])
    assert fields[TEXT] == msgpack.packb(before)


def test_a_large_value_that_shrinks_is_deleted_with_the_commit_that_takes_it_back(server, handler):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    handler.call("Page.write", K, {"text": "short"})
    fields, deleted = written(handler)
    assert [*fields] == [FIELD] and deleted == [TEXT]
    handler.call("Page.write", K, {"notes": []})
    fields, deleted = written(handler)
    assert fields == {FIELD: msgpack.packb({"count": 0, "text": "short", "notes": []})}
    assert deleted == [NOTES]
    assert [*pieces(server)] == [FIELD]


def test_a_value_at_the_edge_does_not_move_to_and_fro(handler):
    def moved(size):
        handler.call("Page.write", K, {"text": "x" * (size - 3)})  # 3 bytes say how long it is
        written(handler)
        return TEXT in pieces(handler.store._server)

    assert [moved(s) for s in (LARGE_BYTES, LARGE_BYTES + 1, LARGE_BYTES, SMALL_BYTES)] == [
        False,
        True,
        True,
        True,
    ]
    assert [moved(s) for s in (SMALL_BYTES - 1, SMALL_BYTES, LARGE_BYTES)] == [False] * 3


def test_a_key_that_is_deleted_leaves_nothing_behind(server, handler):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    before = pieces(server)
    handler.does("~delete", K)
    assert pieces(server) == {} and len(before) == 3
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    assert pieces(server) == before, "all of it is written anew"


def test_changes_that_go_in_one_batch_leave_what_the_last_one_says(server, leader, handler):
    steps = [{"text": LONG}, {"text": ""}, {"text": OTHER, "notes": [LONG]}, {"notes": []}]
    for fields in steps:
        handler.call("Page.write", K, fields)
    handler.flush()
    check_pieces(server)
    assert heir_of(handler, server, leader).shown(K) == {"count": 0, "text": OTHER, "notes": []}


def test_the_limit_of_a_state_counts_its_large_values(server, leader):
    config = HandlingConfig(max_state_bytes=len(LONG) + 1000)
    handler = Pages(server, config=config).owns_all(leader)
    handler.does("write", K, {"text": LONG})
    refused = handler.does("write", K, {"notes": ["x" * 2000]})
    assert refused.status is Status.ENTITY_ERROR and "over the limit" in refused.answer.value[1]
    assert handler.shown(K) == {"count": 0, "text": LONG, "notes": []}
    assert handler.does("incr", K).answer.value == 1


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
        heir.core._run_waiting(tenure, FIELD, heir.now)
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
        over.core._end()
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
    held = sum(slot.counted_bytes for t in heir.core._tenures.values() for slot in t.slots.values())
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


# ------------------------------------------------------------------- acknowledged state, runs, what is undone


def test_queries_see_the_acknowledged_large_value_while_another_is_on_its_way(handler):
    handler.does("write", K, {"text": LONG})
    handler.call("Page.write", K, {"text": OTHER, "notes": [OTHER]})
    handler.load()
    seen = handler.call("Page.read", K)
    assert seen.answer.value == {"count": 0, "text": LONG, "notes": []}
    handler.flush()
    assert handler.shown(K) == {"count": 0, "text": OTHER, "notes": [OTHER]}


def test_a_command_that_fails_writes_nothing_of_the_large_values_that_it_changed(handler):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    failed = handler.call("Page.write_and_fail", K, {"text": OTHER, "notes": []})
    assert written(handler) == ({}, [])
    assert failed.status is Status.ENTITY_ERROR
    assert handler.shown(K) == {"count": 0, "text": LONG, "notes": [LONG]}


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_writes_the_large_values_that_it_changed_and_nothing_if_it_fails(handler, fails):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    handler.call("Page.write_apart", K, {"text": OTHER})
    handler.load()
    handler.carry_out(fails=fails)
    fields, deleted = written(handler)
    assert [*fields] == ([] if fails else [TEXT]) and deleted == []
    assert handler.shown(K)["text"] == (LONG if fails else OTHER)


# ------------------------------------------------------------------------------- other versions of the class


@mesh.entity(name="Page", version=2)
class Second(Methods):
    count: int = 0
    text: str = ""
    words: list[str] = []  # noqa: RUF012 - defaults are copied for each key

    @mesh.migrate(1)
    @staticmethod
    def shout(fields: dict[str, Any]) -> dict[str, Any]:
        words = fields.pop("notes")
        return {**fields, "text": fields["text"].upper(), "words": words}


def test_what_a_migration_changes_in_a_large_value_is_written_with_the_next_change(
    server, leader, handler
):
    handler.does("write", K, {"text": LONG, "notes": ["n" * 2000]})
    heir = heir_of(handler, server, leader, entity=Second)
    expected = {"count": 0, "text": LONG.upper(), "words": ["n" * 2000]}
    assert heir.shown(K) == expected and NOTES in pieces(server), "nothing is written for reading"
    heir.does("incr", K)
    check_pieces(server)
    assert NOTES not in pieces(server)
    third = heir_of(heir, server, leader, entity=Second)
    assert third.shown(K) == {**expected, "count": 1}
    third.call("Page.incr", K)
    assert [*written(third)[0]] == [FIELD]


def test_large_values_that_this_version_does_not_know_are_kept_and_not_written_again(
    server, leader, handler
):
    handler.does("write", K, {"text": LONG, "notes": [LONG]})
    heir = heir_of(handler, server, leader, entity=Younger)
    assert heir.shown(K) == {"count": 0, "colour": "red"}
    heir.call("Page.incr", K)
    assert [*written(heir)[0]] == [FIELD], "the values are as they were, the state is not"
    heir.does("incr", K)
    again = heir_of(heir, server, leader)
    assert again.shown(K) == {"count": 2, "text": LONG, "notes": [LONG]}


def test_a_state_read_in_another_order_is_the_same_state():
    spec = spec_of(Page)
    head = msgpack.packb([["text"], 1, {"text": None, "notes": [], "count": 1}])
    whole, cut = put_together(head, {"text": msgpack.packb(LONG)})
    slot = Slot(spec, whole, cut)
    assert slot.encode() == slot.blob == slot.acked and slot.instance.text == LONG
    fields: dict[bytes, bytes] = {}
    write(FIELD, slot.blob, slot.cut, slot.blob.replace(b"count\x01", b"count\x02"), fields, [])
    assert [*fields] == [FIELD]


# ------------------------------------------------------------------------------------------- names and bytes


@given(st.text("ab\0", min_size=1), st.binary(min_size=1), st.text(st.characters(codec="utf-8")))
def test_the_name_of_a_part_says_whose_and_what_it_is(entity, key, name):
    field = state_field(entity.replace("\0", "-"), key)
    assert split_part_field(part_field(field, name)) == (field, name)


@given(
    st.dictionaries(
        st.text(max_size=3) | st.integers(0, 9), st.text() | st.binary(max_size=3000), max_size=5
    ),
    st.integers(1, 2**70),
)
def test_what_is_cut_up_is_put_together_to_the_very_same_bytes(values, version):
    row = msgpack.packb(values)
    blob = row if version == 1 else b"\x92" + pack(version) + row
    fields: dict[bytes, bytes] = {}
    cut = write(FIELD, b"", None, blob, fields, [])
    head = fields.pop(FIELD)
    assert is_cut(head) is (cut is not None) is bool(names_in(head))
    parts = {split_part_field(name)[1]: part for name, part in fields.items()}
    assert put_together(head, parts) == (blob, cut)


def test_no_value_of_a_user_passes_for_a_cut_state(server, leader, handler):
    lookalike = [["text"], 1, {"text": None}]
    handler.does("write", K, {"notes": lookalike, "text": LONG})
    handler.does("write", key_in(0, nth=1), {"notes": lookalike})
    heir = heir_of(handler, server, leader)
    assert heir.shown(K)["notes"] == heir.shown(key_in(0, nth=1))["notes"] == lookalike


# ------------------------------------------------------------------------------------ keys that end by time


@mesh.entity(name="Page", ttl=60)
class Fading(Methods):
    count: int = 0
    text: str = ""


@pytest.mark.parametrize("ahead", [False, True])
def test_a_key_that_ends_by_time_takes_its_large_values_along(server, leader, handler, ahead):
    handler.does("write", K, {"text": LONG})
    clock = [1000.0]
    heir = heir_of(handler, server, leader, entity=Fading)
    heir.core.home.wall = lambda: clock[0]
    if ahead:
        heir.warm_up()
        heir.core.on_timer(heir.now)
    else:
        assert heir.shown(K)["text"] == LONG
    heir.flush()
    clock[0] += 61
    for _ in range(3):
        heir.core.on_timer(heir.now)
        heir.flush()
    assert pieces(server) == {}
    assert heir.shown(K) == {"count": 0, "text": ""}


def test_the_time_of_a_change_is_written_without_the_large_values(server, leader, handler):
    handler.does("write", K, {"text": LONG})
    clock = [1000.0]
    heir = heir_of(handler, server, leader, entity=Fading)
    heir.core.home.wall = lambda: clock[0]
    heir.does("incr", K)
    clock[0] += 30
    heir.call("Page.incr", K)
    fields, _ = written(heir)
    assert [*fields] == [FIELD] and len(fields[FIELD]) < 200
    heir.call("Page.write", K, {"text": OTHER})
    assert {*written(heir)[0]} == {FIELD, TEXT}, "the time of the change, and what changed"
    last = heir_of(heir, server, leader, entity=Fading)
    last.core.home.wall = lambda: clock[0]
    assert last.shown(K) == {"count": 2, "text": OTHER}
