"""What is written of a state that has large values."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.parts_rig import (
    FIELD,
    LONG,
    NOTES,
    OTHER,
    TEXT,
    K,
    Methods,
    Page,
    Pages,
    Younger,
    check_pieces,
    heir_of,
    pieces,
    written,
)
from unit.rigs import key_in

import mesh
from mesh.codec import pack
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


@pytest.fixture
def handler(server, leader):
    return Pages(server).owns_all(leader)


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
