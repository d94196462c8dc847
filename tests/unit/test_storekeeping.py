"""What the leader decides about the store: each rule by itself, from what nodes and Sentinels say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.life_numbers import next_life
from mesh.core.records import Life
from mesh.core.storekeeping import Storekeeping
from mesh.core.storeplan import (
    Adopt,
    Change,
    Confirm,
    EndTilt,
    FailOver,
    Follow,
    GiveUp,
    KeepingConfig,
    Known,
    Lead,
    SetPriority,
    Tell,
)
from mesh.core.storeview import NodeSeen, ReplicaSeen, SentinelSeen, StoreSeen
from mesh.core.syncset import InSyncSet

A, B, C = "a:1", "b:2", "c:3"
OLD, NEW = "old-history", "new-history"
CLOCK_US = 5_000_000
DRAWN = 0xABCDEF
EIGHTH = next_life(7, DRAWN)
BOTH = InSyncSet(4, frozenset({B, C}))
LIFE = Life("run-a", 7, 9, 8, 3, BOTH, OLD)


def primary(name=A, *, run_id="run-a", life=LIFE, links=((B, 100), (C, 100)), **changed):
    histories = frozenset({OLD} if name == A else {NEW, OLD})
    node = NodeSeen(name, run_id, histories, 100, links=links, life=life, clock_us=CLOCK_US)
    return replace(node, **changed)


def replica(name, *, follows=A, life=LIFE, **changed):
    node = NodeSeen(name, f"run-{name[0]}", frozenset({OLD}), 100, life=life)
    return replace(node, **({"follows": follows, "is_linked": True, "priority": 100} | changed))


def sentinel(number, *, down=(), zero=(), names=A, age_ms=100, knows=(A, B, C), **changed):
    views = {n: ReplicaSeen(n in down, 0 if n in zero else 100) for n in knows if n != names}
    seen = SentinelSeen(f"s:{number}", names, age_ms, False, False, 1000, 2, views)
    return replace(seen, **changed)


def seen(*nodes, sentinels=(), watchers=3, **changed):
    return StoreSeen(nodes, tuple(sentinels), watchers, **changed)


class Leader:
    """Steps a storekeeping of this life, each round some time after the other."""

    def __init__(self, *, known=Known(7, 9, 4, is_sure=True), leads=True, **config):  # noqa: B008
        self.core = Storekeeping(KeepingConfig(**config), known, lambda: DRAWN, leads=leads)
        self.now = 100.0

    def sees(self, *nodes, after_s=0.1, **views):
        self.now += after_s
        return self.core.step(seen(*nodes, **views), self.now)

    def keeps_seeing(self, *nodes, for_s=3.0, **views):
        effects = []
        for _ in range(round(for_s / 0.1)):
            effects += self.sees(*nodes, **views)
        return effects


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


def only(kind, effects):
    (effect,) = of(kind, effects)
    return effect


ALONE = primary(links=((B, 100),))
"""C is not attached."""


# ----------------------------------------------------------------------------------------------- calm


def test_while_all_is_well_nothing_is_done_and_no_sentinel_is_asked():
    leader = Leader()
    assert leader.keeps_seeing(primary(), replica(B), replica(C)) == []
    assert not leader.core.wants_sentinels and not leader.core.is_alert


def test_a_member_that_is_not_attached_makes_it_ask_the_sentinels_at_once():
    leader = Leader()
    assert leader.sees(ALONE, replica(B)) == []
    assert leader.core.wants_sentinels and leader.core.is_alert


def test_who_finds_another_token_or_life_open_gives_up():
    for found in (replace(LIFE, token=10), replace(LIFE, number=8)):
        assert Leader().sees(primary(life=found)) == [GiveUp(found.number, found.token)]


# ------------------------------------------------------------------------------------------- shrinking


def test_a_majority_that_holds_the_member_for_down_and_the_primary_for_up_takes_it_out():
    views = [sentinel(1, down=[C], age_ms=50), sentinel(2, down=[C], age_ms=300), sentinel(3)]
    effects = Leader().sees(ALONE, replica(B), sentinels=views)
    change = only(Change, effects).change
    assert change.sync_set == InSyncSet(5, frozenset({B}))
    assert change.asked_at_us == CLOCK_US - 300_000
    assert change.max_age_us == 750_000
    assert only(SetPriority, effects) == SetPriority(C, 0)


@pytest.mark.parametrize(
    "second",
    [
        sentinel(2),
        sentinel(2, down=[C], age_ms=601),
        sentinel(2, down=[C], is_primary_down=True),
        sentinel(2, down=[C], is_tilted=True),
        sentinel(2, down=[C], names=B),
        sentinel(2, knows=[B]),
        sentinel(1, down=[C]),
    ],
    ids=[
        "holds it for up",
        "heard the primary long ago",
        "holds that for down",
        "stands still",
        "names another",
        "does not know it",
        "is the first one again",
    ],
)
def test_one_sentinel_is_no_majority_whatever_else_a_second_one_says(second):
    views = [sentinel(1, down=[C]), second]
    assert not of(Change, Leader().sees(ALONE, replica(B), sentinels=views))


def test_a_majority_is_one_of_all_sentinels_not_of_those_that_answer():
    views = [sentinel(n, down=[C]) for n in (1, 2)]
    assert not of(Change, Leader().sees(ALONE, replica(B), sentinels=views, watchers=5))


def test_a_link_that_is_still_listed_need_not_confirm_once_its_node_is_taken_out():
    stopped = primary(links=((B, 100), (C, 50)))
    views = [sentinel(n, down=[C]) for n in (1, 2, 3)]
    leader = Leader()
    leader.keeps_seeing(stopped, replica(B), for_s=0.5)
    change = only(Change, leader.sees(stopped, replica(B), sentinels=views)).change
    assert change.sync_set == InSyncSet(5, frozenset({B}), frozenset({C}))


def test_the_last_member_stays_and_that_is_said_once():
    views = [sentinel(n, down=[B, C]) for n in (1, 2, 3)]
    effects = Leader().keeps_seeing(primary(links=()), sentinels=views)
    assert not of(Change, effects)
    assert only(Tell, effects) == Tell("store_short", {"members": [B, C], "left": 0, "needed": 1})


def test_a_member_that_is_up_and_does_not_follow_loses_its_priority_first():
    leader = Leader()
    views = [sentinel(n) for n in (1, 2, 3)]
    effects = leader.keeps_seeing(ALONE, replica(B), replica(C, is_linked=False), sentinels=views)
    assert set(effects) == {SetPriority(C, 0)}
    # It has; and not every Sentinel shows it.
    idle = replica(C, is_linked=False, priority=0)
    some = [sentinel(1, zero=[C]), sentinel(2, zero=[C]), sentinel(3)]
    assert not of(Change, leader.keeps_seeing(ALONE, replica(B), idle, sentinels=some))
    most = [sentinel(1, zero=[C]), sentinel(2, zero=[C])]
    assert not of(Change, leader.keeps_seeing(ALONE, replica(B), idle, sentinels=most))
    every = [sentinel(n, zero=[C]) for n in (1, 2, 3)]
    change = only(Change, leader.sees(ALONE, replica(B), idle, sentinels=every)).change
    assert change.sync_set == InSyncSet(5, frozenset({B}))


def test_a_member_gets_its_priority_back_once_it_follows_again():
    leader = Leader()
    idle = replica(C, priority=0)
    effects = leader.keeps_seeing(ALONE, replica(B), idle, is_managed=True)
    assert not of(SetPriority, effects)
    effects = leader.keeps_seeing(primary(), replica(B), idle, for_s=0.7, is_managed=True)
    assert effects == [SetPriority(C, 100)]


def test_a_moments_absence_takes_nobody_out():
    leader = Leader()
    views = [sentinel(n) for n in (1, 2, 3)]
    assert not leader.keeps_seeing(ALONE, replica(B), for_s=1.4, sentinels=views)
    assert not leader.sees(primary(), replica(B), replica(C), sentinels=views)


def test_where_nobody_can_be_promoted_an_absence_is_enough():
    effects = Leader().keeps_seeing(ALONE, replica(B), for_s=1.7, watchers=0)
    change = of(Change, effects)[0].change
    assert (change.sync_set.members, change.asked_at_us) == (frozenset({B}), CLOCK_US)


# --------------------------------------------------------------------------------------------- growing


ONE = InSyncSet(5, frozenset({B}))
SHORT = replace(LIFE, sync_set=ONE)
KNOWN = Known(7, 9, 5, is_sure=True)


def test_a_node_that_follows_for_a_while_becomes_a_member_and_then_may_be_promoted():
    leader = Leader(known=KNOWN)
    nodes = primary(life=SHORT), replica(B), replica(C, priority=0)
    assert leader.keeps_seeing(*nodes, for_s=0.5, is_managed=True) == []
    change = only(Change, leader.sees(*nodes, is_managed=True, after_s=0.2)).change
    assert (change.sync_set, change.asked_at_us) == (InSyncSet(6, frozenset({B, C})), None)
    leader.core.on_changed(change.sync_set, acknowledged=False)
    larger = replace(LIFE, sync_set=change.sync_set)
    assert leader.sees(primary(life=larger), *nodes[1:], is_managed=True) == [Confirm()]
    leader.core.on_changed(change.sync_set, acknowledged=True)
    assert leader.sees(primary(life=larger), *nodes[1:], is_managed=True) == [SetPriority(C, 100)]


def test_nobody_is_taken_in_before_the_set_that_there_is_has_acknowledged():
    # M3: else two sets that nobody was acknowledged under lie one behind the other.
    leader = Leader(known=KNOWN._replace(set_version=4))
    nodes = primary(life=SHORT), replica(B), replica(C)
    assert not of(Change, leader.keeps_seeing(*nodes, is_managed=True))


@pytest.mark.parametrize("changed", [{"is_linked": False}, {"follows": ""}])
def test_who_does_not_follow_does_not_become_a_member(changed):
    nodes = primary(life=SHORT), replica(B), replica(C, **changed)
    assert not of(Change, Leader(known=KNOWN).keeps_seeing(*nodes[:2], is_managed=True))


def test_what_an_operator_wants_never_to_be_promoted_need_not_confirm_and_is_left_alone():
    nodes = primary(life=SHORT), replica(B), replica(C, priority=0)
    leader = Leader(known=KNOWN)
    assert not of(Change, leader.keeps_seeing(*nodes, sentinels=[sentinel(1, zero=[C])]))
    every = [sentinel(n, zero=[C]) for n in (1, 2, 3)]
    effects = leader.sees(*nodes, sentinels=every)
    assert only(Change, effects).change.sync_set == InSyncSet(6, frozenset({B}), frozenset({C}))
    assert not of(SetPriority, effects)


def test_a_change_that_was_refused_is_not_taken_for_one_under_way():
    leader = Leader()
    leader.core.on_changed(ONE, acknowledged=False)
    assert Confirm() in leader.sees(primary(), replica(B), replica(C))
    leader.core.on_refused(ONE)
    assert leader.sees(primary(), replica(B), replica(C)) == []


# -------------------------------------------------------------------------------------------- adopting


def promoted(**changed):
    return primary(B, **({"run_id": "run-b", "links": ()} | changed))


def test_a_promoted_member_is_adopted_at_once_and_the_others_are_sent_to_it():
    effects = Leader().sees(promoted(), replica(C))
    assert only(Follow, effects) == Follow(C, B)
    adopt = only(Adopt, effects)
    assert (adopt.node, adopt.previous, adopt.number, adopt.token) == (B, 7, EIGHTH, 10)
    assert (adopt.sync_set, adopt.loss) == (InSyncSet(5, frozenset({C})), "")


def test_the_same_opening_is_asked_for_until_it_is_acknowledged():
    leader = Leader()
    first = only(Adopt, leader.sees(promoted(), replica(C)))
    written = Life("run-b", EIGHTH, 10, 8, 4, first.sync_set, NEW)
    again = leader.sees(promoted(life=written, links=((C, 9),)), replica(C, follows=B))
    assert again == [first]


INCOMPLETE = {
    "it was no member": promoted(life=replace(LIFE, sync_set=InSyncSet(4, frozenset({C})))),
    "its record is of set 3": promoted(life=replace(LIFE, sync_set=replace(BOTH, version=3))),
    "its record is of life 6": promoted(life=replace(LIFE, number=6)),
    "do not continue the history": promoted(histories=frozenset({NEW, "another"})),
}


@pytest.mark.parametrize("why", INCOMPLETE)
def test_what_is_not_shown_complete_is_given_up_for_a_member_that_is(why):
    leader = Leader()
    complete = replica(C, follows=B)
    views = [sentinel(n, names=B) for n in (1, 2, 3)]
    effects = leader.keeps_seeing(INCOMPLETE[why], complete, sentinels=views, for_s=3)
    assert not of(Adopt, effects)
    assert of(FailOver, effects)[0] == FailOver(C)
    assert why in only(Tell, effects).fields["reason"]


@pytest.mark.parametrize("why", INCOMPLETE)
def test_where_no_member_is_complete_it_is_adopted_and_that_is_said_before(why):
    views = [sentinel(n, names=B) for n in (1, 2, 3)]
    attached = replace(INCOMPLETE[why], links=((A, 1),))
    effects = Leader().sees(attached, sentinels=views)
    assert why in only(Adopt, effects).loss
    assert [type(effect) for effect in effects].index(Tell) < len(effects) - 1
    assert only(Tell, effects).kind == "loss_possible"


def test_a_primary_that_no_majority_names_is_not_adopted_in_haste():
    stray = replace(INCOMPLETE["it was no member"], links=((A, 1),))
    views = [sentinel(1, names=B), sentinel(2), sentinel(3)]
    assert not of(Adopt, Leader().keeps_seeing(stray, sentinels=views, for_s=3))


def test_a_new_leader_wants_to_hear_from_every_member():
    known = Known(7, 9, 4, is_sure=False)
    leader = Leader(known=known, leads=False)
    views = [sentinel(n, names=B) for n in (1, 2, 3)]
    assert "member c:3 does not say" in only(Adopt, leader.sees(promoted(), sentinels=views)).loss
    assert only(Adopt, Leader(known=known, leads=False).sees(promoted(), replica(C))).loss == ""


def test_a_later_record_counts_only_if_its_set_can_have_acknowledged():
    # A shrink to C is on the old primary alone, or on C as well.
    shrunk = replace(LIFE, sync_set=InSyncSet(5, frozenset({C})))
    views = [sentinel(n, names=B) for n in (1, 2, 3)]
    old = replica(A, life=shrunk)
    nobody = Leader().sees(promoted(), old, replica(C), sentinels=views)
    assert only(Adopt, nobody).loss == ""
    acknowledged = Leader().sees(promoted(), old, replica(C, life=shrunk), sentinels=views)
    assert only(FailOver, acknowledged) == FailOver(C)


def test_a_set_that_was_sent_and_never_answered_counts_like_a_record():
    leader = Leader()
    leader.core.on_changed(InSyncSet(5, frozenset({C})), acknowledged=False)
    views = [sentinel(n, names=B) for n in (1, 2, 3)]
    assert (
        "set 5 may have acknowledged"
        in only(Tell, leader.sees(promoted(links=((A, 1),)), sentinels=views)).fields["reason"]
    )


def test_an_empty_primary_is_never_adopted():
    empty = promoted(life=None, links=((C, 1),))
    views = [sentinel(n, names=B) for n in (1, 2, 3)]
    effects = Leader().keeps_seeing(empty, sentinels=views, for_s=60)
    assert not of(Adopt, effects)
    assert only(Tell, effects).fields["reason"] == "it holds nothing of the mesh"
    effects = Leader().keeps_seeing(empty, for_s=60, watchers=0)
    assert not of(Adopt, effects)


def test_a_life_is_not_opened_without_anyone_to_acknowledge_it():
    alone = replace(LIFE, sync_set=InSyncSet(4, frozenset({B})))
    leader = Leader()
    assert not of(Adopt, leader.sees(promoted(life=alone)))
    adopt = only(Adopt, leader.sees(promoted(life=alone, links=((A, 1),))))
    assert adopt.sync_set == InSyncSet(5, frozenset({A}))


def test_of_two_primaries_the_open_one_is_kept_until_a_majority_names_a_complete_one():
    both = primary(links=()), promoted(), replica(C)
    assert not of(Adopt, Leader().sees(*both))
    views = [sentinel(1, names=B), sentinel(2), sentinel(3)]
    assert not of(Adopt, Leader().sees(*both, sentinels=views))
    views = [sentinel(1, names=B), sentinel(2, names=B), sentinel(3)]
    assert only(Adopt, Leader().sees(*both, sentinels=views)).node == B


def test_an_old_primary_that_wakes_up_is_left_alone_though_sentinels_still_name_it():
    life = Life("run-b", EIGHTH, 10, 8, 4, InSyncSet(5, frozenset({C})), NEW)
    leader = Leader(known=Known(EIGHTH, 10, 5, is_sure=True))
    views = [sentinel(n) for n in (1, 2, 3)]
    nodes = primary(links=()), promoted(life=life, links=((C, 100),)), replica(C, follows=B)
    assert leader.keeps_seeing(*nodes, sentinels=views) == []


def test_an_opening_of_its_own_that_was_left_behind_is_no_other_leader_whatever_its_number():
    life = Life("run-b", EIGHTH, 10, 8, 4, InSyncSet(5, frozenset({C})), NEW)
    behind = replace(life, run_id="run-a", number=EIGHTH + 1, history=OLD)
    leader = Leader(known=Known(EIGHTH, 10, 5, is_sure=True))
    there = promoted(life=life, links=((C, 100),)), replica(C, follows=B)
    assert leader.sees(primary(links=(), life=behind), *there) == []
    of_another = replace(behind, token=11)
    assert leader.sees(primary(links=(), life=of_another), *there) == [GiveUp(EIGHTH + 1, 11)]


def test_a_plain_store_that_restarted_is_adopted_and_what_may_be_missing_is_said():
    again = primary(run_id="run-2", histories=frozenset({NEW}))
    effects = Leader().sees(again, watchers=0)
    assert only(Adopt, effects).loss
    assert only(Tell, effects).kind == "loss_possible"


BACK = primary(run_id="run-2", histories=frozenset({NEW}), keeps_all=True)
"""The primary, restarted: it syncs each write."""


def test_a_primary_that_syncs_each_write_is_back_whole_for_who_has_seen_it_open():
    leader = Leader()
    leader.sees(primary(), replica(B), replica(C))
    effects = leader.sees(BACK, replica(B), replica(C), watchers=0)
    assert only(Adopt, effects).loss == "" and not of(Tell, effects)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (primary(), replace(BACK, keeps_all=False)),
        (primary(), primary(B, run_id="run-2", histories=frozenset({NEW}), keeps_all=True)),
        (primary(life=replace(LIFE, number=8, token=9)), BACK),
    ],
    ids=["it does not", "it was a replica", "another life was open there"],
)
def test_otherwise_what_a_restarted_node_keeps_shows_nothing(before, after):
    leader = Leader(known=Known(before.life.number, 9, 4))
    leader.sees(before, replica(C), watchers=0)
    effects = leader.sees(after, replica(C), watchers=0)
    assert only(Adopt, effects).loss


@pytest.mark.parametrize(("durability", "loss"), [("fsynced", False), ("process", True)])
def test_whether_a_restart_forgets_depends_on_what_an_acknowledgement_stood_for(durability, loss):
    recorded = replace(LIFE, sync_set=InSyncSet(4, frozenset(), durability=durability))
    again = primary(run_id="run-2", histories=frozenset({NEW}), life=recorded, links=())
    effects = Leader(durability=durability).sees(again, watchers=0)
    assert bool(only(Adopt, effects).loss) is loss
    assert only(Adopt, effects).sync_set == replace(recorded.sync_set, version=5)


# ------------------------------------------------------------------------------ nobody is the primary


def test_without_a_primary_it_waits_for_the_sentinels_and_says_so():
    effects = Leader().keeps_seeing(replica(B), replica(C), for_s=4.5)
    assert effects == [Tell("store_lost", {"answering": [B, C]})]


def test_sentinels_that_stand_still_are_told_not_to():
    tilted = [sentinel(n, is_tilted=True) for n in (1, 2)]
    effects = Leader().keeps_seeing(replica(B), sentinels=[*tilted, sentinel(3)], for_s=1)
    assert of(EndTilt, effects)[0] == EndTilt(("s:1", "s:2"), 5000)
    one = [sentinel(1, is_tilted=True), sentinel(2), sentinel(3)]
    assert not of(EndTilt, Leader().keeps_seeing(replica(B), sentinels=one, for_s=1))


def test_a_complete_member_that_nobody_may_promote_is_promoted_in_the_end():
    effects = Leader().keeps_seeing(replica(B, priority=0), for_s=6)
    assert of(FailOver, effects)[0] == FailOver(B)


# ------------------------------------------------------------------------------------------------ bids


def test_a_bid_goes_to_the_node_on_which_the_life_is_open():
    leader = Leader(known=Known(), leads=False)
    assert leader.sees(primary(), replica(B), replica(C)) == [Lead(A, LIFE, None)]


def test_a_bid_takes_the_member_along_that_it_would_wait_for():
    leader = Leader(known=Known(), leads=False)
    views = [sentinel(n, down=[C]) for n in (1, 2, 3)]
    lead = only(Lead, leader.sees(ALONE, replica(B), sentinels=views))
    assert lead.change.sync_set == InSyncSet(5, frozenset({B}))


def test_times_that_cannot_work_are_refused_with_both_values():
    with pytest.raises(ValueError, match=r"lag_s 0.3 must be above quick_s 0.4"):
        KeepingConfig(lag_s=0.3)


def test_a_count_that_was_tried_is_not_tried_again():
    leader = Leader()
    again = primary(run_id="run-2", histories=frozenset({NEW}), keeps_all=True)
    leader.sees(primary(), replica(B), replica(C))
    assert only(Adopt, leader.sees(again, replica(B), replica(C), watchers=0)).number == EIGHTH
    adopt = only(Adopt, leader.sees(promoted(), replica(C), watchers=0))
    assert adopt.number == next_life(EIGHTH, DRAWN)
