"""Faults on real processes, under load: stopped, killed, and what callers notice of it, which is nothing.

One mesh for all of it. How long each takes is measured by benchmarks.faults; the bounds here leave room for a
machine that is busy.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from hurting import Hurt, hurt_mesh, slowest_s, some_calls, stopped, until, writes_again
from running import under_load

import mesh
from mesh.client.aio import AsyncClient
from mesh.core.keyspace import key_bytes, partition_of
from mesh.net import clock
from mesh.testing.pinned import Pinned
from mesh.testing.watch import Watch

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

PROBES = 10


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hurt]:
    with hurt_mesh(tmp_path_factory.mktemp("hurt"), f"hurt-{os.getpid()}") as hurt:
        yield hurt


@pytest.fixture
async def watch(hurt: Hurt) -> AsyncIterator[Watch]:
    async with hurt.watched() as watch:
        yield watch


@pytest.fixture
async def client(hurt: Hurt, watch: Watch) -> AsyncIterator[AsyncClient]:
    async with await mesh.connect(*hurt.addresses) as client:
        yield client


async def test_a_stopped_handler_costs_no_call_and_what_it_says_late_changes_nothing(
    watch: Watch, client: AsyncClient
) -> None:
    victim = watch.latest["handlers"][1]
    mine, partitions = set(victim["partitions"]), watch.latest["partitions"]
    names = [f"late-{clock.wall()}-{i}" for i in range(1000)]
    written = [n for n in names if partition_of(key_bytes(n), partitions) in mine][:PROBES]
    pinned = await Pinned.open(f"{victim['host']}:{victim['port']}")
    async with under_load(client, f"stopped-{clock.wall()}-") as load:
        await some_calls(load)
        read = [k for k in range(len(load.names)) if load.partition(k, partitions) in mine]
        since = clock.now()
        with stopped(victim["pid"]):
            await until(lambda: watch.moved_s(since, [victim["process"]]))
            # Others have written more by then than it has in its memory.
            await some_calls(load)
            for key in read[:PROBES]:
                pinned.leave("KV.get", load.names[key], load.highest[key])
            for name in written:
                pinned.leave("KV.incr", name, None)
        verdict = await pinned.wait(5.0)
    pinned.close()
    # Whoever was to judge may have ended it; what it never read it cannot answer.
    assert verdict.asked == 2 * PROBES or pinned.is_gone
    assert (verdict.stale, verdict.acknowledged) == (0, 0)
    assert [await client.call("KV.get", name) for name in written] == [None] * len(written)
    assert slowest_s(load) < 3.0


async def test_a_killed_leader_is_followed_by_another_and_costs_no_call(
    watch: Watch, client: AsyncClient
) -> None:
    leader = next(s["pid"] for s in watch.latest["supervisors"] if s["role"] == "leader")
    async with under_load(client, f"leader-{clock.wall()}-") as load:
        await some_calls(load)
        since = clock.now()
        os.kill(leader, signal.SIGKILL)
        assert await until(lambda: watch.new_leader_s(since, {leader})) < 5.0
        # It does what a leader is for, once the handlers have come to it.
        victim = await until(
            lambda: next((h for h in watch.latest["handlers"] if h["state"] == "alive"), None)
        )
        since = clock.now()
        os.kill(victim["pid"], signal.SIGKILL)
        await until(lambda: watch.moved_s(since, [victim["process"]]))
        await some_calls(load)
    assert slowest_s(load) < 5.0


@pytest.mark.parametrize("role", ["primary", "replica"])
async def test_a_killed_server_of_the_store_costs_time_and_no_call(
    role: str, hurt: Hurt, client: AsyncClient
) -> None:
    async with under_load(client, f"{role}-{clock.wall()}-") as load:
        await some_calls(load)
        since = clock.now()
        os.kill(await hurt.server(role), signal.SIGKILL)
        await until(lambda: writes_again(load, since))
        await some_calls(load)
    assert slowest_s(load) < 5.0
