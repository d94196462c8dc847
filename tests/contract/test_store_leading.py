"""Who leads, and who has to have a write: bids, and changes of the in-sync set."""

from __future__ import annotations

import pytest

from mesh.core.records import Bid, ChangeSet, SetChange, StoreStatus
from mesh.core.syncset import InSyncSet
from mesh.ids import new_operation

SECOND_US = 1_000_000
ONE = InSyncSet(1, frozenset({"10.0.0.1:1"}))
TWO = InSyncSet(1, frozenset({"10.0.0.1:1", "10.0.0.2:2"}))


def bid(mesh, **changed):
    named = {"life": mesh.life, "token": mesh.token, "new_token": mesh.token + 1} | changed
    return Bid(new_operation(), **named)


async def shrink(mesh, sync_set, *, age_us=0, **changed):
    """A call decided from what was asked `age_us` ago."""
    asked_at_us = await mesh.store.clock_us() - age_us
    return growth(mesh, SetChange(sync_set, asked_at_us, SECOND_US), **changed)


def growth(mesh, change, **changed):
    named = {"life": mesh.life, "token": mesh.token} | changed
    return ChangeSet(new_operation(), change=change, **named)


async def recorded_set(mesh):
    return (await mesh.store.recorded()).life.sync_set


# ----------------------------------------------------------------------------------- bids


async def test_a_bid_changes_the_token_and_nothing_else(mesh):
    await mesh.open()
    grants = [await mesh.join(p) for p in (1, 2)]
    await mesh.takeover(table=b"last", intents=b"plans", revoke=(grants[1].nonce,))
    before = await mesh.store.recorded()
    reply = await mesh.store.bid(bid(mesh))
    assert (reply.status, reply.acknowledged) == (StoreStatus.OK, True)
    assert reply.versions == {grants[0].nonce: grants[0].version}
    after = await mesh.store.recorded()
    assert after.life.token == mesh.token + 1
    assert (after.life.number, after.life.sync_set) == (before.life.number, before.life.sync_set)
    assert (after.table, after.grants, after.intents) == (b"last", before.grants, b"plans")
    assert (await mesh.store.commit(0, grants[0], 1, 1, [])).status is StoreStatus.OK


async def test_whoever_led_before_a_bid_is_deposed(mesh):
    await mesh.open()
    await mesh.store.bid(bid(mesh))
    assert (await mesh.takeover()).status is StoreStatus.DEPOSED
    change = growth(mesh, SetChange(InSyncSet(2, frozenset({"10.0.0.1:1"}))))
    assert (await mesh.store.change_set(change)).status is StoreStatus.DEPOSED
    mesh.token += 1
    assert (await mesh.takeover()).status is StoreStatus.OK


async def test_of_two_bids_that_saw_the_same_token_one_is_taken(mesh):
    await mesh.open()
    replies = [await mesh.another().bid(bid(mesh)) for _ in range(2)]
    assert [reply.status for reply in replies] == [StoreStatus.OK, StoreStatus.DEPOSED]


async def test_a_bid_with_a_token_that_is_not_higher_is_refused(mesh):
    await mesh.open()
    reply = await mesh.store.bid(bid(mesh, new_token=mesh.token))
    assert reply.status is StoreStatus.CONFLICT
    assert reply.detail == "token 1 is not above 1"


async def test_a_bid_repeated_has_the_same_answer_and_changes_nothing(mesh):
    await mesh.open()
    await mesh.join(1)
    call = bid(mesh)
    first = await mesh.store.bid(call)
    assert first.acknowledged
    before = await mesh.store.recorded()
    assert await mesh.store.bid(call) == first
    assert await mesh.store.recorded() == before


async def test_a_bid_takes_no_lead_in_a_life_that_is_not_open(mesh):
    await mesh.open()
    assert (await mesh.store.bid(bid(mesh, life=2))).status is StoreStatus.CLOSED
    await mesh.restart()
    assert (await mesh.store.bid(bid(mesh))).status is StoreStatus.CLOSED
    assert (await mesh.store.recorded()).life.token == mesh.token


async def test_a_bid_is_acknowledged_like_any_write(mesh):
    await mesh.open()
    member, _ = await mesh.store.links()
    await mesh.pause(member)
    reply = await mesh.store.bid(bid(mesh))
    assert (reply.status, reply.acknowledged) == (StoreStatus.OK, False)


async def test_a_bid_may_take_out_the_member_that_it_would_wait_for(mesh):
    # F1 (d): leader and replica die together.
    await mesh.open()
    gone, left = await mesh.store.links()
    await mesh.pause(gone)
    now_us = await mesh.store.clock_us()
    shrunk = SetChange(InSyncSet(2, frozenset({left}), frozenset({gone})), now_us, SECOND_US)
    reply = await mesh.store.bid(bid(mesh, change=shrunk))
    assert (reply.status, reply.acknowledged) == (StoreStatus.OK, True)
    assert await recorded_set(mesh) == shrunk.sync_set


async def test_a_bid_whose_change_is_refused_is_no_bid(mesh):
    await mesh.open(TWO)
    late = SetChange(InSyncSet(2, ONE.members), await mesh.store.clock_us() - 2 * SECOND_US, 1)
    assert (await mesh.store.bid(bid(mesh, change=late))).status is StoreStatus.OLD
    found = (await mesh.store.recorded()).life
    assert (found.token, found.sync_set) == (mesh.token, TWO)


# ----------------------------------------------------------------------------------- sets


async def test_a_change_of_the_set_is_acknowledged_by_the_new_one(mesh):
    # F1: with the dead replica in the set nothing would ever be acknowledged again.
    await mesh.open()
    gone, left = await mesh.store.links()
    await mesh.pause(gone)
    smaller = InSyncSet(2, frozenset({left}), frozenset({gone}))
    reply = await mesh.store.change_set(await shrink(mesh, smaller))
    assert (reply.status, reply.acknowledged) == (StoreStatus.OK, True)
    assert await recorded_set(mesh) == smaller
    larger = InSyncSet(3, frozenset({gone, left}))
    reply = await mesh.store.change_set(growth(mesh, SetChange(larger)))
    assert (reply.status, reply.acknowledged) == (StoreStatus.OK, False)
    assert await recorded_set(mesh) == larger


async def test_a_commit_tells_the_set_that_is_recorded_when_it_arrives(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    _, left = await mesh.store.links()
    before = await mesh.store.commit(0, grant, 1, 1, [])
    await mesh.store.change_set(await shrink(mesh, InSyncSet(2, frozenset({left}))))
    after = await mesh.another().commit(1, grant, 1, 2, [])
    assert (before.set_version, after.set_version) == (1, 2)


@pytest.mark.parametrize("version", [1, 3])
async def test_only_the_next_version_of_the_set_is_taken(mesh, version):
    await mesh.open(ONE)
    call = growth(mesh, SetChange(InSyncSet(version, TWO.members)))
    reply = await mesh.store.change_set(call)
    assert reply.status is StoreStatus.CONFLICT
    assert reply.detail == f"set 1 is recorded, {version} is not the next"
    assert await recorded_set(mesh) == ONE


async def test_the_last_member_is_not_taken_out(mesh):
    await mesh.open(ONE)
    reply = await mesh.store.change_set(await shrink(mesh, InSyncSet(2, frozenset())))
    assert (reply.status, reply.detail) == (StoreStatus.CONFLICT, "no member would be left")


async def test_the_durability_is_fixed_for_a_life(mesh):
    await mesh.open(ONE)
    changed = InSyncSet(2, ONE.members, durability="process")
    reply = await mesh.store.change_set(growth(mesh, SetChange(changed)))
    assert reply.status is StoreStatus.CONFLICT
    assert reply.detail == "the durability is replicated, not process"


@pytest.mark.parametrize(
    "smaller",
    [
        InSyncSet(2, frozenset({"10.0.0.1:1"})),
        InSyncSet(2, frozenset({"10.0.0.1:1", "10.0.0.3:3"})),
        InSyncSet(2, TWO.members, frozenset({"10.0.0.3:3"})),
    ],
    ids=["a member fewer", "a member exchanged", "a node that need not confirm"],
)
async def test_what_asks_for_less_than_before_has_to_be_recent(mesh, smaller):
    # F1: the leader was paused between its question and its shrink; a majority has changed sides since.
    await mesh.open(TWO)
    late = await shrink(mesh, smaller, age_us=SECOND_US + 1)
    assert (await mesh.store.change_set(late)).status is StoreStatus.OLD
    undated = await mesh.store.change_set(growth(mesh, SetChange(smaller)))
    assert undated.status is StoreStatus.CONFLICT
    assert await recorded_set(mesh) == TWO
    assert (await mesh.store.change_set(await shrink(mesh, smaller))).status is StoreStatus.OK


async def test_a_change_repeated_changes_nothing_and_is_judged_again(mesh):
    await mesh.open()
    gone, left = await mesh.store.links()
    await mesh.pause(left)
    call = await shrink(mesh, InSyncSet(2, frozenset({left}), frozenset({gone})))
    assert not (await mesh.store.change_set(call)).acknowledged
    before = await mesh.store.recorded()
    await mesh.resume(left)

    async def repeated():
        reply = await mesh.store.change_set(call)
        assert reply.status is StoreStatus.OK
        return reply.acknowledged

    await mesh.until(repeated)
    assert await mesh.store.recorded() == before


async def test_a_takeover_is_repeated_behind_a_change_of_the_set(mesh):
    # They are under way at the same time; neither may make the other look like new.
    await mesh.open()
    _, left = await mesh.store.links()
    call = mesh.call(enroll=((b"nonce", "h-0"),))
    first = await mesh.store.takeover(call)
    await mesh.store.change_set(await shrink(mesh, InSyncSet(2, frozenset({left}))))
    again = await mesh.store.takeover(call)
    assert (again.status, again.versions) == (StoreStatus.OK, first.versions)


async def test_no_set_is_changed_in_a_life_that_is_not_open(mesh):
    await mesh.open(ONE)
    call = growth(mesh, SetChange(InSyncSet(2, TWO.members)))
    await mesh.restart()
    assert (await mesh.store.change_set(call)).status is StoreStatus.CLOSED
    assert await recorded_set(mesh) == ONE


async def test_the_primarys_clock_does_not_go_back(mesh):
    first = await mesh.store.clock_us()
    assert 1_600_000_000_000_000 < first <= await mesh.store.clock_us()
