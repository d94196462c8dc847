"""A handler's core on every store: a state's large values are in the same hash, written and read at once."""

from __future__ import annotations

import msgpack
from conftest import PARTITIONS, MeshOnRedis, MeshUnderTest
from unit.parts_rig import Page
from unit.rigs import Caller, key_in, lease_for_good

from mesh.core.epochs import NOT_HELD, pack_epochs
from mesh.core.handling import HandlerCore
from mesh.core.messages import Grant
from mesh.core.records import GrantRef
from mesh.core.wire import Request, Status
from mesh.entities import Registry
from mesh.store.api import Store

K = key_in(0, PARTITIONS)
DOCUMENT = "x" * (1_000 << 10)


class Owner:
    """A handler's core of partition 0, and its shell in short."""

    def __init__(self, mesh: MeshUnderTest, grant: GrantRef) -> None:
        self.store: Store = mesh.store
        self.core = lease_for_good(HandlerCore(grant.nonce, PARTITIONS, Registry([Page])))
        epochs = pack_epochs([mesh.epoch(), *[NOT_HELD] * (PARTITIONS - 1)])
        told = Grant(mesh.token, grant.nonce, grant.life, grant.version, True, epochs)
        self.core.on_grant(told, 0.0)
        self._calls = 0

    async def does(self, method: str, *args: object) -> object:
        self._calls += 1
        payload = msgpack.packb([f"Page.{method}", K.encode(), list(args)])
        caller = Caller()
        self.core.on_request(
            caller, Request(7, self._calls, 1, 0, 0, 10_000, 0, 0, 0, payload), 0.0
        )
        while caller.answer is None:
            if loads := self.core.take_wants():
                reply = await self.store.load(self.core.grant, [load.want for load in loads])
                self.core.on_load(loads, reply, 0.0)
            if batch := self.core.next_batch(0):
                done = False
                while not done:
                    renewal = self.core.send(batch, 0.0)
                    committed = await self.store.commit(
                        0, self.core.grant, batch.seq, renewal, batch.entries
                    )
                    done = self.core.on_commit(batch, committed, 0.0)
        assert caller.status is Status.OK, caller.answer
        return caller.answer.value

    async def read_ahead(self) -> None:
        while tenure := self.core.next_scan():
            page = await self.store.scan(
                self.core.grant, tenure.partition, tenure.epoch, tenure.cursor
            )
            self.core.on_scan(tenure, page, 0.0)


async def test_large_values_are_written_read_and_read_ahead(mesh):
    await mesh.open()
    grant = await mesh.join(0)
    owner = Owner(mesh, grant)
    await owner.does("write", {"text": DOCUMENT, "notes": ["n" * 5000]})
    assert await owner.does("incr") == 1
    await owner.does("write", {"notes": []})
    for warm in (False, True):
        again = Owner(mesh, grant)
        if warm:
            await again.read_ahead()
        assert await again.does("read") == {"count": 1, "text": DOCUMENT, "notes": []}
        assert not again.core.has_wants


async def test_a_counter_beside_a_document_costs_the_replicas_no_document(on_redis: MeshOnRedis):
    async def replicated() -> int:
        info = await on_redis.administer("INFO", "replication")
        assert isinstance(info, bytes)
        return int(info.split(b"master_repl_offset:")[1].split(b"\r\n")[0])

    await on_redis.open()
    owner = Owner(on_redis, await on_redis.join(0))
    await owner.does("write", {"text": DOCUMENT})
    before = await replicated()
    for _ in range(10):
        await owner.does("incr")
    each = (await replicated() - before) / 10
    assert each < 2000, each
