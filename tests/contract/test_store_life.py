"""Lives: who may open one, and what it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.life_numbers import next_life
from mesh.core.records import Bid, ChangeSet, OpenLife, SetChange, StoreStatus, Verdict
from mesh.core.syncset import InSyncSet
from mesh.ids import new_operation

SET = InSyncSet(3, frozenset({"10.0.0.1:1"}), frozenset({"10.0.0.2:2"}))


async def test_a_new_store_has_nothing_on_record(mesh):
    found = await mesh.store.recorded()
    assert found.life is None
    assert (found.table, found.intents, found.grants) == (b"", b"", {})
    assert len(found.run_id) == 40


async def test_a_life_is_recorded_as_given(mesh):
    reply = await mesh.store.open_life(OpenLife(new_operation(), 0, 5, 9, 64, SET))
    assert reply.status is StoreStatus.OK
    assert not reply.acknowledged  # its one member is not even attached
    found = await mesh.store.recorded()
    assert found.life.run_id == found.run_id
    assert (found.life.number, found.life.token, found.life.partitions) == (5, 9, 64)
    assert (found.life.opened_from, found.life.sync_set) == (0, SET)


async def test_a_later_life_tells_the_set_it_was_opened_from(mesh):
    await mesh.open(SET)
    await mesh.open(replace(SET, version=4))
    assert (await mesh.store.recorded()).life.opened_from == 3


async def test_repeating_an_opening_changes_nothing(mesh):
    members = InSyncSet(1, frozenset(await mesh.store.links()))
    call = mesh.opening(members)
    first = await mesh.store.open_life(call)
    assert first.acknowledged
    before = await mesh.store.recorded()
    assert await mesh.store.open_life(call) == first
    assert await mesh.store.recorded() == before


async def test_an_opening_repeated_after_a_restart_is_closed(mesh):
    call = mesh.opening(SET)
    await mesh.store.open_life(call)
    await mesh.restart()
    assert (await mesh.store.open_life(call)).status is StoreStatus.CLOSED


async def test_the_caller_must_have_seen_the_life_on_record(mesh):
    await mesh.open(SET)
    for previous in (0, 2):
        reply = await mesh.store.open_life(mesh.opening(SET, previous=previous, number=9))
        assert reply.status is StoreStatus.CONFLICT
        assert reply.detail == f"life 1 is recorded, not {previous}"


async def test_an_opening_is_for_the_server_that_it_was_decided_for(mesh):
    own = (await mesh.store.recorded()).run_id
    reply = await mesh.store.open_life(mesh.opening(SET, run_id="0" * 40))
    assert reply.status is StoreStatus.CONFLICT
    assert reply.detail == f"it was decided for run {'0' * 40}, and this is {own}"
    assert (await mesh.store.recorded()).life is None
    assert (await mesh.store.open_life(mesh.opening(SET, run_id=own))).status is StoreStatus.OK


async def test_numbers_of_lives_grow(mesh):
    await mesh.open(SET)
    reply = await mesh.store.open_life(mesh.opening(SET, number=1))
    assert (reply.status, reply.detail) == (StoreStatus.CONFLICT, "life 1 is not above 1")


async def test_another_opening_of_the_same_count_is_another_life(mesh):
    """Two leaders opened "life 2", on two nodes: neither's callers are taken for the other's (W1)."""
    await mesh.open()
    before = mesh.life
    other = next_life(before, 0xFFFFFFFE)
    members = InSyncSet(2, frozenset(await mesh.store.links()))
    opening = mesh.opening(members, number=next_life(before, 0xFFFFFFFF))
    assert (await mesh.store.open_life(opening)).status is StoreStatus.OK
    mesh.life, mesh.token = opening.number, opening.token
    grant = await mesh.join(1)
    assert (await mesh.store.recorded()).life.number == opening.number
    foreign = replace(grant, life=other)
    change = SetChange(replace(members, version=3))
    said = [
        (await mesh.store.commit(0, foreign, 1, 1, [])).status,
        (await mesh.store.load(foreign, [])).status,
        (await mesh.store.scan(foreign, 1, 1, 0)).status,
        (await mesh.store.sweep(foreign, [])).status,
        (await mesh.takeover(life=other)).status,
        (await mesh.store.change_set(ChangeSet(new_operation(), other, mesh.token, change))).status,
        (await mesh.store.bid(Bid(new_operation(), other, mesh.token, mesh.token + 1))).status,
    ]
    assert set(said) == {StoreStatus.CLOSED}
    assert await mesh.store.renewals(other, [grant.nonce]) is None
    assert await mesh.store.renewals(mesh.life, [grant.nonce]) == {grant.nonce: 0}
    assert (await mesh.store.commit(0, grant, 1, 1, [])).status is StoreStatus.OK
    late = mesh.opening(members, number=other, previous=mesh.life)
    reply = await mesh.store.open_life(late)
    assert reply.detail == f"life {other} is not above {mesh.life}"


async def test_the_number_of_partitions_is_fixed_for_good(mesh):
    await mesh.open(SET, partitions=8)
    reply = await mesh.store.open_life(mesh.opening(SET, partitions=16))
    assert reply.status is StoreStatus.CONFLICT
    assert reply.detail == "the mesh has 8 partitions, not 16"


@pytest.mark.parametrize("off", [0, 1])
async def test_a_token_no_higher_than_the_one_on_record_is_deposed(mesh, off):
    await mesh.open(SET)
    call = mesh.opening(SET, token=mesh.token - off)
    assert (await mesh.store.open_life(call)).status is StoreStatus.DEPOSED
    assert (await mesh.store.recorded()).life.number == 1


async def test_of_two_leaders_one_opens_the_life(mesh):
    await mesh.open(SET)
    calls = [mesh.opening(SET), mesh.opening(SET)]
    replies = [await mesh.another().open_life(call) for call in calls]
    assert [reply.status for reply in replies] == [StoreStatus.OK, StoreStatus.DEPOSED]


async def test_an_opening_keeps_grants_and_table_and_tells_the_grants_new_versions(mesh):
    await mesh.open()
    grants = [await mesh.join(p) for p in (1, 2)]
    await mesh.takeover(table=b"last", intents=b"plans")
    reply = await mesh.open()
    assert reply.versions == {grant.nonce: grant.version + 1 for grant in grants}
    found = await mesh.store.recorded()
    assert found.grants == {grant.nonce: "h-0" for grant in grants}
    assert (found.table, found.intents) == (b"last", b"plans")


async def test_a_grant_goes_on_in_the_new_life_with_its_epochs_seqs_and_renewal(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    entry = mesh.entry(1, a=b"x")
    await mesh.store.commit(0, grant, 1, 5, [entry])
    opened = await mesh.open()
    assert (await mesh.store.commit(0, grant, 2, 6, [])).status is StoreStatus.CLOSED
    assert await mesh.store.renewals(mesh.life, [grant.nonce]) == {grant.nonce: 5}
    here = replace(grant, life=mesh.life, version=opened.versions[grant.nonce])
    repeated = await mesh.store.commit(0, here, 1, 6, [entry])
    assert (repeated.status, repeated.duplicate) == (StoreStatus.OK, True)
    assert repeated.verdicts == (Verdict.APPLIED,)  # the epoch of the life before still stands
    following = await mesh.store.commit(0, here, 2, 7, [entry])
    assert (following.status, following.duplicate) == (StoreStatus.OK, False)


async def test_who_names_the_new_life_and_the_grants_old_version_is_taken(mesh):
    # It asserts no more than that it knows of nothing newer.
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.open()
    here = replace(grant, life=mesh.life)
    assert (await mesh.store.commit(0, here, 1, 1, [])).status is StoreStatus.OK


async def test_a_revoked_grant_stays_revoked_in_every_later_life(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.takeover(revoke=(grant.nonce,))
    for _ in range(2):
        opened = await mesh.open()
        assert opened.versions == {}
        here = replace(grant, life=mesh.life)
        assert (await mesh.store.commit(0, here, 1, 1, [])).status is StoreStatus.REVOKED
        enrolled = await mesh.takeover(enroll=((grant.nonce, "h-0"),))
        assert enrolled.status is StoreStatus.CONFLICT


async def test_meshes_share_a_store_without_seeing_each_other(on_redis):
    await on_redis.open()
    grant = await on_redis.join(1)
    await on_redis.store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
    other = on_redis.neighbour()
    assert (await other.store.recorded()).life is None
    await other.close()
