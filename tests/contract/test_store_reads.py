"""Loading and scanning: only what the grant holds, and all of it."""

from __future__ import annotations

import pytest

from mesh.core.records import Entry, Move, ScanReply, StoreStatus, Unreadable, Want


async def scanned(mesh, grant, partition, *, between=None):
    """Every field of a partition, page by page; and the number of pages."""
    found, cursor, pages = {}, 0, 0
    while True:
        page = await mesh.store.scan(grant, partition, mesh.epoch(), cursor)
        assert page.status is StoreStatus.OK
        found.update(page.pairs)
        cursor, pages = page.cursor, pages + 1
        if not cursor:
            return found, pages
        if between:
            await between(pages)


async def test_values_come_in_the_order_of_the_wants(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"1"), mesh.entry(2, a=b"2", b=b"")])
    wants = [
        Want(2, mesh.epoch(), (b"b", b"none", b"a")),
        Want(1, mesh.epoch(), ()),
        Want(1, mesh.epoch(), (b"a",)),
    ]
    reply = await mesh.store.load(grant, wants)
    assert reply.values == ((b"", None, b"2"), (), (b"1",))


async def test_a_partition_not_held_is_not_read(mesh):
    # Schedule F6: a value read before the old owner is fenced may be one acknowledged write short.
    await mesh.open()
    grant, other = await mesh.join(1), await mesh.join(2)
    await mesh.store.commit(0, other, 1, 1, [mesh.entry(2, a=b"x")])
    wants = [
        Want(2, mesh.epoch(), (b"a",)),
        Want(1, mesh.epoch(2), (b"a",)),
        Want(1, 0, (b"a",)),
        Want(3, 0, ()),
        Want(1, mesh.epoch(), (b"a",)),
    ]
    assert (await mesh.store.load(grant, wants)).values == (None, None, None, None, (None,))


async def test_a_partition_moved_away_is_not_read_any_more(mesh):
    await mesh.open()
    grant, other = await mesh.join(1), await mesh.join()
    await mesh.takeover(Move(1, grant.nonce, mesh.epoch(1), other.nonce, mesh.epoch(2)))
    assert (await mesh.store.load(grant, [Want(1, mesh.epoch(), (b"a",))])).values == (None,)
    reply = await mesh.store.scan(grant, 1, mesh.epoch(), 0)
    assert reply == ScanReply(StoreStatus.CONFLICT)


async def test_a_load_of_nothing_checks_the_grant(mesh):
    await mesh.open()
    grant = await mesh.join()
    reply = await mesh.store.load(grant, [])
    assert (reply.status, reply.values) == (StoreStatus.OK, ())


async def test_a_scan_shows_every_field_once_nothing_is_written(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    fields = {b"field-%d" % i: b"%d" % i for i in range(3000)}
    await mesh.store.commit(0, grant, 1, 1, [Entry(1, mesh.epoch(), fields)])
    found, pages = await scanned(mesh, grant, 1)
    assert found == fields
    assert pages > 5


async def test_a_scan_shows_fields_that_stay_while_others_come_and_go(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    stay = {b"stay-%d" % i: b"s" for i in range(1500)}
    go = {b"go-%d" % i: b"g" for i in range(1500)}
    await mesh.store.commit(0, grant, 1, 1, [Entry(1, mesh.epoch(), stay | go)])
    seq = 1

    async def between(pages):
        nonlocal seq
        seq += 1
        come = {b"come-%d-%d" % (pages, i): b"c" for i in range(100)}
        gone = [b"go-%d" % i for i in range(pages * 50, pages * 50 + 50)]
        reply = await mesh.store.commit(0, grant, seq, seq, [Entry(1, mesh.epoch(), come, gone)])
        assert reply.status is StoreStatus.OK
        assert pages < 500

    found, _ = await scanned(mesh, grant, 1, between=between)
    assert stay.items() <= found.items()


async def test_a_scan_of_an_empty_partition_ends_at_once(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    assert await scanned(mesh, grant, 1) == ({}, 1)


@pytest.mark.parametrize("epoch", [0, 2])
async def test_a_scan_names_the_epoch(mesh, epoch):
    await mesh.open()
    grant = await mesh.join(1)
    reply = await mesh.store.scan(grant, 1, mesh.epoch(2) if epoch else 0, 0)
    assert reply.status is StoreStatus.CONFLICT


async def test_another_process_reads_what_is_committed(mesh):
    await mesh.open()
    grant, heir = await mesh.join(1), await mesh.join()
    await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"x")])
    there = await mesh.takeover(Move(1, grant.nonce, mesh.epoch(1), heir.nonce, mesh.epoch(2)))
    theirs = type(heir)(heir.nonce, mesh.life, there.versions[heir.nonce])
    reply = await mesh.another().load(theirs, [Want(1, mesh.epoch(2), (b"a",))])
    assert reply.values == ((b"x",),)


async def test_a_partition_of_another_type_stops_no_other_read(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    await mesh.store.commit(0, grant, 1, 1, [mesh.entry(1, a=b"x")])
    await mesh.spoil(2)
    many = tuple(b"%d" % i for i in range(8000))
    wants = [Want(p, mesh.epoch(), fields) for p, fields in ((2, (b"a",)), (1, (b"a",)), (2, many))]
    reply = await mesh.store.load(grant, [*wants, Want(3, mesh.epoch(), (b"a",))])
    assert reply.status is StoreStatus.OK
    foreign, found, as_foreign, not_held = reply.values
    assert isinstance(foreign, Unreadable)
    assert foreign.reason.startswith("WRONGTYPE")
    assert (found, as_foreign, not_held) == ((b"x",), foreign, None)


async def test_a_scan_tells_a_partition_of_another_type_from_one_not_held(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await mesh.spoil(1)
    reply = await mesh.store.scan(grant, 1, mesh.epoch(), 0)
    assert (reply.status, reply.cursor, reply.pairs) == (StoreStatus.OK, 0, ())
    assert reply.unreadable is not None
    assert reply.unreadable.reason.startswith("WRONGTYPE")
