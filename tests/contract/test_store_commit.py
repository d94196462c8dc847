"""Batches: sequence, verdicts, and what a refused one leaves behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.lanes import LANES
from mesh.core.records import Entry, GrantRef, Move, ScanReply, StoreStatus, Verdict, Want
from mesh.ids import new_nonce

APPLIED, NOT_HELD, FAILED = Verdict

FSYNCED, ASYNC = LANES.index("fsynced"), LANES.index("async")


async def test_the_next_batch_is_applied_and_acknowledged(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    reply = await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"x"), mesh.entry(2, b=b"y")])
    assert reply.status is StoreStatus.OK
    assert reply.verdicts == (APPLIED, APPLIED)
    assert reply.acknowledged
    assert not reply.duplicate
    assert reply.set_version == 1
    assert await mesh.read(grant, 1, b"a", b"b") == [b"x", None]
    assert await mesh.read(grant, 2, b"a", b"b") == [None, b"y"]


async def test_a_gap_is_refused_and_writes_nothing(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"1")])
    reply = await mesh.store.commit(0, grant, 3, 2, [mesh.entry(1, a=b"3")])
    assert reply.status is StoreStatus.GAP
    assert reply.detail == "1"
    assert not reply.acknowledged
    assert await mesh.read(grant, 1, b"a") == [b"1"]
    assert await mesh.store.renewals(mesh.life, [grant.nonce]) == {grant.nonce: 1}
    assert (await mesh.store.commit(0, grant, 2, 3, [])).status is StoreStatus.OK


async def test_a_duplicate_writes_no_entry_and_is_acknowledged(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    first = [mesh.entry(1, a=b"1")]
    await mesh.store.commit(0, grant, 1, 1, first)
    await mesh.store.commit(0, grant, 2, 2, [mesh.entry(1, a=b"2")])
    for seq in (1, 2):
        reply = await mesh.store.commit(0, grant, seq, 3, first)
        assert reply.status is StoreStatus.OK
        assert reply.duplicate
        assert reply.verdicts == (APPLIED,)
        assert reply.acknowledged
    assert await mesh.read(grant, 1, b"a") == [b"2"]


async def test_lanes_count_apart(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    for lane in (0, 1):
        for seq in (1, 2):
            reply = await mesh.store.commit(lane, grant, seq, 1, [mesh.entry(1 + lane, a=b"x")])
            assert (reply.status, reply.duplicate) == (StoreStatus.OK, False)
    assert (await mesh.store.commit(1, grant, 4, 1, [])).status is StoreStatus.GAP


async def test_processes_count_apart(mesh):
    await mesh.open()
    one, two = await mesh.join(1), await mesh.join(2)
    for grant, partition in ((one, 1), (two, 2)):
        reply = await mesh.store.commit(0, grant, 1, 1, [mesh.entry(partition, a=b"x")])
        assert not reply.duplicate
        assert reply.verdicts == (APPLIED,)


async def test_there_are_only_so_many_lanes(mesh):
    await mesh.open()
    grant = await mesh.join()
    with pytest.raises(ValueError, match="lane 4 is not one of 0…3"):
        await mesh.store.commit(4, grant, 1, 1, [])


async def test_an_async_write_is_acknowledged_by_the_primary_and_its_lag_is_told(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    assert mesh.store.async_lag_s() == 0
    for link in await mesh.store.links():
        await mesh.pause(link)
    reply = await mesh.store.commit(ASYNC, grant, 1, 1, [mesh.entry(1, a=b"x")])
    assert reply.acknowledged
    assert not (await mesh.store.commit(0, grant, 1, 2, [])).acknowledged
    assert mesh.store.async_lag_s() > 0
    for link in await mesh.store.links():
        await mesh.resume(link)

    async def all_have_it():
        await mesh.store.commit(0, grant, 1, 3, [])
        return mesh.store.async_lag_s() == 0

    await mesh.until(all_have_it)


async def test_an_async_lane_goes_on_behind_a_hole(mesh):
    """A primary that was a replica has not seen the last batches; nobody is helped by refusing the next."""
    await mesh.open()
    grant = await mesh.join(1)
    reply = await mesh.store.commit(ASYNC, grant, 7, 1, [mesh.entry(1, a=b"x")])
    assert (reply.status, reply.verdicts) == (StoreStatus.OK, (APPLIED,))
    again = await mesh.store.commit(ASYNC, grant, 7, 2, [mesh.entry(1, a=b"x")])
    assert again.duplicate
    assert (await mesh.store.commit(FSYNCED, grant, 7, 3, [])).status is StoreStatus.GAP


async def test_an_fsynced_write_waits_for_the_disks(mesh):
    if not await mesh.can_confirm_fsync():
        pytest.skip("this server cannot say what is on its disk")
    await mesh.open()
    grant = await mesh.join(1)

    async def on_disks():
        reply = await mesh.store.commit(FSYNCED, grant, 1, 1, [mesh.entry(1, a=b"x")])
        return reply.acknowledged

    await mesh.until(on_disks)
    link = (await mesh.store.links())[0]
    await mesh.pause(link)
    reply = await mesh.store.commit(FSYNCED, grant, 2, 2, [mesh.entry(1, a=b"y")])
    assert not reply.acknowledged
    await mesh.resume(link)
    await mesh.until(on_disks)


async def test_a_partition_not_held_is_left_out_and_the_others_are_applied(mesh):
    await mesh.open()
    grant, other = await mesh.join(1, 3), await mesh.join(2)
    entries = [mesh.entry(1, a=b"x"), mesh.entry(2, a=b"x"), mesh.entry(3, a=b"x")]
    reply = await mesh.store.commit(0, grant, 1, 1, entries)
    assert reply.status is StoreStatus.OK
    assert reply.verdicts == (APPLIED, NOT_HELD, APPLIED)
    assert await mesh.read(other, 2, b"a") == [None]
    assert await mesh.read(grant, 3, b"a") == [b"x"]


async def test_nobody_holds_a_partition_at_epoch_zero_or_beyond_the_last(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    entries = [Entry(2, 0, {b"a": b"x"}), Entry(mesh.partitions, mesh.epoch(), {b"a": b"x"})]
    assert (await mesh.store.commit(0, grant, 1, 1, entries)).verdicts == (NOT_HELD, NOT_HELD)


async def test_an_old_epoch_of_a_partition_held_again_writes_nothing(mesh):
    # Schedule M1: "this process holds it" is not enough; it must be the tenure that the batch
    # names.
    await mesh.open()
    grant, other = await mesh.join(1), await mesh.join()
    there = await mesh.takeover(Move(1, grant.nonce, mesh.epoch(1), other.nonce, mesh.epoch(2)))
    assert there.status is StoreStatus.OK
    back = await mesh.takeover(Move(1, other.nonce, mesh.epoch(2), grant.nonce, mesh.epoch(3)))
    again = replace(grant, version=back.versions[grant.nonce])
    late, fresh = mesh.entry(1, 1, a=b"late"), mesh.entry(1, 3, b=b"fresh")
    assert (await mesh.store.commit(0, again, 1, 1, [late])).verdicts == (NOT_HELD,)
    assert (await mesh.store.commit(0, again, 2, 2, [fresh])).verdicts == (APPLIED,)
    loaded = await mesh.store.load(again, [Want(1, mesh.epoch(3), (b"a", b"b"))])
    assert loaded.values == ((None, b"fresh"),)


async def test_a_duplicate_says_which_partitions_have_gone(mesh):
    await mesh.open()
    grant, other = await mesh.join(1, 2), await mesh.join()
    batch = [mesh.entry(1, a=b"x"), mesh.entry(2, a=b"x")]
    await mesh.store.commit(0, grant, 1, 1, batch)
    await mesh.takeover(Move(2, grant.nonce, mesh.epoch(1), other.nonce, mesh.epoch(2)))
    reply = await mesh.store.commit(0, grant, 1, 2, batch)
    assert reply.duplicate
    assert reply.verdicts == (APPLIED, NOT_HELD)


async def test_a_revoked_grant_writes_nothing(mesh):
    await mesh.open()
    grant, other = await mesh.join(1), await mesh.join()
    move = Move(1, grant.nonce, mesh.epoch(1), other.nonce, mesh.epoch(2))
    await mesh.takeover(move, revoke=(grant.nonce,))
    reply = await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"x")])
    assert reply.status is StoreStatus.REVOKED
    loaded = await mesh.store.load(
        GrantRef(other.nonce, mesh.life, 2), [Want(1, mesh.epoch(2), (b"a",))]
    )
    assert loaded.values == ((None,),)


async def test_an_unknown_grant_counts_as_revoked(mesh):
    await mesh.open()
    stranger = GrantRef(new_nonce(), mesh.life, 1)
    assert (await mesh.store.commit(0, stranger, 1, 1, [])).status is StoreStatus.REVOKED
    assert (await mesh.store.load(stranger, [])).status is StoreStatus.REVOKED
    assert await mesh.store.scan(stranger, 1, mesh.epoch(), 0) == ScanReply(StoreStatus.REVOKED)


@pytest.mark.parametrize("off", [-1, 1])
async def test_another_life_is_closed(mesh, off):
    await mesh.open()
    await mesh.open()
    grant = await mesh.join(1)
    wrong = replace(grant, life=mesh.life + off)
    assert (await mesh.store.commit(0, wrong, 1, 1, [])).status is StoreStatus.CLOSED
    assert (await mesh.store.load(wrong, [])).status is StoreStatus.CLOSED
    assert (await mesh.store.scan(wrong, 1, mesh.epoch(), 0)).status is StoreStatus.CLOSED
    assert await mesh.store.renewals(wrong.life, [grant.nonce]) is None


async def test_a_store_that_was_never_opened_is_closed(mesh):
    assert (await mesh.store.commit(0, GrantRef(b"nonce", 1, 1), 1, 1, [])).status is (
        StoreStatus.CLOSED
    )


async def test_a_restarted_primary_is_closed_to_everyone(mesh):
    # Schedule F4: the same data in another process may be older than what was acknowledged.
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"1")])
    await mesh.restart()
    assert (await mesh.store.commit(0, grant, 2, 2, [mesh.entry(1, a=b"2")])).status is (
        StoreStatus.CLOSED
    )
    assert (await mesh.store.commit(0, grant, 1, 2, [])).status is StoreStatus.CLOSED
    assert (await mesh.store.load(grant, [])).status is StoreStatus.CLOSED
    assert (await mesh.takeover()).status is StoreStatus.CLOSED
    await mesh.open()
    assert (await mesh.store.commit(0, grant, 2, 2, [])).status is StoreStatus.CLOSED


async def test_a_store_with_an_older_grant_than_the_callers_writes_nothing(mesh):
    # Schedule F3 (b): the owner must keep its memory then, it may be the only copy.
    await mesh.open()
    grant = await mesh.join(1)
    newer = replace(grant, version=grant.version + 1)
    assert (await mesh.store.commit(0, newer, 1, 1, [mesh.entry(1, a=b"x")])).status is (
        StoreStatus.OLDER
    )
    assert (await mesh.store.load(newer, [])).status is StoreStatus.OLDER
    assert (await mesh.store.scan(newer, 1, mesh.epoch(), 0)).status is StoreStatus.OLDER
    assert await mesh.read(grant, 1, b"a") == [None]


async def test_a_caller_that_has_not_heard_of_its_newer_grant_goes_on(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.takeover(Move(2, None, 0, grant.nonce, mesh.epoch()))
    reply = await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"x")])
    assert reply.verdicts == (APPLIED,)


async def test_a_partition_that_cannot_be_written_leaves_the_others_whole(mesh):
    # Schedule F5 (d): no state without its outcome record, whatever fails beside it.
    await mesh.open()
    grant = await mesh.join(1, 2, 3)
    await mesh.spoil(2)
    batch = [
        Entry(p, mesh.epoch(), {b"state": b"%d" % p, b"outcome": b"%d" % p}, [b"gone"])
        for p in (1, 2, 3)
    ]
    reply = await mesh.store.commit(0, grant, 1, 1, batch)
    assert reply.status is StoreStatus.OK
    assert reply.verdicts == (APPLIED, FAILED, APPLIED)
    assert reply.acknowledged
    assert reply.detail.startswith("WRONGTYPE")
    for p in (1, 3):
        assert await mesh.read(grant, p, b"state", b"outcome") == [b"%d" % p] * 2
    again = await mesh.store.commit(0, grant, 1, 2, batch)
    assert (again.duplicate, again.verdicts) == (True, (APPLIED, FAILED, APPLIED))
    assert again.detail == reply.detail
    after = await mesh.store.commit(0, grant, 2, 3, [batch[0]])
    assert (after.verdicts, after.detail) == ((APPLIED,), "")


async def test_an_empty_batch_only_renews(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    assert await mesh.store.renewals(mesh.life, [grant.nonce, b"unknown!"]) == {grant.nonce: 0}
    reply = await mesh.store.commit(0, grant, 1, 2**63 + 7, [])
    assert (reply.status, reply.verdicts, reply.acknowledged) == (StoreStatus.OK, (), True)
    assert await mesh.store.renewals(mesh.life, [grant.nonce]) == {grant.nonce: 2**63 + 7}


async def test_a_touch_renews_too(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.store.commit(0, grant, 1, 1, [])
    await mesh.store.commit(0, grant, 1, 2, [])
    assert await mesh.store.renewals(mesh.life, [grant.nonce]) == {grant.nonce: 2}


@pytest.mark.parametrize("low", [41, 2**32, 2**63])
async def test_a_renewal_number_never_goes_back(mesh, low):
    # Old bytes of a broken connection may arrive last. A leader that has seen 41 before 42 would
    # take the lease for one that began when it saw 41.
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.store.commit(0, grant, 1, low, [])
    await mesh.store.commit(1, grant, 1, low + 1, [])
    await mesh.store.commit(0, grant, 1, low, [])
    await mesh.store.commit(0, grant, 2, low - 1, [])
    assert await mesh.store.renewals(mesh.life, [grant.nonce]) == {grant.nonce: low + 1}


async def test_fields_are_deleted_in_the_same_step(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"1", b=b"1")])
    entry = Entry(1, mesh.epoch(), {b"b": b"2"}, [b"a", b"never there"])
    assert (await mesh.store.commit(0, grant, 2, 2, [entry])).verdicts == (APPLIED,)
    assert await mesh.read(grant, 1, b"a", b"b") == [None, b"2"]
    last = Entry(1, mesh.epoch(), {}, [b"b"])
    assert (await mesh.store.commit(0, grant, 3, 3, [last])).verdicts == (APPLIED,)
    assert await mesh.read(grant, 1, b"b") == [None]


async def test_values_of_a_mebibyte_and_any_bytes_come_back(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    every = bytes(range(256))
    fields = {every: every, b"\r\n$3\r\n": b"", b"big": b"\xc1\0\xff\n" * 2**18}
    reply = await mesh.store.commit(
        0, grant, 1, 1, [Entry(1, mesh.epoch(), fields), mesh.entry(2, a=b"x")]
    )
    assert reply.verdicts == (APPLIED, APPLIED)
    assert await mesh.read(grant, 1, *fields) == list(fields.values())


async def test_more_fields_than_lua_can_unpack(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    names = [b"field-%d" % i for i in range(9000)]
    fields = dict.fromkeys(names, b"v")
    batch = [Entry(p, mesh.epoch(), fields) for p in (1, 2)]
    assert (await mesh.store.commit(0, grant, 1, 1, batch)).verdicts == (APPLIED, APPLIED)
    assert await mesh.read(grant, 2, *names) == [b"v"] * 9000
    batch = [Entry(1, mesh.epoch(), {}, names)]
    assert (await mesh.store.commit(0, grant, 2, 2, batch)).verdicts == (APPLIED,)
    assert await mesh.read(grant, 1, *names) == [None] * 9000


async def test_a_batch_of_every_partition(mesh):
    await mesh.open(partitions=1000)
    grant = await mesh.join(*range(1000))
    batch = [mesh.entry(p, state=b"%d" % p, outcome=b"x" * 100) for p in range(1000)]
    reply = await mesh.store.commit(0, grant, 1, 1, batch)
    assert reply.verdicts == (APPLIED,) * 1000
    wants = [Want(p, mesh.epoch(), (b"state",)) for p in range(1000)]
    loaded = await mesh.store.load(grant, wants)
    assert loaded.values == tuple((b"%d" % p,) for p in range(1000))


async def test_what_is_replicated_and_on_no_disk_is_not_fsynced(on_redis):
    if not await on_redis.can_confirm_fsync():
        pytest.skip("this server cannot say what is on its disk")
    await on_redis.open()
    grant = await on_redis.join(1)
    _, before = await on_redis.administer("CONFIG", "GET", "appendfsync")
    await on_redis.administer("CONFIG", "SET", "appendfsync", "no")
    try:
        commit = on_redis.store.commit
        assert not (await commit(FSYNCED, grant, 1, 1, [on_redis.entry(1, a=b"x")])).acknowledged
        assert (await commit(0, grant, 1, 2, [on_redis.entry(1, a=b"y")])).acknowledged
    finally:
        await on_redis.administer("CONFIG", "SET", "appendfsync", before)

    async def on_disks():
        return (await commit(FSYNCED, grant, 1, 3, [on_redis.entry(1, a=b"x")])).acknowledged

    await on_redis.until(on_disks)


async def test_one_replica_that_syncs_nothing_keeps_a_write_from_being_fsynced(on_model):
    await on_model.open()
    grant = await on_model.join(1)
    settings = next(iter(on_model.replicas.values())).server.settings
    settings.set("appendfsync", "no")
    try:
        commit = on_model.store.commit
        assert not (await commit(FSYNCED, grant, 1, 1, [on_model.entry(1, a=b"x")])).acknowledged
        assert (await commit(0, grant, 1, 2, [on_model.entry(1, a=b"y")])).acknowledged
    finally:
        settings.set("appendfsync", "everysec")
