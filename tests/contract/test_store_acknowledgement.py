"""Acknowledged means: on every member of the set, and on whatever else could be promoted."""

from __future__ import annotations

import pytest

from mesh.core.records import StoreStatus
from mesh.core.syncset import InSyncSet


async def acknowledged(mesh, grant, seq):
    reply = await mesh.store.commit(0, grant, seq, seq, [mesh.entry(1, a=b"%d" % seq)])
    assert reply.status is StoreStatus.OK
    return reply.acknowledged


async def test_a_member_that_is_behind_leaves_a_batch_unacknowledged(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    link, _ = await mesh.store.links()
    await mesh.pause(link)
    assert not await acknowledged(mesh, grant, 1)
    assert await mesh.read(grant, 1, b"a") == [b"1"]  # it is applied all the same


async def test_a_batch_sent_again_is_acknowledged_once_the_member_has_it(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    link, _ = await mesh.store.links()
    await mesh.pause(link)
    assert not await acknowledged(mesh, grant, 1)
    assert not await acknowledged(mesh, grant, 1)
    await mesh.resume(link)

    async def again():
        return await acknowledged(mesh, grant, 1)

    await mesh.until(again)


async def test_a_count_is_no_member_list(mesh):
    # Schedule F2: the one confirmation that WAIT 1 counts is that of a replica outside the set.
    member, other = await mesh.store.links()
    await mesh.open(InSyncSet(1, frozenset({member}), frozenset({other})))
    grant = await mesh.join(1)
    assert await acknowledged(mesh, grant, 1)
    await mesh.pause(member)
    assert not await acknowledged(mesh, grant, 2)


async def test_a_link_that_is_never_promoted_need_not_confirm(mesh):
    member, other = await mesh.store.links()
    await mesh.open(InSyncSet(1, frozenset({member}), frozenset({other})))
    grant = await mesh.join(1)
    await mesh.pause(other)
    assert await acknowledged(mesh, grant, 1)


async def test_a_link_that_need_not_confirm_and_is_faster_leaves_no_batch_short(mesh):
    # Schedule R4 once more: WAIT 1 returns at the other's confirmation, and the member has it too.
    for member in await mesh.store.links():
        (other,) = set(await mesh.store.links()) - {member}
        await mesh.open(InSyncSet(1, frozenset({member}), frozenset({other})))
        grant = await mesh.join(1)
        for seq in range(1, 100):
            assert await acknowledged(mesh, grant, seq)
        await mesh.takeover(revoke=(grant.nonce,))


async def test_an_attached_link_outside_the_set_must_confirm_too(mesh):
    # Schedule F12 (b): Sentinel may promote a new replica before it is in the set.
    member, other = await mesh.store.links()
    await mesh.open(InSyncSet(1, frozenset({member})))
    grant = await mesh.join(1)
    assert await acknowledged(mesh, grant, 1)
    await mesh.pause(other)
    assert not await acknowledged(mesh, grant, 2)


async def test_with_a_link_outside_the_set_a_batch_is_acknowledged_at_the_first_try(mesh):
    # Schedule R4: WAIT for as many as the set has returns before the others have confirmed.
    member, _ = await mesh.store.links()
    await mesh.open(InSyncSet(1, frozenset({member})))
    grant = await mesh.join(1)
    await acknowledged(mesh, grant, 1)
    for seq in range(2, 100):
        assert await acknowledged(mesh, grant, seq)


async def test_a_member_that_is_not_attached_leaves_everything_unacknowledged(mesh):
    links = await mesh.store.links()
    opened = await mesh.open(InSyncSet(1, frozenset({*links, "10.0.0.9:1"})))
    assert not opened.acknowledged
    grant = await mesh.join(1)
    assert not await acknowledged(mesh, grant, 1)


async def test_a_replicated_life_without_members_acknowledges_nothing(mesh):
    opened = await mesh.open(InSyncSet(1, frozenset()))
    assert not opened.acknowledged


@pytest.mark.parametrize("durability", ["process", "fsynced"])
async def test_other_durabilities_do_without_members(mesh, durability):
    if durability == "fsynced" and not await mesh.can_confirm_fsync():
        pytest.skip("this server has no WAITAOF")
    opened = await mesh.open(InSyncSet(1, frozenset(), durability=durability))
    assert opened.status is StoreStatus.OK
    grant = await mesh.join(1)

    async def committed():
        return await acknowledged(mesh, grant, 1)

    await mesh.until(committed)


async def test_a_leaders_call_is_acknowledged_the_same_way(mesh):
    await mesh.open()
    link, _ = await mesh.store.links()
    await mesh.pause(link)
    call = mesh.call()
    first = await mesh.store.takeover(call)
    assert (first.status, first.acknowledged) == (StoreStatus.OK, False)
    await mesh.resume(link)

    async def repeated():
        reply = await mesh.store.takeover(call)
        assert reply.status is StoreStatus.OK
        return reply.acknowledged

    await mesh.until(repeated)


async def test_an_opening_is_acknowledged_by_the_new_set(mesh):
    member, other = await mesh.store.links()
    await mesh.open()
    await mesh.pause(other)
    short = await mesh.open(InSyncSet(2, frozenset({member, other})))
    assert not short.acknowledged
    shrunk = await mesh.open(InSyncSet(3, frozenset({member}), frozenset({other})))
    assert shrunk.acknowledged
