"""Handlers are killed under load: every call is answered, nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from running import HANDLERS, Cluster, under_load

from mesh.client.aio import AsyncClient
from mesh.errors import OutcomeUnknown
from mesh.net import clock
from mesh.testing.killer import Killer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

PHASES = ["detect", "decide", "fence", "publish", "ready"]


def owned(status: dict[str, Any], without: set[str] = frozenset()) -> dict[str, set[int]]:
    return {
        h["id"]: set(h["partitions"]) for h in status["handlers"] if h["process"] not in without
    }


def processes(status: dict[str, Any]) -> dict[str, str]:
    return {h["id"]: h["process"] for h in status["handlers"]}


def assert_even(status: dict[str, Any]) -> None:
    """Every partition has one owner, and every handler its share."""
    parts = [p for h in status["handlers"] for p in h["partitions"]]
    assert Counter(parts) == Counter(range(status["partitions"]))
    shares = sorted(len(h["partitions"]) for h in status["handlers"])
    assert len(shares) == HANDLERS
    assert shares[-1] - shares[0] <= 1


async def test_a_handlers_death_costs_no_call_and_its_replacement_gets_its_share(
    cluster: Cluster, client: AsyncClient
) -> None:
    before = await cluster.ready()
    victim = before["handlers"][1]
    killer = await Killer.start()
    async with under_load(client, "one-") as load:
        await cluster.until(lambda _: len(load.samples) > 50)
        kill = await killer.kill(victim["pid"])
        during = await cluster.until(lambda s: victim["process"] not in processes(s).values())
        survivors = owned(
            during,
            without={h["process"] for h in during["handlers"]} - set(processes(before).values()),
        )
        after = await cluster.ready()
    await killer.stop()
    assert set(survivors) == {h["id"] for h in before["handlers"]} - {victim["id"]}
    for id_, kept in owned(before).items():
        if id_ != victim["id"]:
            assert kept <= survivors[id_], "a survivor lost something"
    assert set().union(*survivors.values()) == set(range(before["partitions"]))
    assert_even(after)
    since = kill.sent_wall - 0.001
    [failover] = await cluster.events(since, "failover")
    assert (failover["handler"], failover["cause"]) == (victim["id"], "exit")
    assert (failover["pid"], failover["partitions"]) == (victim["pid"], len(victim["partitions"]))
    assert list(failover["phases_ms"]) == PHASES
    assert all(ms >= 0 for ms in failover["phases_ms"].values())
    assert sum(failover["phases_ms"].values()) < 2000
    [handover] = await cluster.events(since, "handover")
    assert handover["to"] == [victim["id"]]
    assert handover["partitions"] == len(victim["partitions"])


async def test_two_handlers_killed_at_once_cost_no_call(
    cluster: Cluster, client: AsyncClient
) -> None:
    async with under_load(client, "two-"):
        since = await cluster.kill("h-0", "h-3")
        await cluster.until(lambda s: len(s["handlers"]) < HANDLERS)
        after = await cluster.ready()
    assert_even(after)
    failovers = await cluster.events(since, "failover")
    assert sorted(e["handler"] for e in failovers) == ["h-0", "h-3"]


async def test_the_last_one_standing_serves_everything(
    cluster: Cluster, client: AsyncClient
) -> None:
    async with under_load(client, "last-"):
        since = await cluster.kill("h-0", "h-1", "h-3")
        alone = await cluster.until(
            lambda s: any(len(h["partitions"]) == s["partitions"] for h in s["handlers"])
        )
        after = await cluster.ready()
    [owner] = [h["id"] for h in alone["handlers"] if h["partitions"]]
    assert owner == "h-2"
    assert_even(after)
    assert len(await cluster.events(since, "failover")) == HANDLERS - 1


async def test_a_call_that_kills_whoever_runs_it_kills_two(
    cluster: Cluster, client: AsyncClient
) -> None:
    """The second one says that it takes the call up, and that has left it before the method runs."""
    before = processes(await cluster.ready())
    since = clock.wall()
    with pytest.raises(OutcomeUnknown, match="2 handler processes that died") as caught:
        await client.call("Account.poison", "poisoned")
    assert caught.value.executed is None
    after = await cluster.ready()
    assert len(set(before.values()) - set(processes(after).values())) == 2
    assert len(await cluster.events(since, "failover")) == 2
    assert await client.call("Account.read", "poisoned") == 0


@pytest.mark.parametrize("whom", ["the giver", "the receiver"])
async def test_a_death_amid_a_handover_costs_no_call(
    cluster: Cluster, client: AsyncClient, whom: str
) -> None:
    before = processes(await cluster.status())
    feed = cluster.tool.follow()
    async with under_load(client, f"amid {whom}-", in_a_row=True):
        await cluster.kill("h-2")
        async with asyncio.timeout(30):
            while (event := await anext(feed))["kind"] != "handler_started":
                pass
        # Its share is being released to it just now.
        since = await cluster.kill("h-2" if whom == "the receiver" else "h-0")
        await cluster.until(lambda s: len({*processes(s).values()} - {*before.values()}) >= 1)
        await cluster.until(lambda s: processes(s).get("h-2") not in (None, before["h-2"]))
        after = await cluster.ready()
    await feed.aclose()
    assert_even(after)
    assert event["handler"] == "h-2"
    assert [e["handler"] for e in await cluster.events(since, "failover")] == [
        "h-2" if whom == "the receiver" else "h-0"
    ]
