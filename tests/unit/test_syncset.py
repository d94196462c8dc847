"""When is a write acknowledged? By names and offsets, never by a count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.syncset import (
    InSyncSet,
    Role,
    is_acknowledged,
    links_to_wait_for,
    must_confirm,
)

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


def role(offset: int, **links: int) -> Role:
    names = {"a": A, "b": B, "c": C}
    return Role(offset, tuple((names[name], seen) for name, seen in links.items()))


def members(*names: str, no_candidates: tuple[str, ...] = (), durability="replicated") -> InSyncSet:
    return InSyncSet(1, frozenset(names), frozenset(no_candidates), durability)


@pytest.mark.parametrize(
    ("sync_set", "after", "expected"),
    [
        (members(A), role(10, a=10), True),
        (members(A), role(10, a=11), True),
        (members(A), role(10, a=9), False),
        (members(A, B), role(10, a=10, b=10), True),
        (members(A, B), role(10, a=10), False),  # a member that is not attached
        (members(A), role(10, a=9, b=10), False),  # F2: the count is right
        (members(A), role(10, a=10, b=9), False),  # F12 b: b may be promoted
        (members(A, no_candidates=(B,)), role(10, a=10, b=9), True),
        (members(A, no_candidates=(B,)), role(10, a=9, b=10), False),
        (members(), role(10), False),
        (members(), role(10, a=10), False),
        (members(durability="process"), role(10), True),
        (members(durability="process"), role(10, a=9), False),
    ],
)
def test_every_member_and_every_candidate_must_show_the_offset(sync_set, after, expected):
    assert is_acknowledged(sync_set, role(10), after) is expected


def test_a_name_listed_twice_counts_by_its_lowest_offset():
    twice = Role(10, ((A, 10), (A, 3)))
    assert not is_acknowledged(members(A), role(10), twice)


@pytest.mark.parametrize(("before", "after"), [(None, role(1, a=1)), (role(1), None)])
def test_a_node_that_is_no_primary_acknowledges_nothing(before, after):
    assert not is_acknowledged(members(A), before, after)


def test_fsynced_asks_for_the_disk_too():
    on_disk = members(durability="fsynced")
    assert not is_acknowledged(on_disk, role(10), role(10))
    assert is_acknowledged(on_disk, role(10), role(10), fsynced=True)
    assert not is_acknowledged(members(A), role(10), role(10, a=9), fsynced=True)


@pytest.mark.parametrize(
    ("sync_set", "last", "expected"),
    [
        (members(A, B), None, 2),
        (members(A, B), role(0, a=0, b=0), 2),
        (members(A), role(0, a=0, b=0), 2),  # R4
        (members(A, no_candidates=(B,)), role(0, a=0, b=0), 1),
        (members(A, B), role(0, a=0), 2),
        (members(durability="process"), role(0), 0),
        (members(A), Role(0, ((A, 0), (A, 0))), 2),  # two links of one node are two of WAIT's
    ],
)
def test_wait_counts_every_link_that_must_confirm(sync_set, last, expected):
    assert links_to_wait_for(sync_set, last) == expected


@pytest.mark.parametrize("reply", [[], [b"slave", b"h", 1, b"connected", 0], [b"sentinel", []]])
def test_only_a_primary_has_a_role_here(reply):
    assert Role.from_reply(reply) is None


def test_a_primarys_role_is_read_as_it_is_sent():
    reply = [b"master", 42, [[b"10.0.0.1", b"1", b"40"], [b"10.0.0.2", b"1", b"42"]]]
    assert Role.from_reply(reply) == role(42, a=40, b=42)


names = st.sampled_from([A, B, C])
sets = st.builds(
    InSyncSet,
    st.integers(0, 2**31),
    st.frozensets(names),
    st.frozensets(names),
    st.sampled_from(["replicated", "fsynced", "process"]),
)
roles = st.builds(
    Role,
    st.integers(0, 5),
    st.lists(st.tuples(names, st.integers(0, 5)), max_size=4).map(tuple),
)


@given(sets)
def test_a_set_survives_its_own_bytes(sync_set):
    assert InSyncSet.decode(sync_set.encode()) == sync_set


@given(sets, roles, roles)
def test_whatever_is_acknowledged_is_on_every_node_that_must_have_it(sync_set, before, after):
    if is_acknowledged(sync_set, before, after, fsynced=True):
        required = must_confirm(sync_set, (name for name, _ in after.links))
        assert sync_set.members <= required
        for name in required:
            offsets = [offset for link, offset in after.links if link == name]
            assert offsets
            assert min(offsets) >= before.offset


@given(sets, roles)
def test_wait_never_returns_before_all_that_must_confirm_could_have(sync_set, last):
    required = must_confirm(sync_set, (name for name, _ in last.links))
    assert links_to_wait_for(sync_set, last) >= len(required)
