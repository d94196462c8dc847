"""The one call by which a leader changes who owns what: every assertion, and all or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.records import GrantRef, Move, StoreStatus, Want
from mesh.ids import new_nonce, new_operation


async def holds(mesh, grant, partition, counter=1, version=1):
    """Whether a grant holds a partition at an epoch of this life."""
    ref = GrantRef(grant.nonce, mesh.life, version)
    (values,) = (await mesh.store.load(ref, [Want(partition, mesh.epoch(counter), ())])).values
    return values is not None


async def conflict(mesh, *moves, **changed):
    """The detail of a takeover that has to fail, and to change nothing."""
    before = await mesh.store.recorded()
    reply = await mesh.takeover(*moves, table=b"never", **changed)
    assert reply.status is StoreStatus.CONFLICT
    assert not reply.acknowledged
    assert await mesh.store.recorded() == before
    return reply.detail


async def test_a_dead_process_is_fenced_and_its_partitions_move_in_one_step(mesh):
    await mesh.open()
    dead, heir = await mesh.join(1, 2), await mesh.join(3)
    await mesh.store.commit(0, dead, 1, 77, [])
    moves = [Move(p, dead.nonce, mesh.epoch(1), heir.nonce, mesh.epoch(2)) for p in (1, 2)]
    reply = await mesh.takeover(*moves, revoke=(dead.nonce,), table=b"t2", intents=b"plans")
    assert reply.status is StoreStatus.OK
    assert reply.acknowledged
    assert reply.renewals == {dead.nonce: 77}
    assert reply.versions == {dead.nonce: 2, heir.nonce: 2}
    assert await holds(mesh, heir, 1, 2)
    assert await holds(mesh, heir, 3, 1)
    assert (await mesh.store.commit(0, dead, 2, 78, [])).status is StoreStatus.REVOKED
    found = await mesh.store.recorded()
    assert (found.table, found.intents) == (b"t2", b"plans")
    assert found.grants == {heir.nonce: "h-0"}


async def test_a_new_process_starts_with_an_empty_grant(mesh):
    await mesh.open()
    nonce = new_nonce()
    reply = await mesh.takeover(enroll=((nonce, "h-7"),))
    assert reply.versions == {nonce: 1}
    grant = GrantRef(nonce, mesh.life, 1)
    for p in range(mesh.partitions):
        assert not await holds(mesh, grant, p)
    assert (await mesh.store.recorded()).grants == {nonce: "h-7"}


async def test_repeating_an_operation_answers_the_same_and_changes_nothing(mesh):
    await mesh.open()
    dead, heir = await mesh.join(1), await mesh.join()
    move = Move(1, dead.nonce, mesh.epoch(1), heir.nonce, mesh.epoch(2))
    call = mesh.call(move, revoke=(dead.nonce,))
    first = await mesh.store.takeover(call)
    assert first.status is StoreStatus.OK
    assert await mesh.store.takeover(call) == first
    assert await mesh.another().takeover(replace(call, table=b"never")) == first
    assert (await mesh.store.recorded()).table == b"table"
    assert await mesh.store.renewals(mesh.life, [heir.nonce]) == {heir.nonce: 0}


async def test_a_later_operation_is_not_taken_for_its_repetition(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    call = mesh.call(Move(1, grant.nonce, mesh.epoch(1), grant.nonce, mesh.epoch(2)))
    await mesh.store.takeover(call)
    await mesh.takeover()
    assert (await mesh.store.takeover(call)).status is StoreStatus.CONFLICT


@pytest.mark.parametrize("off", [-1, 1])
async def test_another_leaders_token_is_deposed(mesh, off):
    await mesh.open()
    call = mesh.call(token=mesh.token + off, enroll=((new_nonce(), "h"),))
    assert (await mesh.store.takeover(call)).status is StoreStatus.DEPOSED
    assert (await mesh.store.recorded()).grants == {}


async def test_the_token_is_checked_before_the_repetition(mesh):
    await mesh.open()
    call = mesh.call()
    await mesh.store.takeover(call)
    await mesh.store.open_life(replace(mesh.opening((await mesh.store.recorded()).life.sync_set)))
    assert (await mesh.store.takeover(call)).status is StoreStatus.CLOSED


async def test_a_takeover_of_another_life_is_closed(mesh):
    await mesh.open()
    assert (await mesh.takeover(life=mesh.life + 1)).status is StoreStatus.CLOSED


async def test_the_giver_must_hold_the_partition_at_the_epoch_named(mesh):
    await mesh.open()
    giver, heir = await mesh.join(1), await mesh.join()
    at = Move(1, giver.nonce, mesh.epoch(2), heir.nonce, mesh.epoch(3))
    assert await conflict(mesh, at) == (
        f"partition 1: grant {giver.nonce.hex()} holds it at 1.1, not 1.2"
    )
    other = Move(2, giver.nonce, mesh.epoch(1), heir.nonce, mesh.epoch(2))
    assert await conflict(mesh, other) == (
        f"partition 2: grant {giver.nonce.hex()} holds it at none, not 1.1"
    )
    assert await holds(mesh, giver, 1)


async def test_a_partition_from_nobody_must_be_held_by_nobody(mesh):
    await mesh.open()
    holder, heir = await mesh.join(1), await mesh.join()
    detail = await conflict(mesh, Move(1, None, 0, heir.nonce, mesh.epoch(2)))
    assert detail == f"partition 1: grant {holder.nonce.hex()} holds it at 1.1, not nobody"
    await mesh.takeover(revoke=(holder.nonce,))
    reply = await mesh.takeover(Move(1, None, 0, heir.nonce, mesh.epoch(2)))
    assert reply.status is StoreStatus.OK


async def test_a_revoked_grant_gives_nothing_and_takes_nothing(mesh):
    await mesh.open()
    gone, heir = await mesh.join(1), await mesh.join(2)
    await mesh.takeover(revoke=(gone.nonce,))
    give = Move(1, gone.nonce, mesh.epoch(1), heir.nonce, mesh.epoch(2))
    assert await conflict(mesh, give) == f"partition 1: grant {gone.nonce.hex()} is revoked"
    take = Move(2, heir.nonce, mesh.epoch(1), gone.nonce, mesh.epoch(2))
    assert await conflict(mesh, take) == f"partition 2: grant {gone.nonce.hex()} is revoked"


async def test_a_grant_revoked_in_this_call_takes_nothing(mesh):
    await mesh.open()
    gone, other = await mesh.join(), await mesh.join(1)
    move = Move(1, other.nonce, mesh.epoch(1), gone.nonce, mesh.epoch(2))
    assert "is revoked" in await conflict(mesh, move, revoke=(gone.nonce,))
    assert (await mesh.store.load(gone, [])).status is StoreStatus.OK


async def test_an_unknown_grant_takes_nothing_and_is_not_revoked(mesh):
    await mesh.open()
    grant, stranger = await mesh.join(1), new_nonce()
    move = Move(1, grant.nonce, mesh.epoch(1), stranger, mesh.epoch(2))
    assert await conflict(mesh, move) == f"partition 1: grant {stranger.hex()} is not recorded"
    assert await conflict(mesh, revoke=(stranger,)) == f"grant {stranger.hex()} is not recorded"


async def test_a_nonce_is_enrolled_once(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    detail = await conflict(mesh, enroll=((grant.nonce, "h"),))
    assert detail == f"grant {grant.nonce.hex()} is already recorded as active"
    twice = new_nonce()
    assert "already" in await conflict(mesh, enroll=((twice, "h"), (twice, "h")))


async def test_revoked_is_for_ever_in_later_lives_too(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.takeover(revoke=(grant.nonce,))
    detail = f"grant {grant.nonce.hex()} is already recorded as revoked"
    assert await conflict(mesh, enroll=((grant.nonce, "h"),)) == detail
    await mesh.open()
    assert await conflict(mesh, enroll=((grant.nonce, "h"),)) == detail


async def test_revoking_again_changes_nothing_and_tells_the_renewal(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.store.commit(0, grant, 1, 5, [])
    first = await mesh.takeover(revoke=(grant.nonce,))
    again = await mesh.takeover(revoke=(grant.nonce,))
    assert (again.status, again.renewals, again.versions) == (
        StoreStatus.OK,
        first.renewals,
        first.versions,
    )
    assert again.renewals == {grant.nonce: 5}


async def test_the_same_owner_may_get_a_new_epoch(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    move = Move(1, grant.nonce, mesh.epoch(1), grant.nonce, mesh.epoch(2))
    assert (await mesh.takeover(move)).versions == {grant.nonce: 2}
    assert await holds(mesh, grant, 1, 2)
    assert not await holds(mesh, grant, 1, 1)
    assert await holds(mesh, grant, 2, 1)


async def test_one_call_moves_partitions_both_ways(mesh):
    await mesh.open()
    one, two = await mesh.join(0, 1, 2), await mesh.join(5, 6, 7)
    reply = await mesh.takeover(
        Move(7, two.nonce, mesh.epoch(1), one.nonce, mesh.epoch(2)),
        Move(0, one.nonce, mesh.epoch(1), two.nonce, mesh.epoch(2)),
        Move(4, None, 0, one.nonce, mesh.epoch(2)),
    )
    assert reply.versions == {one.nonce: 2, two.nonce: 2}
    held = {(g, p): 1 for g, ps in ((one, (1, 2)), (two, (5, 6))) for p in ps}
    held |= {(one, 7): 2, (one, 4): 2, (two, 0): 2}
    for grant in (one, two):
        for p in range(mesh.partitions):
            for counter in (1, 2):
                expected = held.get((grant, p)) == counter
                assert await holds(mesh, grant, p, counter) == expected, (grant, p, counter)


async def test_a_partition_moves_once_in_a_call(mesh):
    await mesh.open()
    one, two = await mesh.join(1), await mesh.join()
    move = Move(1, one.nonce, mesh.epoch(1), two.nonce, mesh.epoch(2))
    assert await conflict(mesh, move, move) == "partition 1: moved twice"


@pytest.mark.parametrize(("partition", "counter"), [(8, 1), (1, 0)])
async def test_moves_stay_in_range(mesh, partition, counter):
    await mesh.open()
    grant = await mesh.join()
    epoch = mesh.epoch(counter) if counter else 0
    detail = await conflict(mesh, Move(partition, None, 0, grant.nonce, epoch))
    assert detail == f"partition {partition}: out of range"


async def test_one_wrong_assertion_undoes_the_whole_call(mesh):
    await mesh.open()
    giver, heir = await mesh.join(1, 2, 3), await mesh.join()
    moves = [Move(p, giver.nonce, mesh.epoch(1), heir.nonce, mesh.epoch(2)) for p in (1, 2)]
    wrong = Move(3, giver.nonce, mesh.epoch(9), heir.nonce, mesh.epoch(2))
    new = new_nonce()
    await conflict(mesh, *moves, wrong, enroll=((new, "h"),), revoke=(giver.nonce,))
    for p in (1, 2, 3):
        assert await holds(mesh, giver, p)
        assert not await holds(mesh, heir, p, 2)
    assert (await mesh.store.load(GrantRef(new, mesh.life, 1), [])).status is StoreStatus.REVOKED
    assert (await mesh.takeover()).versions == {}


async def test_two_leaders_calls_do_not_mix(mesh):
    await mesh.open()
    one = mesh.call(operation=new_operation(), enroll=((new_nonce(), "h-1"),))
    two = mesh.call(operation=new_operation(), enroll=((new_nonce(), "h-2"),), table=b"two")
    assert (await mesh.store.takeover(one)).status is StoreStatus.OK
    assert (await mesh.another().takeover(two)).status is StoreStatus.OK
    assert sorted((await mesh.store.recorded()).grants.values()) == ["h-1", "h-2"]


async def test_sixteen_thousand_partitions_move_in_one_call(mesh):
    count = 16_384
    await mesh.open(partitions=count)
    one, two = new_nonce(), new_nonce()
    start = [Move(p, None, 0, (one, two)[p % 2], mesh.epoch(1)) for p in range(count)]
    table = b"\x80" * 400_000
    reply = await mesh.takeover(*start, enroll=((one, "h-1"), (two, "h-2")), table=table)
    assert reply.status is StoreStatus.OK
    fall = [Move(p, one, mesh.epoch(1), two, mesh.epoch(2)) for p in range(0, count, 2)]
    reply = await mesh.takeover(*fall, revoke=(one,), table=table)
    assert reply.versions == {one: 2, two: 2}
    heir = GrantRef(two, mesh.life, 2)
    wants = [Want(p, mesh.epoch(2 - p % 2), ()) for p in range(count)]
    assert (await mesh.store.load(heir, wants)).values == ((),) * count
    assert (await mesh.store.recorded()).table == table
