"""When a write counts as replicated: judged by members, never by a count."""

import pytest

from mesh.core.syncset import InSyncSet, Role, is_acknowledged, links_to_wait_for

B, C, D = "10.0.0.2:6379", "10.0.0.3:6379", "10.0.0.4:6379"
BOTH = InSyncSet(1, frozenset({B, C}))
ONLY_B = InSyncSet(2, frozenset({B}))


def role(offset, *links):
    return Role(offset, tuple(links))


def acknowledged(sync_set, written, *links, **kwargs):
    return is_acknowledged(sync_set, role(written), role(written + 40, *links), **kwargs)


def test_a_write_counts_once_every_member_has_it():
    assert acknowledged(BOTH, 100, (B, 100), (C, 140))
    assert not acknowledged(BOTH, 100, (B, 99), (C, 140))


def test_the_right_count_with_a_member_behind_is_not_enough():
    """F2: the set is {B}, WAIT 1 was answered by C."""
    assert not acknowledged(ONLY_B, 100, (B, 50), (C, 100))


def test_a_member_that_is_not_attached_has_not_confirmed():
    assert not acknowledged(BOTH, 100, (B, 100))
    assert not acknowledged(ONLY_B, 0)


def test_a_second_link_under_a_members_name_does_not_speak_for_it():
    """A half-open leftover of a reconnected replica is listed beside its new link."""
    assert not acknowledged(ONLY_B, 100, (B, 50), (B, 100))
    assert not acknowledged(ONLY_B, 100, (B, 100), (B, 50))
    assert acknowledged(ONLY_B, 100, (B, 100), (B, 100))


def test_a_link_that_could_be_promoted_has_to_confirm_though_it_is_no_member():
    """F12(b): for Sentinel a new replica is a candidate before it is in the set."""
    assert not acknowledged(ONLY_B, 100, (B, 100), (D, 10))
    marked = InSyncSet(3, frozenset({B}), no_candidates=frozenset({D}))
    assert acknowledged(marked, 100, (B, 100), (D, 10))


def test_a_member_has_to_confirm_though_it_is_marked_no_candidate():
    odd = InSyncSet(3, frozenset({B}), no_candidates=frozenset({B}))
    assert not acknowledged(odd, 100, (B, 10))


def test_a_node_that_is_no_primary_acknowledges_nothing():
    whole = role(100, (B, 100), (C, 100))
    assert is_acknowledged(BOTH, whole, whole)
    assert not is_acknowledged(BOTH, None, whole)
    assert not is_acknowledged(BOTH, whole, None)


def test_a_replicated_set_without_members_acknowledges_nothing():
    assert not acknowledged(InSyncSet(1, frozenset()), 100)


def test_fsynced_asks_for_the_primarys_own_disk():
    disk = InSyncSet(1, frozenset(), durability="fsynced")
    assert not acknowledged(disk, 100)
    assert acknowledged(disk, 100, fsynced=True)


def test_a_replicated_set_is_not_satisfied_by_a_disk():
    assert not acknowledged(ONLY_B, 100, (B, 99), fsynced=True)


def test_process_durability_is_the_primarys_word_alone():
    assert acknowledged(InSyncSet(1, frozenset(), durability="process"), 100)


@pytest.mark.parametrize(
    ("sync_set", "links", "count"),
    [
        (BOTH, (B, C), 2),
        (BOTH, (B,), 2),
        (ONLY_B, (B, C), 2),  # C could be promoted
        (ONLY_B, (B, B), 2),  # WAIT counts links
        (ONLY_B, (), 1),
        (InSyncSet(3, frozenset({B}), no_candidates=frozenset({C})), (B, C), 1),
        (InSyncSet(1, frozenset(), durability="process"), (), 0),
    ],
)
def test_wait_is_told_the_number_of_links_that_have_to_confirm(sync_set, links, count):
    """R4: told a lower one it returns early, and the ROLE behind it finds a member short each time."""
    assert links_to_wait_for(sync_set, role(1, *((name, 1) for name in links))) == count


def test_before_the_first_role_wait_is_told_the_number_of_members():
    assert links_to_wait_for(BOTH, None) == 2


def test_a_roles_reply_names_each_link_by_address_and_offset():
    reply = [b"master", 3129, [[b"10.0.0.2", b"6379", b"3129"], [b"10.0.0.3", b"6379", b"15"]]]
    assert Role.from_reply(reply) == role(3129, (B, 3129), (C, 15))


@pytest.mark.parametrize(
    "reply", [[], [b"slave", b"10.0.0.1", 6379, b"connected", 1], [b"sentinel", []]]
)
def test_only_a_primarys_role_is_one(reply):
    assert Role.from_reply(reply) is None


def test_the_record_reads_back_as_it_was_written():
    record = InSyncSet(9, frozenset({B, C}), frozenset({D}), "fsynced")
    assert InSyncSet.decode(record.encode()) == record
