"""Faults that take their time, or hosts of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hurting import Hurt, hurt_mesh, slowest_s, some_calls, stopped, until, writes_again
from running import under_load

import mesh
from mesh.client.aio import AsyncClient
from mesh.net import clock
from mesh.testing.spread import SpreadMesh
from mesh.testing.watch import Watch

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

STARVED_S = 60.0
BUSY = 8


@pytest.fixture(scope="module", params=[500, 1000], ids="down-after-{}".format)
def hurt(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hurt]:
    name = f"hurt-{os.getpid()}-{request.param}"
    folder = tmp_path_factory.mktemp(name)
    with hurt_mesh(folder, name, down_after_ms=request.param) as hurt:
        yield hurt


@pytest.fixture
async def watch(hurt: Hurt) -> AsyncIterator[Watch]:
    async with hurt.watched() as watch:
        yield watch


@pytest.fixture
async def client(hurt: Hurt, watch: Watch) -> AsyncIterator[AsyncClient]:
    async with await mesh.connect(*hurt.addresses) as client:
        yield client


@pytest.mark.parametrize("role", ["primary", "replica"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_writes_go_on_without_a_server_of_the_store(
    role: str, how: signal.Signals, hurt: Hurt, client: AsyncClient
) -> None:
    async with under_load(client, f"{role}-{clock.wall()}-") as load:
        await some_calls(load)
        server = await hurt.server(role)
        since = clock.now()
        with stopped(server) if how == signal.SIGSTOP else contextlib.nullcontext():
            if how == signal.SIGKILL:
                os.kill(server, how)
            await until(lambda: writes_again(load, since))
            await some_calls(load)
        # One that goes on finds another in its place, and must not be listened to.
        await some_calls(load, 800)
    assert slowest_s(load) < 5.0


async def test_without_any_supervisor_calls_and_new_clients_go_on_and_later_a_death_is_seen_to(
    hurt: Hurt, watch: Watch, client: AsyncClient
) -> None:
    supervisors = {s["pid"] for s in watch.latest["supervisors"]}
    async with under_load(client, f"alone-{clock.wall()}-") as load:
        await some_calls(load)
        since = clock.now()
        for pid in supervisors:
            os.kill(pid, signal.SIGKILL)
        async with await mesh.connect(*hurt.addresses[len(supervisors) :]) as newcomer:
            assert await newcomer.call("KV.incr", f"new-{clock.wall()}") == 1
        await until(lambda: watch.new_leader_s(since, supervisors), 60.0)
        # Those on record that have not come to it yet have no pid, as far as it knows.
        victim = await until(
            lambda: next((h for h in watch.latest["handlers"] if h["pid"]), None), 60.0
        )
        since = clock.now()
        os.kill(victim["pid"], signal.SIGKILL)
        await until(lambda: watch.moved_s(since, [victim["process"]]))
        await some_calls(load)


async def test_a_minute_of_starvation_is_no_death(
    hurt: Hurt, watch: Watch, client: AsyncClient
) -> None:
    before = {h["process"] for h in watch.latest["handlers"]}
    since = clock.wall()
    spin = [sys.executable, "-ISc", "while True: pass"]
    async with under_load(client, f"starved-{since}-"):
        with contextlib.ExitStack() as busy:
            for _ in range(BUSY):
                process = subprocess.Popen(spin)  # noqa: ASYNC220 - once
                busy.callback(process.wait)
                busy.callback(process.kill)
            await asyncio.sleep(STARVED_S)  # that is the claim
    assert {h["process"] for h in watch.latest["handlers"]} == before
    events = await watch.gather_events()
    assert not [e for e in events if e["kind"] == "failover" and e["at"] >= since]


@pytest.mark.skipif(os.geteuid() != 0, reason="hosts of their own need root")
async def test_a_handler_whose_host_is_cut_off_costs_no_call(tmp_path: Path) -> None:
    async with SpreadMesh(tmp_path) as spread:
        status = await spread.status()
        victim = status["handlers"][1]
        async with Watch(status) as watch, await mesh.connect(spread.endpoint) as client:
            async with under_load(client, "cut-") as load:
                await some_calls(load)
                since = clock.now()
                host = spread.host_of(victim["id"])
                host.cut()
                await until(lambda: watch.moved_s(since, [victim["process"]]))
                await some_calls(load)
                host.mend()
                # It comes back, finds its grant revoked, and must neither answer nor write.
                await some_calls(load, 1500)
            assert slowest_s(load) < 5.0
