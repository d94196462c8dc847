"""What faults are watched with finds what it is for: stale answers, late effects, moved partitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from mesh_in_process import InProcess

from mesh.client.aio import AsyncClient
from mesh.net import clock
from mesh.testing.load import OpenLoop
from mesh.testing.pinned import Pinned
from mesh.testing.queries import Queries
from mesh.testing.watch import Watch


@pytest.fixture
async def meshed() -> AsyncIterator[InProcess]:
    async with InProcess(3) as running:
        yield running


async def calls(load: OpenLoop, count: int) -> None:
    async with asyncio.timeout(10):
        while len(load.samples) < count:  # noqa: ASYNC110 - the load has no event for it
            await asyncio.sleep(0.002)


async def loaded(client: AsyncClient, *, ahead: int) -> Queries:
    """Queries that ran beside a load which believes in `ahead` more increments than there were."""
    load = OpenLoop(client, rate=1000, keys=20)
    queries = Queries(client, load, rate=500)
    await load.start()
    await calls(load, 40)
    load.highest = [highest + ahead for highest in load.highest]
    queries.start()
    await calls(load, 100)
    await load.stop()
    await queries.stop()
    return queries


async def test_a_query_that_shows_what_was_acknowledged_is_not_stale(meshed: InProcess) -> None:
    verdict = (await loaded(await meshed.connect(), ahead=0)).verdict
    assert verdict.queries > 10
    assert (verdict.failed, verdict.stale) == (0, 0)


async def test_a_query_that_shows_less_than_was_acknowledged_is_stale(meshed: InProcess) -> None:
    verdict = (await loaded(await meshed.connect(), ahead=1000)).verdict
    assert verdict.stale == verdict.queries > 10


async def test_a_pinned_process_that_serves_is_caught_by_what_it_says(meshed: InProcess) -> None:
    client, key = await meshed.connect(), await meshed.key_of("h-1")
    assert await client.call("KV.incr", key) == 1
    pinned = await Pinned.open(meshed.address("h-1"))
    pinned.leave("KV.get", key, 1)
    pinned.leave("KV.get", key, 2)
    pinned.leave("KV.incr", key, None)
    verdict = await pinned.wait(5.0)
    pinned.close()
    assert (verdict.asked, verdict.answered) == (3, 3)
    assert (verdict.stale, verdict.acknowledged) == (1, 1)
    assert await client.call("KV.get", key) == 2


async def test_a_pinned_process_that_is_not_the_owner_takes_nothing(meshed: InProcess) -> None:
    client, key = await meshed.connect(), await meshed.key_of("h-0")
    pinned = await Pinned.open(meshed.address("h-1"))
    pinned.leave("KV.get", key, 1)
    pinned.leave("KV.incr", key, None)
    verdict = await pinned.wait(5.0)
    pinned.close()
    assert (verdict.answered, verdict.stale, verdict.acknowledged) == (2, 0, 0)
    assert await client.call("KV.get", key) is None


async def test_a_pinned_process_that_dies_is_not_waited_for(meshed: InProcess) -> None:
    pinned = await Pinned.open(meshed.address("h-1"))
    await meshed.kill("h-1")
    pinned.leave("KV.get", "k", 0)
    async with asyncio.timeout(5):
        while not pinned.is_gone:
            await pinned.wait(0.01)
            await asyncio.sleep(0.001)
    assert pinned.verdict.answered == 0


async def test_a_watch_sees_when_partitions_have_moved_off(meshed: InProcess) -> None:
    status = meshed.status()
    victim = next(h for h in status["handlers"] if h["id"] == "h-1")
    async with Watch(status) as watch:
        async with asyncio.timeout(10):
            while not watch.sights:  # noqa: ASYNC110 - it polls, and has no event for it
                await asyncio.sleep(0.002)
            since = clock.now()
            assert watch.moved_s(since, [victim["process"]]) is None
            await meshed.kill("h-1")
            while (moved := watch.moved_s(since, [victim["process"]])) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        assert 0 < moved < 10
        assert [e["handler"] for e in await watch.gather_events() if e["kind"] == "failover"] == [
            "h-1"
        ]
        assert watch.new_leader_s(since, {s["pid"] for s in status["supervisors"]}) is None
