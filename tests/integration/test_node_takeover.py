"""Partitions change hands while calls go on: by death, by handover, by revocation."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from mesh_in_process import PARTITIONS, InProcess, keys

from mesh.client.aio import AsyncClient
from mesh.core.keyspace import partition_of
from mesh.core.messages import Release
from mesh.core.wire import Kind, Status, unpack_reply
from mesh.errors import DeadlineExceeded
from mesh.net.connection import Connection
from mesh.node import Node


@pytest.fixture
async def meshed():
    async with InProcess(3) as running:
        yield running


class Deaf(AsyncClient):
    """Takes the first table and ignores every later one; counts the statuses that it is answered with."""

    def __init__(self, *endpoints: str) -> None:
        super().__init__(endpoints)
        self.statuses: Counter[int] = Counter()

    def _on_table(self, body: bytes, now: float) -> None:
        if self.table is None:
            super()._on_table(body, now)

    def on_frames(self, conn: Connection, frames: list[tuple[int, bytes]]) -> None:
        self.statuses.update(unpack_reply(b).status for kind, b in frames if kind == Kind.REPLY)
        super().on_frames(conn, frames)


@pytest.fixture
async def deaf(meshed):
    client = Deaf(meshed.endpoint)
    await client.start()
    yield client
    await client.close()


async def count_up(client: AsyncClient, names: list[str], times: int) -> None:
    """Increments that have to come out exactly."""
    for _ in range(times):
        await asyncio.gather(*(client.call("KV.incr", name) for name in names))


def some_keys(count: int, prefix: str = "k") -> list[str]:
    return [name for name, _ in zip(keys(prefix), range(count), strict=False)]


async def test_after_a_death_the_survivors_own_its_partitions_and_have_its_state(meshed):
    client, names = await meshed.connect(), some_keys(64)
    await count_up(client, names, 2)
    orphans = await meshed.owned("h-1")
    meshed.replaces = False
    await meshed.kill("h-1")
    assert {await client.call("KV.incr", name) for name in names} == {3}
    now_owned = await meshed.owned("h-0") | await meshed.owned("h-2")
    assert orphans < now_owned
    assert now_owned == set(range(PARTITIONS))
    [failover] = await meshed.events("failover")
    assert (failover["handler"], failover["cause"]) == ("h-1", "exit")
    assert failover["partitions"] == len(orphans)
    assert set(failover["phases_ms"]) == {"detect", "decide", "fence", "publish", "ready"}


async def test_calls_in_flight_when_their_handler_dies_take_effect_once(meshed):
    client, names = await meshed.connect(), some_keys(64)
    await count_up(client, names, 1)
    with meshed.replicas_silent():
        calls = [asyncio.create_task(client.call("KV.incr", name)) for name in names]
        await meshed.until_pending(len(names))
        await meshed.kill("h-2")
    assert set(await asyncio.gather(*calls)) == {2}
    assert {await client.call("KV.get", name) for name in names} == {2}


async def test_two_deaths_at_once_are_one_takeover_and_lose_nothing(meshed):
    client, names = await meshed.connect(), some_keys(64)
    await count_up(client, names, 1)
    meshed.replaces = False
    version = client.table.version.number
    with meshed.replicas_silent():
        await asyncio.gather(meshed.kill("h-0"), meshed.kill("h-1"))
    assert {await client.call("KV.incr", name) for name in names} == {2}
    assert await meshed.owned("h-2") == set(range(PARTITIONS))
    assert client.table.version.number <= version + 2


async def test_a_replacement_gets_its_even_share_while_calls_go_on(meshed):
    client, names = await meshed.connect(), some_keys(64)
    calling = asyncio.create_task(count_up(client, names, 50))
    process = await meshed.kill("h-0")
    await meshed.replaced("h-0", process)
    await calling
    shares = sorted([len(await meshed.owned(f"h-{i}")) for i in range(3)])
    assert shares == [5, 5, 6]
    assert {await client.call("KV.get", name) for name in names} == {50}
    assert [h["to"] for h in await meshed.events("handover")] == [["h-0"]]


async def test_a_handler_that_dies_while_it_is_handed_partitions_costs_nothing(meshed, monkeypatch):
    client, names = await meshed.connect(), some_keys(64)
    calling = asyncio.create_task(count_up(client, names, 100))
    meshed.replaces = False
    await meshed.kill("h-0")
    asked, tell = asyncio.Event(), meshed.supervisor.links.tell

    def told(nonce, message):
        tell(nonce, message)
        if isinstance(message, Release):
            asked.set()

    monkeypatch.setattr(meshed.supervisor.links, "tell", told)
    await meshed.add("h-0")
    async with asyncio.timeout(5):
        await asked.wait()
    await meshed.kill("h-0")
    await calling
    assert {await client.call("KV.get", name) for name in names} == {100}
    assert await meshed.owned("h-1") | await meshed.owned("h-2") == set(range(PARTITIONS))


async def test_a_client_with_an_old_table_is_put_right_by_the_redirect(meshed, deaf):
    names = some_keys(64)
    await count_up(deaf, names, 1)
    await meshed.add("h-9")
    await meshed.until(lambda: len(meshed.supervisor.core.table.handlers) == 4)
    await meshed.until(meshed.is_ready)
    moved = await meshed.owned("h-9")
    deaf.statuses.clear()
    values = [await deaf.call("KV.incr", name, timeout=1.0) for name in names]
    assert set(values) == {2}
    assert len(deaf.table.handlers) == 3
    touched = {p for n in names if (p := partition_of(n.encode(), PARTITIONS)) in moved}
    assert deaf.statuses[Status.REDIRECT] == len(touched) > 0
    assert set(deaf.statuses) == {Status.OK, Status.REDIRECT}


async def test_an_old_table_after_a_death_is_put_right_by_the_survivors(meshed, deaf):
    """What lay with the survivors and went to the replacement is found by redirects alone."""
    names = some_keys(64)
    await count_up(deaf, names, 1)
    survivors = await meshed.owned("h-0") | await meshed.owned("h-2")
    process = await meshed.kill("h-1")
    await meshed.replaced("h-1", process)
    reachable = [n for n in names if partition_of(n.encode(), PARTITIONS) in survivors]
    assert {await deaf.call("KV.incr", n, timeout=1.0) for n in reachable} == {2}


async def test_every_handler_passes_new_tables_on_to_its_clients(meshed):
    """A client that knows handlers only is put right without any supervisor."""
    client = await meshed.connect(meshed.address("h-0"))
    names = some_keys(64)
    await count_up(client, names, 1)
    process = await meshed.kill("h-1")
    await meshed.replaced("h-1", process)
    await meshed.until(lambda: client.table.version == meshed.supervisor.core.table.version)
    assert {await client.call("KV.incr", name) for name in names} == {2}


async def test_a_process_whose_grant_was_revoked_writes_nothing_and_ends(meshed, deaf):
    """The proof of its death was wrong. Who still calls it is refused, and the refusal is the truth."""
    key = await meshed.key_of("h-1")
    assert await deaf.call("KV.incr", key) == 1
    revoked = meshed.nodes["h-1"]
    meshed.prove_exit(revoked)
    await meshed.replaced("h-1", revoked)
    with pytest.raises(DeadlineExceeded) as caught:
        await deaf.call("KV.incr", key, timeout=0.3)
    assert caught.value.executed is False
    async with asyncio.timeout(5):
        await revoked.ended.wait()
    await revoked.stop()
    client = await meshed.connect()
    assert await client.call("KV.incr", key) == 2


async def test_a_stopped_handler_ends_in_good_order(meshed):
    nodes: list[Node] = list(meshed.nodes.values())
    await meshed.supervisor.questions.stop()
    async with asyncio.timeout(5):
        await asyncio.gather(*(node.ended.wait() for node in nodes))
        await meshed.supervisor.ended.wait()


@pytest.mark.parametrize("failing", ["next_batch", "on_commit", "settle"])
async def test_a_handler_whose_committing_fails_unforeseen_ends_and_is_replaced(
    meshed, monkeypatch, failing
):
    """It would keep its lane, and its callers would wait for ever."""

    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    node = next(iter(meshed.nodes.values()))
    monkeypatch.setattr(node._core, failing, fail)
    client = await meshed.connect()
    key = next(
        key
        for key in map("k{}".format, range(1000))
        if partition_of(key.encode(), PARTITIONS) in node._core._tenures
    )
    call = asyncio.create_task(client.call("KV.incr", key))
    async with asyncio.timeout(5):
        await node.ended.wait()
    await meshed.kill(node.settings.id)
    assert await call == 1
