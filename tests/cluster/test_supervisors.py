"""Supervisors and wardens are killed and stopped under load: no call fails, and others take their places."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from running import HANDLERS, Run, under_load

import mesh
from mesh.client.aio import AsyncClient
from mesh.client.tool import ask
from mesh.errors import Unavailable
from mesh.launch import Launched
from mesh.net import clock

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

LED_S = 0.5
LED_OVER_SILENCE_S = 1.5
BACK_S = 20.0

Row = dict[str, Any]


class Watched:
    """The shared mesh, asked at any supervisor that answers."""

    def __init__(self, shared: Launched) -> None:
        self.endpoints = shared.endpoints

    async def status(self) -> dict[str, Any]:
        return dict(await ask(self.endpoints, "status"))

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(BACK_S):
            while True:
                try:
                    status = await self.status()
                    if holds(status):
                        return status
                except Unavailable:
                    pass  # nobody is there to be asked
                await asyncio.sleep(0.02)

    async def whole(self) -> dict[str, Any]:
        """Wait until everybody is there, and every supervisor knows it."""

        def is_whole(status: dict[str, Any]) -> bool:
            here = len(status["supervisors"]), len(status["wardens"]), len(status["handlers"])
            return status["ready"] and here == (2, 1, HANDLERS)

        status = await self.until(is_whole)
        for endpoint in self.endpoints:
            async with asyncio.timeout(BACK_S):
                while not is_whole(await ask([endpoint], "status")):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        return status

    async def leads(self, *, after: float) -> dict[str, Any]:
        """The first event that says that somebody leads, of after that time."""
        await self.until(lambda status: status["leader"] is not None)
        async with asyncio.timeout(BACK_S):
            while not (events := await self.events("leading", since=after)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return events[0]

    async def events(self, kind: str, *, since: float) -> list[dict[str, Any]]:
        every = await ask(self.endpoints, "events")
        return [e for e in every if e["kind"] == kind and e["at"] >= since]


def by_role(status: dict[str, Any], role: str) -> Row:
    [row] = [row for row in status["supervisors"] if row["role"] == role]
    return dict(row)


def pids(status: dict[str, Any]) -> dict[str, int]:
    rows = (*status["supervisors"], *status["wardens"], *status["handlers"])
    return {row["id"]: row["pid"] for row in rows}


def end(*processes: int, by: signal.Signals = signal.SIGKILL) -> float:
    """Send them this; when, by the wall clock."""
    at = clock.wall()
    for pid in processes:
        os.kill(pid, by)
    return at - 0.001


@pytest.fixture
async def watched(shared: Launched) -> AsyncIterator[Watched]:
    watched = Watched(shared)
    await watched.whole()
    yield watched
    await watched.whole()


async def test_a_killed_leader_costs_no_call_and_its_standby_leads_at_once(
    watched: Watched, client: AsyncClient
) -> None:
    before = await watched.status()
    leader, standby = by_role(before, "leader"), by_role(before, "standby")
    async with under_load(client, "led-"):
        await asyncio.sleep(0.3)
        at = end(leader["pid"])
        led = await watched.leads(after=at)
        await asyncio.sleep(0.3)
    assert led["supervisor"] == standby["id"]
    assert led["at"] - at < LED_S
    after = await watched.whole()
    assert by_role(after, "leader")["id"] == standby["id"]
    again = by_role(after, "standby")
    assert (again["id"], again["port"]) == (leader["id"], leader["port"])
    assert again["pid"] != leader["pid"]
    assert await watched.events("failover", since=at) == []
    assert after["table_version"] == before["table_version"]


async def test_a_handler_that_dies_with_the_leader_is_taken_over_by_the_next_one(
    watched: Watched, client: AsyncClient
) -> None:
    before = await watched.status()
    victim = before["handlers"][1]
    async with under_load(client, "both-") as load:
        await asyncio.sleep(0.3)
        begun = clock.now()
        at = end(victim["pid"], by_role(before, "leader")["pid"])
        await watched.leads(after=at)
        await watched.until(
            lambda s: victim["process"] not in {h["process"] for h in s["handlers"]}
        )
    slowest = max(s.latency_s for s in load.samples if s.ended >= begun)
    assert slowest < LED_OVER_SILENCE_S
    [failover] = await watched.events("failover", since=at)
    assert (failover["handler"], failover["cause"]) == (victim["id"], "exit")


async def test_a_stopped_leader_is_led_over_and_stands_by_once_it_wakes_up(
    watched: Watched, client: AsyncClient
) -> None:
    before = await watched.status()
    leader, standby = by_role(before, "leader"), by_role(before, "standby")
    watched.endpoints = (f"{standby['host']}:{standby['port']}",)
    async with under_load(client, "stop-"):
        await asyncio.sleep(0.3)
        at = end(leader["pid"], by=signal.SIGSTOP)
        try:
            led = await watched.leads(after=at)
        finally:
            end(leader["pid"], by=signal.SIGCONT)
        await asyncio.sleep(1.0)
    assert (led["supervisor"], led["at"] - at < LED_OVER_SILENCE_S) == (standby["id"], True)
    after = await watched.whole()
    assert by_role(after, "standby")["pid"] == leader["pid"]
    assert len(await watched.events("leading", since=at)) == 1
    assert await watched.events("failover", since=at) == []


async def test_without_any_supervisor_calls_go_on_and_one_of_those_that_come_back_leads(
    watched: Watched, client: AsyncClient
) -> None:
    before = await watched.status()
    handler = before["handlers"][0]
    async with under_load(client, "all-"):
        await asyncio.sleep(0.3)
        at = end(*(row["pid"] for row in before["supervisors"]))
        async with await mesh.connect(f"{handler['host']}:{handler['port']}") as newcomer:
            assert await newcomer.call("KV.incr", "newcomer") >= 1
        async with await mesh.connect(*watched.endpoints) as newcomer:
            assert await newcomer.call("KV.incr", "newcomer") >= 2
        await watched.leads(after=at)
    after = await watched.whole()
    assert {row["id"] for row in after["supervisors"]} == {"s-0", "s-1"}
    assert not {r["pid"] for r in after["supervisors"]} & {r["pid"] for r in before["supervisors"]}
    assert {h["process"] for h in after["handlers"]} == {h["process"] for h in before["handlers"]}
    victim = after["handlers"][2]
    async with under_load(client, "next-"):
        await asyncio.sleep(0.3)
        at = end(victim["pid"])
        await watched.until(
            lambda s: victim["process"] not in {h["process"] for h in s["handlers"]}
        )
    [failover] = await watched.events("failover", since=at)
    assert (failover["handler"], failover["cause"]) == (victim["id"], "exit")


async def test_a_killed_warden_is_replaced_and_has_its_proofs_again(
    watched: Watched, client: AsyncClient
) -> None:
    before = await watched.status()
    [warden] = before["wardens"]
    end(warden["pid"])
    await watched.until(lambda s: [w["pid"] for w in s["wardens"]] not in ([], [warden["pid"]]))
    after = await watched.whole()
    assert [w["id"] for w in after["wardens"]] == [warden["id"]]
    await asyncio.sleep(1.0)  # in which handlers have come to it, ten times over
    victim = after["handlers"][0]
    async with under_load(client, "warden-"):
        await asyncio.sleep(0.3)
        at = end(victim["pid"])
        await watched.until(
            lambda s: victim["process"] not in {h["process"] for h in s["handlers"]}
        )
    [failover] = await watched.events("failover", since=at)
    assert (failover["handler"], failover["cause"]) == (victim["id"], "exit")
    assert sum(failover["phases_ms"].values()) < 500


async def test_the_command_line_asks_whoever_is_there(
    watched: Watched, shared: Launched, run: Run, name: str
) -> None:
    before = await watched.status()
    first = before["supervisors"][0]
    end(first["pid"])
    done = await asyncio.to_thread(run, "status", "--name", name)
    assert "s-1" in done.stdout
    done = await asyncio.to_thread(run, "events", "--name", name, "--json")
    assert '"kind": "leading"' in done.stdout
