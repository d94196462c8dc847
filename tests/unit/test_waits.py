"""What a new owner has to wait for, and for how long."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.epochs import pack_epochs
from mesh.core.lease import Lease, LeaseTiming
from mesh.core.waits import Waits

TIMING = LeaseTiming(duration_s=1.0, drift=0.01, margin_s=0.05)
OUT_S = 1.01


@pytest.fixture
def waits():
    return Waits(TIMING)


def test_a_lease_is_out_so_long_after_its_number_was_first_seen(waits):
    for now in (5.0, 5.5, 5.9):
        waits.saw({b"o1": 7}, now)
    assert waits.out_at(b"o1") == 5.0 + OUT_S
    waits.saw({b"o1": 8}, 6.0)
    assert waits.out_at(b"o1") == 6.0 + OUT_S


def test_of_whom_no_number_was_seen_nothing_is_known(waits):
    assert waits.out_at(b"o1") is None


def test_another_number_counts_whichever_way_it_differs(waits):
    """The store went back, in whatever way: what was seen of a later number says nothing of this one."""
    waits.saw({b"o1": 8}, 5.0)
    waits.saw({b"o1": 7}, 6.0)
    assert waits.out_at(b"o1") == 6.0 + OUT_S


def test_a_takeover_costs_what_is_left_of_the_lease_and_not_a_whole_one(waits):
    waits.saw({b"o1": 7}, 5.0)
    waits.begin(b"o1", [3])
    waits.revoked(b"o1", 7, 5.9)
    assert waits.over(5.0 + OUT_S - 0.001) == [] and 3 in waits
    assert waits.over(5.0 + OUT_S) == [3] and not waits


def test_a_number_that_the_leader_had_not_seen_was_sent_just_now_for_all_it_knows(waits):
    waits.saw({b"o1": 7}, 5.0)
    waits.begin(b"o1", [3])
    waits.revoked(b"o1", 8, 5.9)
    assert waits.over(5.9 + OUT_S - 0.001) == []
    assert waits.over(5.9 + OUT_S) == [3]


def test_before_the_revocation_is_acknowledged_no_wait_ends(waits):
    waits.saw({b"o1": 7}, 5.0)
    waits.begin(b"o1", [3])
    assert waits.over(1e9) == []


def test_a_partition_waits_for_everyone_who_may_still_answer_for_it(waits):
    waits.begin(b"o1", [3, 4], until=6.0)
    waits.begin(b"o2", [4], until=7.0)
    assert waits.over(6.0) == [3]
    assert waits.among([3, 4, 5]) == [4]
    assert waits.end(b"o2") == [4]


def test_a_proof_ends_only_the_waits_for_that_process(waits):
    waits.begin(b"o1", [3], until=math.inf)
    assert waits.end(b"o2") == [] and waits.end(b"o1") == [3]
    waits.revoked(b"o1", 7, 5.0)
    assert not waits and waits.over(1e9) == []


def test_what_is_recorded_is_waited_for_anew_and_in_full(waits):
    waits.begin(b"o1", [3, 4], until=6.0)
    waits.begin(b"o2", [4], until=7.0)
    later = Waits(TIMING)
    later.restart([(nonce, packed) for nonce, packed in waits.encode()], 20.0)
    assert later.among(range(8)) == [3, 4]
    assert later.over(20.0 + OUT_S - 0.001) == []
    assert sorted(later.over(20.0 + OUT_S)) == [3, 4]


def test_a_record_names_each_process_once_with_its_partitions_packed(waits):
    waits.begin(b"o1", [3, 4], until=6.0)
    assert waits.encode() == [[b"o1", pack_epochs([3, 4])]]


@given(
    sends=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=20),
    travel=st.floats(0.0, 0.5),
    reads=st.lists(st.floats(0.0, 4.0), max_size=20),
    revoked=st.floats(0.0, 4.0),
    fast=st.floats(-0.01, 0.01),
    slow=st.floats(-0.01, 0.01),
)
def test_whoever_is_told_after_the_wait_finds_no_valid_lease(
    sends, travel, reads, revoked, fast, slow
):
    """Against a process whose renewals all arrive before the revocation, be its clock as it may."""
    lease, waits = Lease(TIMING), Waits(TIMING)
    landed = {}
    for number, at in enumerate(sorted(sends), 1):
        if at + travel < revoked:
            lease.sent(number, at * (1 + slow))
            lease.acknowledged(number)
            landed[at + travel] = number

    def on_record(at):
        return max((n for t, n in landed.items() if t <= at), default=0)

    for at in sorted(r for r in reads if r < revoked):
        waits.saw({b"o1": on_record(at)}, at * (1 + fast))
    waits.begin(b"o1", [0])
    waits.revoked(b"o1", on_record(revoked), revoked * (1 + fast))
    end = next(iter(waits._ends.values())) / (1 + fast)
    assert not lease.holds(end * (1 + slow))
