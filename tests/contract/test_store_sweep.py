"""A sweep reads small partitions whole, and leaves every other one to scans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.records import Entry, StoreStatus
from mesh.store.api import SWEEP_BUDGET, SWEEP_BYTES, SWEEP_MOST


async def swept(mesh, grant, *partitions):
    reply = await mesh.store.sweep(grant, [(p, mesh.epoch()) for p in partitions])
    assert reply.status is StoreStatus.OK
    return [None if page is None else dict(page) for page in reply.pages]


async def write(mesh, grant, seq, partition, fields):
    await mesh.store.commit(0, grant, seq, seq, [Entry(partition, mesh.epoch(), fields)])


async def test_small_partitions_come_whole_in_the_order_asked(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2, 3)
    await write(mesh, grant, 1, 1, {b"a": b"x", b"\0\xff": b"y"})
    await write(mesh, grant, 2, 2, {b"b": b"z"})
    assert await swept(mesh, grant, 2, 3, 1) == [{b"b": b"z"}, {}, {b"a": b"x", b"\0\xff": b"y"}]


@pytest.mark.parametrize(
    "fields",
    [
        {b"%d" % i: b"" for i in range(SWEEP_MOST + 1)},
        {b"large": bytes(SWEEP_BYTES + 1)},
    ],
    ids=["many fields", "many bytes"],
)
async def test_a_large_partition_is_left_out_and_the_others_are_not(mesh, fields):
    await mesh.open()
    grant = await mesh.join(1, 2)
    await write(mesh, grant, 1, 1, fields)
    await write(mesh, grant, 2, 2, {b"b": b"z"})
    assert await swept(mesh, grant, 1, 2) == [None, {b"b": b"z"}]


async def test_a_sweep_reads_no_more_than_its_budget(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    await write(mesh, grant, 1, 1, {b"%d" % i: b"" for i in range(SWEEP_MOST)})
    pages = await swept(mesh, grant, *[1] * (SWEEP_BUDGET // SWEEP_MOST + 2))
    assert [page is None for page in pages[-3:]] == [False, True, True]


async def test_what_is_not_held_or_of_another_type_is_left_out(mesh):
    await mesh.open()
    grant = await mesh.join(1, 2)
    await write(mesh, grant, 1, 1, {b"a": b"x"})
    await mesh.spoil(2)
    assert await swept(mesh, grant, 2, 3, 1) == [None, None, {b"a": b"x"}]
    reply = await mesh.store.sweep(grant, [(1, mesh.epoch(2)), (1, 0)])
    assert reply.pages == (None, None)


async def test_a_sweep_needs_the_life_and_the_grant(mesh):
    await mesh.open()
    grant = await mesh.join(1)
    later = await mesh.store.sweep(replace(grant, life=grant.life + 1), [(1, mesh.epoch())])
    assert later.status is StoreStatus.CLOSED
    stranger = await mesh.store.sweep(replace(grant, nonce=b"stranger"), [(1, mesh.epoch())])
    assert stranger.status is StoreStatus.REVOKED
