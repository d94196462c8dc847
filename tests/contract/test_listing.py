"""A handler lists a partition by the pages of a store: what stays is returned, whatever comes and goes."""

from __future__ import annotations

import random

import msgpack
import pytest
from unit.rigs import Caller, lease_for_good

from mesh.core.epochs import NOT_HELD, pack_epochs
from mesh.core.handling import HandlerCore
from mesh.core.messages import Grant
from mesh.core.records import Entry
from mesh.core.tenure import state_field
from mesh.core.wire import Request, Status
from mesh.entities import Registry

P = 1
STATE = msgpack.packb({"value": 1})


class Lister:
    """A handler that holds one partition and has none of it in memory."""

    def __init__(self, mesh, grant) -> None:
        self.mesh, self.grant, self.seq = mesh, grant, 0
        self.core = lease_for_good(HandlerCore(grant.nonce, mesh.partitions, Registry([])))
        epochs = [NOT_HELD] * mesh.partitions
        epochs[P] = mesh.epoch()
        held = pack_epochs(epochs)
        self.core.on_grant(Grant(1, grant.nonce, grant.life, grant.version, True, held), 0.0)

    async def write(self, *, put=(), delete=()) -> None:
        self.seq += 1
        fields = {state_field("KV", key): STATE for key in put}
        entry = Entry(P, self.mesh.epoch(), fields, [state_field("KV", key) for key in delete])
        await self.mesh.store.commit(0, self.grant, self.seq, self.seq, [entry])

    async def page(self, position: bytes, limit: int) -> tuple[list[bytes], bytes]:
        payload = msgpack.packb(["KV.~keys", b"", [b"", position, limit]])
        caller = Caller()
        request = Request(7, 1, 1, P, 0, 10_000, 0, 0, 0, payload)
        self.core.on_request(caller, request, 0.0)
        while (listing := self.core.next_listing()) is not None:
            reply = await self.mesh.store.scan(self.grant, P, self.mesh.epoch(), listing.cursor)
            self.core.on_listed(listing, reply)
        assert caller.answer is not None and caller.answer.status is Status.OK
        keys, position = caller.answer.value
        return keys, position


@pytest.mark.parametrize(("limit", "seed"), [(10, 0), (50, 1)])
async def test_keys_that_stay_are_all_listed_while_the_hash_grows_and_shrinks(mesh, limit, seed):
    await mesh.open()
    lister = Lister(mesh, await mesh.join(P))
    dice = random.Random(seed)
    stay = [b"stay-%d" % n for n in range(300)]
    go = [b"go-%d" % n for n in range(2400)]
    come = (b"come-%d" % n for n in range(100_000))
    await lister.write(put=stay + go)
    found: list[bytes] = []
    position, more = b"", True
    while more:
        keys, position = await lister.page(position, limit)
        assert len(keys) <= limit
        found += keys
        more = bool(position)
        count = dice.randrange(40)
        if dice.random() < 0.7:
            go, gone = go[count:], go[:count]
            await lister.write(delete=gone)
        else:
            await lister.write(put=[next(come) for _ in range(count // 8)])
    assert set(stay) <= set(found)


async def test_a_partition_at_rest_is_listed_once_by_pages_of_any_size(mesh):
    await mesh.open()
    lister = Lister(mesh, await mesh.join(P))
    keys = [b"key-%d" % n for n in range(700)]
    await lister.write(put=keys)
    for limit in (7, 100, 1000):
        found, position = await lister.page(b"", limit)
        while position:
            more, position = await lister.page(position, limit)
            found += more
        assert sorted(found) == sorted(keys)
